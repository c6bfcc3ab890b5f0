// Attention of new tokens over the keys of their own sequences.
//
// Tokens that each have a sequence of their own are paged_attention_decode.cu's. Here a block takes a few
// query rows, a row being one head of one token, that share a key head: the heads of a group and, in a
// prefill, neighbouring tokens. Tiles of 32 keys and then of their values pass through shared memory, where
// all rows of the block use them; a warp computes kRows rows, a lane one key of the tile.
//
// Few rows over long contexts have a block for each split of their keys, so that all of the GPU reads keys,
// and a second kernel that merges; many rows have one block for all splits.
#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/paged_attention.cuh"

namespace aurora::cuda {
namespace {

constexpr int kMaxWidth = 256;
/// Partial results of the splits may take this much; beyond it there are rows enough to fill the GPU anyway.
constexpr std::size_t kMaxPartialBytes = std::size_t{64} << 20;

/// Neighbouring tokens of one sequence, and the keys that any of them attends to.
struct Run {
  std::int64_t begin_token, end_token, sequence;
  std::int64_t low = INT64_MAX, high = -1;  // positions; empty when no token fits
};

template <class T>
__device__ Run find_run(const Attention<T>& a, std::int64_t begin, std::int64_t end) {
  Run run{begin, begin, a.sequence_index[begin]};
  for (; run.end_token < end && a.sequence_index[run.end_token] == run.sequence; ++run.end_token) {
    const std::int64_t position = a.positions[run.end_token];
    if (!token_fits(a, run.end_token, run.sequence, position)) continue;
    run.low = min(run.low, a.first_key(position));
    run.high = max(run.high, position);
  }
  return run;
}

/// Fills the tile with the run's keys (or values) at positions base, base + 1, ...; others become zero.
template <class T, int kVector, int kColumns>
__device__ void load_tile(const Attention<T>& a, const T* cache, const Run& run, std::int64_t base,
                          int kv_head, float (&tile)[kKeys][kColumns]) {
  struct alignas(sizeof(T) * kVector) Vector {
    T part[kVector];
  };
  const int padded = (a.width + 3) / 4 * 4;  // scores are computed four elements at a time
  const int parts = (padded + kVector - 1) / kVector;
  for (int at = static_cast<int>(threadIdx.x); at < kKeys * parts; at += static_cast<int>(blockDim.x)) {
    const int key = at / parts;
    const int column = at % parts * kVector;
    const std::int64_t position = base + key;
    Vector values = {};
    if (position >= run.low && position <= run.high && column < a.width) {
      const std::int64_t entry = position / a.block_size;
      const std::int64_t block = a.block_tables[run.sequence * a.max_blocks + entry];
      if (index_fits(a.faults, FaultSite::kAttentionBlock, entry, block, a.num_blocks)) {
        const std::int64_t slot = block * a.block_size + position % a.block_size;
        values =
            *reinterpret_cast<const Vector*>(cache + (slot * a.num_kv_heads + kv_head) * a.width + column);
      }
    }
    for (int v = 0; v < kVector; ++v) tile[key][column + v] = to_float(values.part[v]);
  }
}

/// The rows of one warp: who they are, and what they have seen.
template <int kParts, int kRows>
struct WarpRows {
  std::int64_t token[kRows];  // -1: no such row
  int head[kRows];
  std::int64_t first[kRows];  // keys attended to
  std::int64_t last[kRows];
  RunningSum<kParts> part[kRows];  // of the split under way
  float weight[kRows];             // of this lane's key in the tile under way
};

template <class T, int kParts, int kRows>
__device__ void find_rows(const Attention<T>& a, int warp, WarpRows<kParts, kRows>& rows) {
  const int group = a.num_heads / a.num_kv_heads;
  const int chunks = (group + a.heads_per_block - 1) / a.heads_per_block;
  const int kv_head = static_cast<int>(blockIdx.y) / chunks;
  const int first_head = static_cast<int>(blockIdx.y) % chunks * a.heads_per_block;
  for (int i = 0; i < kRows; ++i) {
    const int row = warp * kRows + i;
    const int in_group = first_head + row % a.heads_per_block;
    const int token_in_block = row / a.heads_per_block;
    const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * a.tokens_per_block + token_in_block;
    const bool exists = token_in_block < a.tokens_per_block && token < a.num_tokens && in_group < group;
    const std::int64_t position = exists ? a.positions[token] : -1;
    rows.token[i] = exists && position >= 0 ? token : -1;
    rows.head[i] = kv_head * group + in_group;
    rows.first[i] = a.first_key(position);
    rows.last[i] = position;
  }
}

/// The scores of the tile's keys for the warp's rows of the run, as weights of a running softmax.
template <class T, int kParts, int kRows, int kColumns, int kWidth>
__device__ void weigh_keys(const Attention<T>& a, const Run& run, std::int64_t base,
                           const float (&tile)[kKeys][kColumns], const float (*queries)[kWidth],
                           WarpRows<kParts, kRows>& rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float dots[kRows] = {};
  for (int d = 0; d < a.width; d += 4) {
    const float k0 = tile[lane][d], k1 = tile[lane][d + 1], k2 = tile[lane][d + 2], k3 = tile[lane][d + 3];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float4 q = *reinterpret_cast<const float4*>(&queries[i][d]);
      dots[i] = fmaf(q.w, k3, fmaf(q.z, k2, fmaf(q.y, k1, fmaf(q.x, k0, dots[i]))));
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    rows.weight[i] = 0;
    const bool is_in_run = rows.token[i] >= run.begin_token && rows.token[i] < run.end_token;
    if (!is_in_run || base > rows.last[i] || base + kKeys <= rows.first[i]) continue;
    const std::int64_t key = base + lane;
    const bool is_seen = key >= rows.first[i] && key <= rows.last[i];
    const float score = is_seen ? __fmul_rn(dots[i], a.scale) : -INFINITY;
    float largest = fmaxf(rows.part[i].largest, score);
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(~0U, largest, offset));
    }
    if (largest == -INFINITY) continue;
    rows.part[i].rescale(largest);
    rows.weight[i] = is_seen ? expf(score - largest) : 0.0F;
    rows.part[i].total = __fadd_rn(rows.part[i].total, warp_sum(rows.weight[i]));
  }
}

