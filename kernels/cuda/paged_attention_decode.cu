// Attention of tokens that each have a sequence of their own: decoding.
//
// A block takes one token, up to kRows heads that share a key head, and one split of their keys, or all
// splits. What takes time when contexts are short is the chain of reads that need each other: position, block
// table, cache. So keys pass in stages of a few tiles, and every warp asks for the keys and the values of a
// tile of its own at once: one chain a stage. A warp scores its tile, a lane a key; then a thread adds one
// element of the values of all tiles. The arithmetic of a row is that of paged_attention.cuh, to the bit.
#include <cuda_pipeline.h>

#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/paged_attention.cuh"
#include "kernels/cuda/row_copy.cuh"

namespace aurora::cuda {
namespace {

constexpr int kStageTiles = 4;  // at most
/// Of keys and values: what four tiles of 128 bfloat16 need. Three such blocks fit on a Hopper
/// multiprocessor, so that one reads while another computes.
constexpr int kMaxStageBytes = 70 << 10;
constexpr int kWord = 16;  // bytes

/// One token and heads of it that share a key head.
struct Rows {
  std::int64_t token, sequence;
  std::int64_t first, last;  // keys attended to
  int kv_head, first_head, num_heads;
};

/// Dynamic shared memory: queries as float32, then the keys of a stage, then its values. A word of padding
/// behind each row lets lanes read the same column of their rows without bank conflicts.
template <class T, int kRows>
struct Stage {
  float* queries;  // [kRows, width]
  std::byte* keys;
  std::byte* values;
  int row_bytes;

  static __host__ __device__ int bytes_of_row(int width) {
    return width * static_cast<int>(sizeof(T)) + kWord;
  }
  static int bytes_of_tile(int width) { return 2 * kKeys * bytes_of_row(width); }
  static int bytes_of_queries(int width) { return kRows * width * static_cast<int>(sizeof(float)); }

  __device__ Stage(std::byte* memory, int width, int num_tiles)
      : queries(reinterpret_cast<float*>(memory)),
        keys(memory + kRows * width * sizeof(float)),
        values(keys + num_tiles * kKeys * bytes_of_row(width)),
        row_bytes(bytes_of_row(width)) {}
};

/// What the warps of a stage tell each other of their tiles.
template <int kRows>
struct TileWeights {
  float largest[kStageTiles][kRows];  // score of the tile
  float total[kStageTiles][kRows];    // of its weights
  alignas(16) float weight[kStageTiles][kKeys][kRows];
};

/// Where the lane's key of the tile at `base` is in the cache, in elements; -1: nowhere, or not attended to.
template <class T>
__device__ std::int64_t find_key(const Attention<T>& a, const Rows& rows, std::int64_t base) {
  const std::int64_t position = base + static_cast<int>(threadIdx.x) % kWarp;
  if (position < rows.first || position > rows.last) return -1;
  const int entry = static_cast<int>(position) / a.block_size;
  const std::int64_t block = a.block_tables[rows.sequence * a.max_blocks + entry];
  if (!index_fits(a.faults, FaultSite::kAttentionBlock, entry, block, a.num_blocks)) return -1;
  const std::int64_t slot = block * a.block_size + static_cast<int>(position) % a.block_size;
  return (slot * a.num_kv_heads + rows.kv_head) * a.width;
}

/// Asks for the rows of a tile, of which each lane has found one; all lanes of the warp call. Rows that are
/// nowhere are left as they are.
template <class T>
__device__ void fetch_tile(const T* cache, std::int64_t found, int width, std::byte* tile, int row_bytes) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int words = width * static_cast<int>(sizeof(T)) / kWord;  // of a row
  int key = lane / words;
  int word = lane % words;
  for (int i = 0; i < words; ++i) {
    const std::int64_t from = __shfl_sync(~0U, found, key);
    if (from >= 0) {
      const auto* row = reinterpret_cast<const std::byte*>(cache + from);
      __pipeline_memcpy_async(tile + key * row_bytes + word * kWord, row + word * kWord, kWord);
    }
    key += kWarp / words;
    word += kWarp % words;
    if (word >= words) {
      word -= words;
      ++key;
    }
  }
  __pipeline_commit();
}

/// The scores of the lane's key for all rows.
template <class T, int kRows>
__device__ void score_key(const Attention<T>& a, const float* queries, const std::byte* key, bool is_seen,
                          float (&scores)[kRows]) {
  constexpr int kVector = kWord / sizeof(T);
  float dots[kRows] = {};
#pragma unroll 4
  for (int d = 0; d < a.width; d += kVector) {
    const auto k = load_elements<kVector>(reinterpret_cast<const T*>(key) + d);
#pragma unroll
    for (int v = 0; v < kVector; v += 4) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const float4 q = *reinterpret_cast<const float4*>(&queries[i * a.width + d + v]);
        dots[i] = fmaf(q.x, to_float(k.part[v]), dots[i]);
        dots[i] = fmaf(q.y, to_float(k.part[v + 1]), dots[i]);
        dots[i] = fmaf(q.z, to_float(k.part[v + 2]), dots[i]);
        dots[i] = fmaf(q.w, to_float(k.part[v + 3]), dots[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) scores[i] = is_seen ? __fmul_rn(dots[i], a.scale) : -INFINITY;
}

__device__ inline float warp_largest(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0U, value, offset));
  }
  return value;
}

