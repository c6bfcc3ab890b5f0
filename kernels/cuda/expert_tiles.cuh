// The tiles of a product over many experts, found on the device.
//
// Rows are grouped by expert; the host knows a bound on their number and nothing of the groups. So the grid
// is launched for that bound, and every block reads the groups' offsets, counts how many tiles each expert
// has, and finds the tiles that are its own. A tile is up to `tile_rows` rows of one expert, which its tiles
// share evenly, by one strip of output columns. The tiles of one expert follow each other, in bands of
// `kBand` row tiles: within a band the row tile changes fastest, so that blocks that run side by side share
// both the strip's weights and the band's rows in the cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/stable_slots.cuh"

namespace aurora::cuda {

/// As the device reads it.
struct ExpertTiles {
  const std::int32_t* expert_offsets = nullptr;  // [num_experts + 1]
  std::int32_t num_experts = 0;
  std::int32_t num_rows = 0;   // a bound on the last offset
  std::int32_t tile_rows = 0;  // a multiple of kRowStep
  std::int32_t num_strips = 0;
};

/// One tile: rows [first_row, first_row + num_rows) of `expert`, columns of `strip`.
struct ExpertTile {
  std::int32_t expert;
  std::int32_t first_row;
  std::int32_t num_rows;
  std::int32_t strip;
};

inline constexpr std::int32_t kBand = 16;     // row tiles
inline constexpr std::int32_t kRowStep = 16;  // all row tiles of an expert but its last are multiples of it

/// The most tiles that there can be.
inline std::int64_t most_tiles(const ExpertTiles& tiles) {
  const std::int64_t begun =
      std::min(tiles.num_experts, tiles.num_rows);  // groups' last, partly filled tiles
  return (tiles.num_rows / tiles.tile_rows + begun) * tiles.num_strips;
}

/// Rows of an expert; none, and a fault, where the offsets make no sense.
__device__ inline std::int32_t rows_of_expert(const ExpertTiles& tiles, std::int32_t expert,
                                              FaultSink faults) {
  const std::int32_t begin = tiles.expert_offsets[expert];
  const std::int32_t end = tiles.expert_offsets[expert + 1];
  if (begin >= 0 && begin <= end && end <= tiles.num_rows && (expert > 0 || begin == 0)) return end - begin;
  report_fault(faults, FaultSite::kExpertOffsets, expert, begin, tiles.num_rows, end);
  return 0;
}

/// What a block knows of all experts, in shared memory: [num_experts + 1] each.
struct ExpertTable {
  std::int32_t* first_tile;  // number of tiles before expert e
  std::int32_t* offsets;     // the groups' offsets

  __host__ __device__ static constexpr std::size_t bytes(std::int64_t num_experts) {
    return 2 * static_cast<std::size_t>(num_experts + 1) * sizeof(std::int32_t);
  }
  __device__ ExpertTable(std::byte* memory, std::int32_t num_experts)
      : first_tile(reinterpret_cast<std::int32_t*>(memory)), offsets(first_tile + num_experts + 1) {}
};

/// Fills the table. The whole block calls; it is synchronised at the end.
__device__ inline void count_tiles(const ExpertTiles& tiles, const ExpertTable& table, FaultSink faults) {
  if (threadIdx.x < kWarp) {
    const int lane = static_cast<int>(threadIdx.x);
    std::int32_t before = 0;
    for (std::int32_t base = 0; base < tiles.num_experts; base += kWarp) {
      const std::int32_t expert = base + lane;
      const std::int32_t rows = expert < tiles.num_experts ? rows_of_expert(tiles, expert, faults) : 0;
      const std::int32_t own = (rows + tiles.tile_rows - 1) / tiles.tile_rows * tiles.num_strips;
      const std::int32_t sum = sum_below(own, lane) + own;
      if (expert < tiles.num_experts) table.first_tile[expert + 1] = before + sum;
      before += __shfl_sync(~0U, sum, kWarp - 1);
    }
    if (lane == 0) table.first_tile[0] = 0;
    for (std::int32_t i = lane; i <= tiles.num_experts; i += kWarp)
      table.offsets[i] = tiles.expert_offsets[i];
  }
  __syncthreads();
}

/// The tile of this number, below first_tile[num_experts].
__device__ inline ExpertTile tile_at(const ExpertTiles& tiles, const ExpertTable& table,
                                     std::int32_t number) {
  const std::int32_t* first_tile = table.first_tile;
  std::int32_t low = 0;  // first_tile[low] <= number < first_tile[high]
  std::int32_t high = tiles.num_experts;
  while (high - low > 1) {
    const std::int32_t middle = (low + high) / 2;
    (first_tile[middle] <= number ? low : high) = middle;
  }
  const std::int32_t num_row_tiles = (first_tile[low + 1] - first_tile[low]) / tiles.num_strips;
  const std::int32_t band_tiles = kBand * tiles.num_strips;
  const std::int32_t within = number - first_tile[low];
  const std::int32_t band = within / band_tiles;
  const std::int32_t height = min(kBand, num_row_tiles - band * kBand);
  const std::int32_t row_tile = band * kBand + within % band_tiles % height;
  const std::int32_t begin = table.offsets[low];
  const std::int32_t end = table.offsets[low + 1];
  const std::int32_t share = (end - begin + num_row_tiles - 1) / num_row_tiles;
  const std::int32_t tile_rows = (share + kRowStep - 1) / kRowStep * kRowStep;
  const std::int32_t first_row = begin + row_tile * tile_rows;
  return {.expert = low,
          .first_row = first_row,
          .num_rows = min(tile_rows, end - first_row),
          .strip = within % band_tiles / height};
}

}  // namespace aurora::cuda
