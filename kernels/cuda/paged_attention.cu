// Attention of one token and one query head per block, over the keys of the token's own sequence.
//
// The warps of a block share the keys: key number j, counted from the first one attended to, goes to warp
// j mod kWarps, which keeps a running softmax (Milakov and Gimelshein, arXiv 1805.02867) over its keys in
// ascending order. The warps' results are merged in the order of the warps. All orders depend on the token's
// position and window alone, so prefill in chunks and decoding give the same bits.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kKeysInFlight = 4;  // per warp: their loads and reductions overlap
constexpr int kMaxWidth = 256;

template <class T>
struct Attention {
  const T* query;   // [num_tokens, num_heads, width]
  const T* keys;    // [num_blocks, block_size, num_kv_heads, width]
  const T* values;  // likewise
  const std::int32_t* block_tables;
  const std::int32_t* sequence_index;
  const std::int32_t* positions;
  T* output;
  std::int64_t num_sequences, max_blocks, num_blocks;
  int num_heads, num_kv_heads, width, block_size, window;
  float scale;
  FaultSink faults;
};

/// The part of a softmax-weighted sum that one warp has seen; each lane holds elements lane + 32 i.
template <int kParts>
struct RunningSum {
  float largest = -INFINITY;
  float total = 0;
  float sum[kParts] = {};

  __device__ void rescale(float new_largest) {
    const float factor = expf(largest - new_largest);  // 0 at the start: exp(-inf)
    total *= factor;
    for (int i = 0; i < kParts; ++i) sum[i] *= factor;
    largest = new_largest;
  }
};

/// Offset of the row of a position in the cache, or -1 when the table is bad there.
template <class T>
__device__ std::int64_t row_offset(const Attention<T>& a, std::int64_t sequence, std::int64_t position,
                                   int kv_head) {
  const std::int64_t entry = position / a.block_size;
  const std::int64_t block = a.block_tables[sequence * a.max_blocks + entry];
  if (!index_fits(a.faults, FaultSite::kAttentionBlock, entry, block, a.num_blocks)) return -1;
  return ((block * a.block_size + position % a.block_size) * a.num_kv_heads + kv_head) * a.width;
}

template <class T, int kParts>
__device__ void load_row(float (&to)[kParts], const T* from, int width, int lane) {
  for (int i = 0; i < kParts; ++i) to[i] = lane + kWarp * i < width ? to_float(from[lane + kWarp * i]) : 0;
}

/// Adds up to kKeysInFlight keys, at positions first, first + kWarps, ...; -1 rows are left out.
template <class T, int kParts>
__device__ void add_keys(const Attention<T>& a, const float (&query)[kParts],
                         const std::int64_t (&rows)[kKeysInFlight], int lane, RunningSum<kParts>& running) {
  float scores[kKeysInFlight];
#pragma unroll
  for (int j = 0; j < kKeysInFlight; ++j) {
    float key[kParts];
    float dot = 0;
    if (rows[j] >= 0) {
      load_row<T, kParts>(key, a.keys + rows[j], a.width, lane);
      for (int i = 0; i < kParts; ++i) dot += query[i] * key[i];
    }
    scores[j] = dot;
  }
#pragma unroll
  for (int j = 0; j < kKeysInFlight; ++j) scores[j] = rows[j] < 0 ? -INFINITY : warp_sum(scores[j]) * a.scale;
  float largest = running.largest;
  for (int j = 0; j < kKeysInFlight; ++j) largest = fmaxf(largest, scores[j]);
  if (largest == -INFINITY) return;
  running.rescale(largest);
#pragma unroll
  for (int j = 0; j < kKeysInFlight; ++j) {
    if (rows[j] < 0) continue;
    const float weight = expf(scores[j] - largest);
    float value[kParts];
    load_row<T, kParts>(value, a.values + rows[j], a.width, lane);
    running.total += weight;
    for (int i = 0; i < kParts; ++i) running.sum[i] += weight * value[i];
  }
}