/// Weights of the warp's tile, the running softmax having seen `parts` and then the tiles up to this one.
template <int kRows>
__device__ void weigh_tile(const RunningSum<1> (&parts)[kRows], int tile, bool is_seen,
                           const float (&scores)[kRows], TileWeights<kRows>& weights) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    float largest = parts[i].largest;
    for (int t = 0; t <= tile; ++t) largest = fmaxf(largest, weights.largest[t][i]);
    const float weight = is_seen && largest != -INFINITY ? expf(scores[i] - largest) : 0.0F;
    const float total = warp_sum(weight);
    weights.weight[tile][lane][i] = weight;
    if (lane == 0) weights.total[tile][i] = total;
  }
}

/// Adds one element of a tile's values, the first of which is at `values`, by the weights of their keys.
template <class T, int kRows>
__device__ void add_tile(const TileWeights<kRows>& weights, int tile, const std::byte* values, int row_bytes,
                         RunningSum<1> (&parts)[kRows]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const float largest = fmaxf(parts[i].largest, weights.largest[tile][i]);
    if (largest == -INFINITY) continue;
    parts[i].rescale(largest);
    parts[i].total = __fadd_rn(parts[i].total, weights.total[tile][i]);
  }
#pragma unroll 8
  for (int key = 0; key < kKeys; ++key) {
    const float value = to_float(*reinterpret_cast<const T*>(values + key * row_bytes));
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float weight = weights.weight[tile][key][i];
      // Without weight also keys that are not attended to, whose values may be anything.
      parts[i].sum[0] = weight == 0 ? parts[i].sum[0] : fmaf(weight, value, parts[i].sum[0]);
    }
  }
}

/// The keys [begin, end) of one split; all threads call.
template <class T, int kRows>
__device__ void attend(const Attention<T>& a, const Rows& rows, std::int64_t begin, std::int64_t end,
                       int stage_tiles, const Stage<T, kRows>& stage, TileWeights<kRows>& weights,
                       RunningSum<1> (&parts)[kRows]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int tile_bytes = kKeys * stage.row_bytes;
  for (std::int64_t base = begin; base < end; base += stage_tiles * kKeys) {
    const int left = static_cast<int>(end - base + kKeys - 1) / kKeys;
    const int num_tiles = min(stage_tiles, left);
    const std::int64_t key = base + warp * kKeys + lane;
    const bool is_seen = key >= rows.first && key < end;
    float scores[kRows];
    __syncthreads();  // the stage before is used up
    if (warp < num_tiles) {
      const std::int64_t found = find_key(a, rows, base + warp * kKeys);
      fetch_tile(a.keys, found, a.width, stage.keys + warp * tile_bytes, stage.row_bytes);
      fetch_tile(a.values, found, a.width, stage.values + warp * tile_bytes, stage.row_bytes);
      __pipeline_wait_prior(1);
      __syncwarp();  // the tile's keys are there
      score_key(a, stage.queries, stage.keys + warp * tile_bytes + lane * stage.row_bytes, is_seen, scores);
      for (int i = 0; i < kRows; ++i) {
        const float largest = warp_largest(scores[i]);
        if (lane == 0) weights.largest[warp][i] = largest;
      }
    }
    __syncthreads();
    if (warp < num_tiles) weigh_tile(parts, warp, is_seen, scores, weights);
    __pipeline_wait_prior(0);
    __syncthreads();  // weights and values of all tiles are there
    const auto element = static_cast<int>(threadIdx.x);
    const std::byte* values = stage.values + min(element, a.width - 1) * static_cast<int>(sizeof(T));
    for (int tile = 0; tile < num_tiles; ++tile) {
      add_tile<T>(weights, tile, values + tile * tile_bytes, stage.row_bytes, parts);
    }
  }
}

