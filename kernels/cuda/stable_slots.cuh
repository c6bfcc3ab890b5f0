// Stable slot assignment: gives every item a place among the items of its key, in the order of the items.
//
// Items are tokens or rows, each with a few keys (ranks, experts). A warp takes a chunk of 32 items, one a
// lane, and marks in one word per key which of them have the key. The population counts of these words, laid
// out [key][chunk] and summed exclusively, are where each chunk's items of each key begin; inside a chunk an
// item comes after the marked lanes below its own. Three launches: count, sum, fill. No step depends on the
// order in which threads run.
#pragma once

#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {

inline constexpr int kChunk = kWarp;  // items
inline constexpr int kChunksPerBlock = 8;
inline constexpr int kChunkThreads = kChunksPerBlock * kWarp;

inline std::int64_t num_chunks_of(std::int64_t num_items) { return (num_items + kChunk - 1) / kChunk; }

/// Where a thread stands.
struct ChunkLane {
  std::int64_t chunk;
  std::int64_t item;
  int warp;  // of the block
  int lane;
};

__device__ inline ChunkLane chunk_lane() {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t chunk = static_cast<std::int64_t>(blockIdx.x) * kChunksPerBlock + warp;
  return {chunk, chunk * kChunk + lane, warp, lane};
}

__device__ inline void clear_words(std::uint32_t* words, std::int64_t count, int lane) {
  for (std::int64_t i = lane; i < count; i += kWarp) words[i] = 0;
  __syncwarp();
}

/// Sum over the lanes below this one; all lanes must call.
__device__ inline std::int32_t sum_below(std::int32_t value, int lane) {
  std::int32_t sum = value;
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const std::int32_t other = __shfl_up_sync(~0U, sum, offset);
    if (lane >= offset) sum += other;
  }
  return sum - value;
}

__device__ inline std::uint32_t lanes_below(int lane) { return (1U << lane) - 1; }

/// values[i] becomes the sum of those before it, values[count] the sum of all.
struct ExclusiveSum {
  std::int32_t* values = nullptr;  // [count + 1]
  std::int64_t count = 0;
};

/// One sum by a block of whole warps, all of whose threads call; what they wrote to the values before must be
/// visible to the block, and the sums are when it synchronises next.
__device__ inline void sum_in_block(const ExclusiveSum& task) {
  constexpr int kPerThread = 4;  // values of a tile: long sums take fewer rounds of two barriers
  __shared__ std::int32_t warp_totals[kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int num_warps = static_cast<int>(blockDim.x) / kWarp;
  std::int32_t carried = 0;  // the sum of all tiles before this one, in every thread
  for (std::int64_t tile = 0; tile < task.count; tile += kPerThread * blockDim.x) {
    const std::int64_t first = tile + kPerThread * threadIdx.x;
    std::int32_t values[kPerThread];
    std::int32_t own = 0;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      values[i] = first + i < task.count ? task.values[first + i] : 0;
      own += values[i];
    }
    const std::int32_t below = sum_below(own, lane);
    if (lane == kWarp - 1) warp_totals[warp] = below + own;
    __syncthreads();
    const std::int32_t total = lane < num_warps ? warp_totals[lane] : 0;
    const std::int32_t totals_below = sum_below(total, lane);
    std::int32_t sum = carried + __shfl_sync(~0U, totals_below, warp) + below;
    carried += __shfl_sync(~0U, totals_below + total, kWarp - 1);
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      if (first + i < task.count) task.values[first + i] = sum;
      sum += values[i];
    }
    __syncthreads();  // the totals are read before the next tile, or sum, writes them
  }
  if (threadIdx.x == 0) task.values[task.count] = carried;
}

struct ExclusiveSums {
  static constexpr int kMost = 3;
  ExclusiveSum sums[kMost];
};

/// Submits up to three sums, one block each.
void submit_exclusive_sums(CudaStream& stream, const ExclusiveSums& sums, int num_sums);

}  // namespace aurora::cuda
