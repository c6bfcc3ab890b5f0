// The warpgroups of expert_ffn_wgmma.cu that multiply: each takes two panels of the features of every tile,
// sums over the slices as they come, and writes its share of the output.
#pragma once

#include "kernels/cuda/warpgroup_product.cuh"
#include "kernels/cuda/wgmma_ring.cuh"

namespace aurora::cuda::wgmma {

/// Two panels of features by kColumns tokens, summed over the inner dimension.
template <class C, bool kIsGated, int kColumns>
__device__ void multiply_tile(const Ring<C>& ring, Place<C>& place, int warpgroup, int num_slices,
                              float (&first_sums)[kColumns / 2], float (&second_sums)[kColumns / 2]) {
  // In one's own block the arrival also orders what this lane has read, the tile; in another block it says no
  // more than that the products have read the stage.
  const auto release = [&](int stage) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    if (lane == 0) {
      arrive(ring.empty(stage));
    } else if (lane < C::kBlocks) {
      arrive_in((block_in_cluster() + lane) % C::kBlocks, ring.empty(stage));
    }
  };
  int previous = 0;
  for (int slice = 0; slice < num_slices; ++slice) {
    wait_for(ring.full(place.stage), place.parity);
    if constexpr (kIsGated) see_shared_writes();
    const std::uint64_t first = matrix_descriptor(ring.weights(place.stage, warpgroup));
    const std::uint64_t second = matrix_descriptor(ring.weights(place.stage, warpgroup + C::kWarpgroups));
    const std::uint64_t tokens = matrix_descriptor(ring.tokens(place.stage));
    begin_products();
#pragma unroll
    for (int step = 0; step < kSlice / 16; ++step) {
      multiply_16<kColumns>(first_sums, next_16_columns(first, step), next_16_columns(tokens, step));
      multiply_16<kColumns>(second_sums, next_16_columns(second, step), next_16_columns(tokens, step));
    }
    commit_products();
    // Where products are long, two warpgroups keep the matrix units busy without slices of one's own
    // overlapping, and the stage is free a slice sooner (measured: benchmarks/layer/h200.md).
    if constexpr (C::kBlocks > 1) {
      wait_for_products<0>();
      release(place.stage);
    } else if (slice > 0) {
      wait_for_products<1>();
      release(previous);
    }
    previous = place.stage;
    place.advance();
  }
  wait_for_products<0>();
  settle(first_sums);
  settle(second_sums);
  if constexpr (C::kBlocks == 1) release(previous);
}

__device__ inline std::uint32_t pack(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

/// Writes a warpgroup's 64 features by tokens [first_token, ...) of the tile, left in shared memory, to rows
/// of the output.
template <class C>
__device__ void write_rows(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int warpgroup,
                           int first_feature, int first_token) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const SharedAddress output = ring.output(warpgroup);
  const int feature = first_feature + thread % kChunks * (kChunkBytes / 2);
  if (feature >= p.out_width) return;
  constexpr int kPasses = C::kOutputTokens / kGatherRows;
  const int token = thread / kChunks;
  const SharedAddress from =
      output + token * kRowBytes + (thread % kChunks ^ (token % kChunks)) * kChunkBytes;
  Element* to =
      p.output + static_cast<std::int64_t>(tile.first_row + first_token + token) * p.out_width + feature;
  uint4 values[kPasses];
#pragma unroll
  for (int i = 0; i < kPasses; ++i) values[i] = load_shared_16(from + i * kGatherRows * kRowBytes);
#pragma unroll
  for (int i = 0; i < kPasses; ++i) {
    if (first_token + token + i * kGatherRows >= tile.num_rows) break;
    *reinterpret_cast<uint4*>(to + static_cast<std::int64_t>(i) * kGatherRows * p.out_width) = values[i];
  }
}

/// A warpgroup's 64 features by kColumns tokens, from registers to rows of the output.
template <class C, int kColumns>
__device__ void write_panel(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int warpgroup,
                            int first_feature, const float (&values)[kColumns / 2]) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int lane = thread % kWarp;
  const int chunk = thread / kWarp * 2 + lane / 8 % 2;
  const SharedAddress place =
      ring.output(warpgroup) + lane % 8 * kRowBytes + (chunk ^ (lane % kChunks)) * kChunkBytes;