template <class T>
__device__ Rows find_rows(const Attention<T>& a) {
  const int group = a.num_heads / a.num_kv_heads;
  const int chunks = (group + a.heads_per_block - 1) / a.heads_per_block;
  const int kv_head = static_cast<int>(blockIdx.y) / chunks;
  const int in_group = static_cast<int>(blockIdx.y) % chunks * a.heads_per_block;
  const std::int64_t token = blockIdx.x;
  const std::int64_t position = a.positions[token];
  return {.token = token,
          .sequence = a.sequence_index[token],
          .first = a.first_key(position),
          .last = position,
          .kv_head = kv_head,
          .first_head = kv_head * group + in_group,
          .num_heads = min(a.heads_per_block, group - in_group)};
}

template <class T, int kRows>
__global__ void decode_attention_kernel(Attention<T> a, int stage_tiles) {
  extern __shared__ __align__(kWord) std::byte memory[];
  __shared__ TileWeights<kRows> weights;
  const Stage<T, kRows> stage(memory, a.width, stage_tiles);
  const auto element = static_cast<int>(threadIdx.x);
  wait_for_kernel_before();
  let_next_kernel_begin();
  const Rows rows = find_rows(a);
  const std::int64_t first_row = rows.token * a.num_heads + rows.first_head;
  for (int d = element; d < kRows * a.width; d += static_cast<int>(blockDim.x)) {
    stage.queries[d] = d < rows.num_heads * a.width ? to_float(a.query[first_row * a.width + d]) : 0.0F;
  }
  if (!token_fits(a, rows.token, rows.sequence, rows.last)) return;
  RunningSum<1> all[kRows];
  const bool has_all = a.partials == nullptr;
  const std::int64_t first_split = rows.first / kSplit;
  const std::int64_t last_split = rows.last / kSplit;
  for (std::int64_t split = has_all ? first_split : blockIdx.z; split <= last_split; ++split) {
    if (split < first_split) break;
    RunningSum<1> parts[kRows];
    attend(a, rows, max(rows.first / kKeys * kKeys, split * kSplit), min(rows.last + 1, (split + 1) * kSplit),
           stage_tiles, stage, weights, parts);
    for (int i = 0; i < kRows; ++i) {
      if (has_all) {
        all[i].merge(parts[i]);
      } else if (i < rows.num_heads) {
        store_partial(a, first_row + i, split, element, parts[i]);
      }
    }
    if (!has_all) break;
  }
  for (int i = 0; i < kRows && has_all; ++i) {
    if (i < rows.num_heads) store_output(a, first_row + i, element, all[i]);
  }
}

template <class T, int kRows>
void launch(CudaStream& stream, Attention<T> a) {
  using StageOf = Stage<T, kRows>;
  const int group = a.num_heads / a.num_kv_heads;
  a.heads_per_block = std::min(group, kRows);
  const std::int64_t most_tiles = (a.max_blocks * a.block_size + kKeys - 1) / kKeys;
  const std::int64_t fitting_tiles = kMaxStageBytes / StageOf::bytes_of_tile(a.width);
  const auto stage_tiles =
      static_cast<int>(std::clamp<std::int64_t>(std::min(most_tiles, fitting_tiles), 1, kStageTiles));
  const int shared_bytes = StageOf::bytes_of_queries(a.width) + stage_tiles * StageOf::bytes_of_tile(a.width);
  check_cuda(cudaFuncSetAttribute(decode_attention_kernel<T, kRows>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
             "paged_attention: shared memory");
  // A warp for each tile, and a thread for each element.
  const unsigned threads = std::max(kStageTiles * kWarp, (a.width + kWarp - 1) / kWarp * kWarp);
  const dim3 grid(static_cast<unsigned>(a.num_tokens),
                  static_cast<unsigned>(a.num_kv_heads) * blocks_for(group, a.heads_per_block),
                  a.partials != nullptr ? static_cast<unsigned>(a.num_splits) : 1U);
  launch_dependent(decode_attention_kernel<T, kRows>, grid, threads, static_cast<std::size_t>(shared_bytes),
                   stream.handle(), "paged_attention: decode", a, stage_tiles);
}

}  // namespace

template <class T>
void launch_decode_attention(CudaStream& stream, const Attention<T>& a) {
  const int group = a.num_heads / a.num_kv_heads;
  if (group == 1) return launch<T, 1>(stream, a);
  group <= 4 ? launch<T, 4>(stream, a) : launch<T, 8>(stream, a);
}

template void launch_decode_attention(CudaStream&, const Attention<float>&);
template void launch_decode_attention(CudaStream&, const Attention<__nv_bfloat16>&);

}  // namespace aurora::cuda