/// Adds the tile's values by the weights of their keys, in ascending order.
template <int kParts, int kRows, int kColumns>
__device__ void add_values(const float (&tile)[kKeys][kColumns], WarpRows<kParts, kRows>& rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int key = 0; key < kKeys; ++key) {
    float values[kParts];
#pragma unroll
    for (int p = 0; p < kParts; ++p) values[p] = tile[key][lane + kWarp * p];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float weight = __shfl_sync(~0U, rows.weight[i], key);
      if (weight == 0) continue;  // also keys that are not this row's, whose values may be anything
#pragma unroll
      for (int p = 0; p < kParts; ++p) rows.part[i].sum[p] = fmaf(weight, values[p], rows.part[i].sum[p]);
    }
  }
}

/// The keys of one split of a run, for all rows of the block; all threads call.
template <class T, int kParts, int kRows, int kColumns, int kWidth>
__device__ void attend_split(const Attention<T>& a, const Run& run, std::int64_t split,
                             float (&tile)[kKeys][kColumns], const float (*queries)[kWidth],
                             WarpRows<kParts, kRows>& rows) {
  constexpr int kVector = 16 / sizeof(T);
  const int group = a.num_heads / a.num_kv_heads;
  const int kv_head = static_cast<int>(blockIdx.y) / ((group + a.heads_per_block - 1) / a.heads_per_block);
  const auto load = [&](const T* cache, std::int64_t base) {
    __syncthreads();  // the tile before is used up
    if (a.is_vectorised) {
      load_tile<T, kVector>(a, cache, run, base, kv_head, tile);
    } else {
      load_tile<T, 1>(a, cache, run, base, kv_head, tile);
    }
    __syncthreads();
  };
  for (int i = 0; i < kRows; ++i) rows.part[i] = {};
  const std::int64_t end = min(run.high + 1, (split + 1) * kSplit);
  for (std::int64_t base = max(run.low / kKeys * kKeys, split * kSplit); base < end; base += kKeys) {
    load(a.keys, base);
    weigh_keys(a, run, base, tile, queries, rows);
    load(a.values, base);
    add_values(tile, rows);
  }
}

