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

struct ExclusiveSums {
  static constexpr int kMost = 3;
  ExclusiveSum sums[kMost];
};

/// Submits up to three sums, one block each.
void submit_exclusive_sums(CudaStream& stream, const ExclusiveSums& sums, int num_sums);

}  // namespace aurora::cuda