/// Merges the warps' parts in their order and writes the output; all threads of the block call.
template <class T, int kParts>
__device__ void merge_and_store(const RunningSum<kParts>& mine, T* output, int width) {
  __shared__ float largest[kWarps];
  __shared__ float totals[kWarps];
  __shared__ float sums[kWarps][kMaxWidth];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (lane == 0) {
    largest[warp] = mine.largest;
    totals[warp] = mine.total;
  }
  for (int i = 0; i < kParts; ++i) {
    if (lane + kWarp * i < width) sums[warp][lane + kWarp * i] = mine.sum[i];
  }
  __syncthreads();
  float all_largest = -INFINITY;
  for (int w = 0; w < kWarps; ++w) all_largest = fmaxf(all_largest, largest[w]);
  float factors[kWarps];
  float total = 0;
  for (int w = 0; w < kWarps; ++w) {
    factors[w] = totals[w] > 0 ? expf(largest[w] - all_largest) : 0;
    total += totals[w] * factors[w];
  }
  for (int d = static_cast<int>(threadIdx.x); d < width; d += kWarps * kWarp) {
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += sums[w][d] * factors[w];
    output[d] = from_float<T>(sum / total);
  }
}

/// Whether the token can be attended for; thread 0 reports when not.
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

template <class T, int kParts>
__global__ void paged_attention_kernel(Attention<T> a) {
  const std::int64_t token = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t sequence = a.sequence_index[token];
  const std::int64_t position = a.positions[token];
  if (!token_fits(a, token, sequence, position)) return;
  const int kv_head = head / (a.num_heads / a.num_kv_heads);
  const std::int64_t at = (token * a.num_heads + head) * a.width;
  float query[kParts];
  load_row<T, kParts>(query, a.query + at, a.width, lane);
  const std::int64_t first = a.window > 0 && position >= a.window ? position - a.window + 1 : 0;
  RunningSum<kParts> running;
  for (std::int64_t p = first + warp; p <= position; p += kWarps * kKeysInFlight) {
    std::int64_t rows[kKeysInFlight];
    for (int j = 0; j < kKeysInFlight; ++j) {
      const std::int64_t key = p + j * kWarps;
      rows[j] = key <= position ? row_offset(a, sequence, key, kv_head) : -1;
    }
    add_keys<T, kParts>(a, query, rows, lane, running);
  }
  merge_and_store<T, kParts>(running, a.output + at, a.width);
}

template <class T>
Attention<T> attention_of(const PagedAttentionArgs& args, FaultSink faults) {
  return {.query = data_of<const T>(args.query),
          .keys = data_of<const T>(args.key_cache),
          .values = data_of<const T>(args.value_cache),
          .block_tables = args.block_tables.i32(),
          .sequence_index = args.sequence_index.i32(),
          .positions = args.positions.i32(),
          .output = data_of<T>(args.output),
          .num_sequences = args.block_tables.dim(0),
          .max_blocks = args.block_tables.dim(1),
          .num_blocks = args.key_cache.dim(0),
          .num_heads = static_cast<int>(args.query.dim(1)),
          .num_kv_heads = static_cast<int>(args.key_cache.dim(2)),
          .width = static_cast<int>(args.query.dim(2)),
          .block_size = static_cast<int>(args.key_cache.dim(1)),
          .window = args.window,
          .scale = args.scale,
          .faults = faults};
}

}  // namespace

void CudaOps::paged_attention(Stream& stream, const PagedAttentionArgs& args) const {
  check_args(args);
  if (args.query.is_empty()) return;
  const std::int64_t width = args.query.dim(2);
  if (width > kMaxWidth) {
    throw Error(ErrorKind::kUnsupported, "paged_attention on cuda: heads of width " + std::to_string(width) +
                                             "; at most " + std::to_string(kMaxWidth) + " are supported");
  }
  for (const Tensor* tensor : {&args.key_cache, &args.value_cache, &args.output}) {
    check(tensor->dtype() == args.query.dtype(), "paged_attention: query, cache and output differ in dtype");
  }
  CudaStream& own = cuda_stream(stream);
  const dim3 grid(static_cast<unsigned>(args.query.dim(0)), static_cast<unsigned>(args.query.dim(1)));
  with_element(args.query.dtype(), "paged_attention", [&]<class T>(T*) {
    const Attention<T> attention = attention_of<T>(args, own.faults());
    if (width <= 64) {
      paged_attention_kernel<T, 2><<<grid, kWarps * kWarp, 0, own.handle()>>>(attention);
    } else if (width <= 128) {
      paged_attention_kernel<T, 4><<<grid, kWarps * kWarp, 0, own.handle()>>>(attention);
    } else {
      paged_attention_kernel<T, 8><<<grid, kWarps * kWarp, 0, own.handle()>>>(attention);
    }
  });
  check_launch("paged_attention");
}

}  // namespace aurora::cuda