template <class T, int kParts, int kWarps, int kRows>
__global__ void __launch_bounds__(kWarps* kWarp) paged_attention_kernel(Attention<T> a) {
  constexpr int kWidth = kParts * kWarp;
  __shared__ float tile[kKeys][kWidth + 1];  // odd: lanes read a column without bank conflicts
  __shared__ alignas(16) float queries[kWarps][kRows][kWidth];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  wait_for_kernel_before();
  let_next_kernel_begin();
  WarpRows<kParts, kRows> rows;
  find_rows(a, warp, rows);
  for (int i = 0; i < kRows; ++i) {
    const T* query = a.query + (rows.token[i] * a.num_heads + rows.head[i]) * a.width;
    for (int d = lane; d < kWidth; d += kWarp) {
      queries[warp][i][d] = rows.token[i] >= 0 && d < a.width ? to_float(query[d]) : 0.0F;
    }
  }
  RunningSum<kParts> all[kRows];
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * a.tokens_per_block;
  const std::int64_t end = min(begin + a.tokens_per_block, a.num_tokens);
  for (Run run = find_run(a, begin, end);; run = find_run(a, run.end_token, end)) {
    const bool is_empty = run.high < 0;
    const std::int64_t first_split = a.partials != nullptr ? blockIdx.z : run.low / kSplit;
    const std::int64_t last_split = a.partials != nullptr ? blockIdx.z : run.high / kSplit;
    for (std::int64_t split = first_split; split <= last_split && !is_empty; ++split) {
      if (split < run.low / kSplit || split > run.high / kSplit) break;
      attend_split(a, run, split, tile, queries[warp], rows);
      for (int i = 0; i < kRows; ++i) {
        if (rows.token[i] < run.begin_token || rows.token[i] >= run.end_token) continue;
        const std::int64_t row = rows.token[i] * a.num_heads + rows.head[i];
        if (a.partials == nullptr) {
          all[i].merge(rows.part[i]);
        } else if (split >= rows.first[i] / kSplit && split <= rows.last[i] / kSplit) {
          store_partial(a, row, split, lane, rows.part[i]);
        }
      }
    }
    if (run.end_token == end) break;
  }
  for (int i = 0; i < kRows && a.partials == nullptr; ++i) {
    if (rows.token[i] >= 0) store_output(a, rows.token[i] * a.num_heads + rows.head[i], lane, all[i]);
  }
}

/// Merges the splits of one row a block, a thread one element.
template <class T>
__global__ void merge_splits_kernel(Attention<T> a) {
  constexpr int kInFlight = 8;  // splits that a thread reads at a time
  const std::int64_t row = blockIdx.x;
  const std::int64_t token = row / a.num_heads;
  const int element = static_cast<int>(threadIdx.x);
  wait_for_kernel_before();
  let_next_kernel_begin();
  const std::int64_t position = a.positions[token];
  if (!token_fits(a, token, a.sequence_index[token], position)) return;
  const std::int64_t end = position / kSplit + 1;
  RunningSum<1> all;
  for (std::int64_t split = a.first_key(position) / kSplit; split < end; split += kInFlight) {
    RunningSum<1> parts[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (split + i >= end) break;
      const float* from = a.partials + (row * a.num_splits + split + i) * (2 + a.width);
      parts[i].largest = from[0];
      parts[i].total = from[1];
      if (element < a.width) parts[i].sum[0] = from[2 + element];
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) all.merge(parts[i]);  // beyond the end nothing
  }
  store_output(a, row, element, all);
}