#pragma unroll
  for (int first_token = 0; first_token < kColumns; first_token += C::kOutputTokens) {
    synchronize(1 + warpgroup, kWarpgroup);  // those before have left
#pragma unroll
    for (int token = first_token; token < min(kColumns, first_token + C::kOutputTokens); token += 8) {
      const int at = token / 2;
      store_transposed(place + (token - first_token) * kRowBytes, pack(values[at], values[at + 1]),
                       pack(values[at + 2], values[at + 3]));
    }
    synchronize(1 + warpgroup, kWarpgroup);
    write_rows(p, ring, tile, warpgroup, first_feature, first_token);
  }
}

template <class C, bool kIsGated, int kColumns>
__device__ void compute_tile(const Product& p, const Ring<C>& ring, Place<C>& place, const ExpertTile& tile,
                             int warpgroup) {
  // Cleared, not begun with a product that ignores what was there: to the compiler such sums would be read
  // before they are written, hence alive from tile to tile, and those of all numbers of columns at once.
  float first[kColumns / 2] = {};
  float second[kColumns / 2] = {};
  multiply_tile<C, kIsGated, kColumns>(ring, place, warpgroup, (p.in_width + kSlice - 1) / kSlice, first,
                                       second);
  if constexpr (kIsGated) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) first[i] = fast_silu(first[i]) * second[i];
    write_panel<C, kColumns>(p, ring, tile, warpgroup, (tile.strip * C::kWarpgroups + warpgroup) * kPanel,
                             first);
  } else {
    const int panel = tile.strip * C::kPanels + warpgroup;
    write_panel<C, kColumns>(p, ring, tile, warpgroup, panel * kPanel, first);
    write_panel<C, kColumns>(p, ring, tile, warpgroup, (panel + C::kWarpgroups) * kPanel, second);
  }
}

/// With the narrowest product of kColumns... columns that holds the tile's rows.
template <class C, bool kIsGated, int kColumns, int... kWider>
__device__ void compute_narrowest(const Product& p, const Ring<C>& ring, Place<C>& place,
                                  const ExpertTile& tile, int warpgroup) {
  if constexpr (kColumns == C::kTokens) {
    compute_tile<C, kIsGated, kColumns>(p, ring, place, tile, warpgroup);
  } else if (tile.num_rows <= kColumns) {
    compute_tile<C, kIsGated, kColumns>(p, ring, place, tile, warpgroup);
  } else {
    compute_narrowest<C, kIsGated, kWider...>(p, ring, place, tile, warpgroup);
  }
}

/// The tile that begins in a stage, in every lane. One lane reads it, the one that empties the stage: its
/// arrival there orders what it read, not what others did.
template <class C>
__device__ ExpertTile begun_tile(const Ring<C>& ring, int stage) {
  ExpertTile tile{};
  if (threadIdx.x % kWarp == 0) tile = ring.tiles[stage];
  constexpr unsigned kAllLanes = ~0U;
  return {.expert = __shfl_sync(kAllLanes, tile.expert, 0),
          .first_row = __shfl_sync(kAllLanes, tile.first_row, 0),
          .num_rows = __shfl_sync(kAllLanes, tile.num_rows, 0),
          .strip = __shfl_sync(kAllLanes, tile.strip, 0)};
}

template <class C, bool kIsGated>
__device__ void compute_tiles(const Product& p, const Ring<C>& ring, int warpgroup) {
  Place<C> place;
#pragma unroll 1
  while (true) {
    wait_for(ring.full(place.stage), place.parity);
    const ExpertTile tile = begun_tile(ring, place.stage);
    if (tile.expert == kNoExpert) return;
    compute_narrowest<C, kIsGated, 8, 16, 32, 48, 64, 72, 80, 88, 96, 104, 112, 120, 128, 136, 144, 152, 160>(
        p, ring, place, tile, warpgroup);
  }
}

}  // namespace aurora::cuda::wgmma
