// What the two kernels of paged_attention share, so that a row has the same bits by either.
//
// The keys of a row pass in tiles of kKeys at positions that are multiples of it. A score is a sum in
// ascending order of elements; each row keeps a running softmax (Milakov and Gimelshein, arXiv 1805.02867)
// from tile to tile, whose weighted sum takes values in ascending order of keys, and whose total takes the
// sum of a tile's weights over a warp. It starts anew with each split of kSplit keys; splits are merged in
// ascending order. So tiles, splits and every order depend on a row's position and window alone.
#pragma once

#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {

inline constexpr int kKeys = kWarp;  // of a tile: one a lane
inline constexpr int kSplit = 256;   // keys; a multiple of kKeys

template <class T>
struct Attention {
  const T* query;   // [num_tokens, num_heads, width]
  const T* keys;    // [num_blocks, block_size, num_kv_heads, width]
  const T* values;  // likewise
  const std::int32_t* block_tables;
  const std::int32_t* sequence_index;
  const std::int32_t* positions;
  T* output;
  std::int64_t num_tokens, num_sequences, max_blocks, num_blocks;
  int num_heads, num_kv_heads, width, block_size, window;
  float scale;
  FaultSink faults;
  // How rows are dealt out to blocks.
  int tokens_per_block, heads_per_block;
  bool is_vectorised;  // rows of the cache are whole and aligned 16-byte words
  int num_splits;      // of the longest context; blocks in z when `partials` is there
  float* partials;     // [num_tokens, num_heads, num_splits, 2 + width], or null: one block does all splits

  __device__ std::int64_t first_key(std::int64_t position) const {
    return window > 0 && position >= window ? position - window + 1 : 0;
  }
};

/// A softmax-weighted sum under way: of the elements of its row, a thread holds some that are 32 apart.
template <int kParts>
struct RunningSum {
  float largest = -INFINITY;
  float total = 0;
  float sum[kParts] = {};

  __device__ void rescale(float new_largest) {
    const float factor = expf(largest - new_largest);  // 0 at the start: exp(-inf)
    total = __fmul_rn(total, factor);
    for (int i = 0; i < kParts; ++i) sum[i] = __fmul_rn(sum[i], factor);
    largest = new_largest;
  }
  /// Adds the keys that `part` has seen, which come after this one's.
  __device__ void merge(const RunningSum& part) {
    if (part.largest == -INFINITY) return;
    rescale(fmaxf(largest, part.largest));
    const float factor = expf(part.largest - largest);
    total = fmaf(part.total, factor, total);
    for (int i = 0; i < kParts; ++i) sum[i] = fmaf(part.sum[i], factor, sum[i]);
  }
};

/// Whether the token can be attended for; reports when not.
template <class T>
__device__ bool token_fits(const Attention<T>& a, std::int64_t token, std::int64_t sequence,
                           std::int64_t position) {
  if (!index_fits(a.faults, FaultSite::kAttentionSequence, token, sequence, a.num_sequences)) return false;
  if (position < 0) {
    report_fault(a.faults, FaultSite::kAttentionPosition, token, position, 0);
    return false;
  }
  return index_fits(a.faults, FaultSite::kAttentionLastBlock, sequence, position / a.block_size,
                    a.max_blocks);
}

/// The thread's elements are first, first + 32, ...
template <class T, int kParts>
__device__ void store_partial(const Attention<T>& a, std::int64_t row, std::int64_t split, int first,
                              const RunningSum<kParts>& part) {
  float* to = a.partials + (row * a.num_splits + split) * (2 + a.width);
  if (first == 0) {
    to[0] = part.largest;
    to[1] = part.total;
  }
  for (int p = 0; p < kParts; ++p) {
    if (first + kWarp * p < a.width) to[2 + first + kWarp * p] = part.sum[p];
  }
}

template <class T, int kParts>
__device__ void store_output(const Attention<T>& a, std::int64_t row, int first,
                             const RunningSum<kParts>& all) {
  for (int p = 0; p < kParts; ++p) {
    const int d = first + kWarp * p;
    if (d < a.width) a.output[row * a.width + d] = from_float<T>(all.sum[p] / all.total);
  }
}

/// The kernel for tokens that each have a sequence of their own, as in decoding, and 16-byte words
/// (`is_vectorised`); `a.partials` and `a.num_splits` are set. Splits are left unmerged.
template <class T>
void launch_decode_attention(CudaStream& stream, const Attention<T>& a);

}  // namespace aurora::cuda