template <class T>
Attention<T> attention_of(const PagedAttentionArgs& args, FaultSink faults) {
  constexpr std::uintptr_t kWord = 16;
  const auto is_aligned = [](const Tensor& tensor) {
    return reinterpret_cast<std::uintptr_t>(tensor.bytes()) % kWord == 0;
  };
  const std::size_t row_bytes = static_cast<std::size_t>(args.query.dim(2)) * sizeof(T);
  const std::int64_t max_keys = args.block_tables.dim(1) * args.key_cache.dim(1);
  return {
      .query = data_of<const T>(args.query),
      .keys = data_of<const T>(args.key_cache),
      .values = data_of<const T>(args.value_cache),
      .block_tables = args.block_tables.i32(),
      .sequence_index = args.sequence_index.i32(),
      .positions = args.positions.i32(),
      .output = data_of<T>(args.output),
      .num_tokens = args.query.dim(0),
      .num_sequences = args.block_tables.dim(0),
      .max_blocks = args.block_tables.dim(1),
      .num_blocks = args.key_cache.dim(0),
      .num_heads = static_cast<int>(args.query.dim(1)),
      .num_kv_heads = static_cast<int>(args.key_cache.dim(2)),
      .width = static_cast<int>(args.query.dim(2)),
      .block_size = static_cast<int>(args.key_cache.dim(1)),
      .window = args.window,
      .scale = args.scale,
      .faults = faults,
      .tokens_per_block = 1,
      .heads_per_block = 1,
      .is_vectorised = row_bytes % kWord == 0 && is_aligned(args.key_cache) && is_aligned(args.value_cache),
      .num_splits = static_cast<int>(std::max<std::int64_t>(1, (max_keys + kSplit - 1) / kSplit)),
      .partials = nullptr};
}

/// Memory for the partial results of splits, where there are splits and it is not too much.
template <class T>
float* place_partials(CudaStream& stream, const Attention<T>& a) {
  const std::size_t bytes = static_cast<std::size_t>(a.num_tokens) *
                            static_cast<std::size_t>(a.num_heads * a.num_splits) *
                            static_cast<std::size_t>(2 + a.width) * sizeof(float);
  if (a.num_splits == 1 || bytes > kMaxPartialBytes) return nullptr;
  return reinterpret_cast<float*>(stream.scratch(bytes));
}

template <class T, int kParts, int kWarps, int kRows>
void launch_rows(CudaStream& stream, Attention<T> a) {
  const int group = a.num_heads / a.num_kv_heads;
  a.heads_per_block = std::min(group, kWarps * kRows);
  // With as many sequences as tokens each token has its own, and shares its keys with no other.
  a.tokens_per_block = a.num_tokens <= a.num_sequences ? 1 : kWarps * kRows / a.heads_per_block;
  const dim3 grid(blocks_for(a.num_tokens, a.tokens_per_block),
                  static_cast<unsigned>(a.num_kv_heads) * blocks_for(group, a.heads_per_block),
                  a.partials != nullptr ? static_cast<unsigned>(a.num_splits) : 1U);
  launch_dependent(paged_attention_kernel<T, kParts, kWarps, kRows>, grid, kWarps * kWarp, 0, stream.handle(),
                   "paged_attention", a);
}

template <class T>
void launch(CudaStream& stream, Attention<T> a) {
  a.partials = place_partials(stream, a);
  // As many warps and rows as leave the tile and the queries within 48 KiB of shared memory.
  if (a.num_tokens <= a.num_sequences && a.is_vectorised) {
    launch_decode_attention(stream, a);
  } else if (a.width <= 64) {
    launch_rows<T, 2, 8, 4>(stream, a);
  } else if (a.width <= 128) {
    launch_rows<T, 4, 8, 4>(stream, a);
  } else {
    launch_rows<T, 8, 4, 2>(stream, a);
  }
  if (a.partials == nullptr) return;
  launch_dependent(merge_splits_kernel<T>, static_cast<unsigned>(a.num_tokens * a.num_heads),
                   blocks_for(a.width, kWarp) * kWarp, 0, stream.handle(), "paged_attention: merge", a);
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
  with_element(args.query.dtype(), "paged_attention",
               [&]<class T>(T*) { launch(own, attention_of<T>(args, own.faults())); });
}

}  // namespace aurora::cuda
