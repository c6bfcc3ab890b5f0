// The warpgroup of expert_ffn_wgmma.cu that fetches: it finds the block's tiles and fills the ring with
// slices of their weights and tokens.
#pragma once

#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/wgmma_claims.cuh"

namespace aurora::cuda::wgmma {

/// Asks for the weights' slice of a tile, and says how many bytes the stage waits for besides: `token_bytes`.
template <class C, bool kIsGated>
__device__ void fetch_weights(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int stage,
                              int depth, std::uint32_t token_bytes) {
  const ExpertMaps& maps = p.experts[tile.expert];
  arrive_and_expect(ring.full(stage), C::kWeightBytes + token_bytes);
  const int first_panel = C::kBlocks == 1 ? 0 : block_in_cluster() * C::kOwnPanels;
#pragma unroll
  for (int i = 0; i < C::kOwnPanels; ++i) {
    const int panel = first_panel + i;
    const bool is_up = kIsGated && panel >= C::kWarpgroups;
    const TensorMap* map = !kIsGated ? &maps.down : (is_up ? &maps.up : &maps.gate);
    constexpr int kStripPanels = kIsGated ? C::kWarpgroups : C::kPanels;
    const int feature = (tile.strip * kStripPanels + panel - (is_up ? C::kWarpgroups : 0)) * kPanel;
    if constexpr (C::kReadsWeightsOnce) {
      copy_box_once(ring.weights(stage, panel), map, depth, feature, ring.full(stage));
    } else if constexpr (C::kBlocks == 1) {
      copy_box(ring.weights(stage, panel), map, depth, feature, ring.full(stage));
    } else {
      constexpr std::uint16_t kAll = (1U << C::kBlocks) - 1;
      copy_box_to(kAll, ring.weights(stage, panel), map, depth, feature, ring.full(stage));
    }
  }
}

/// The rows that this thread gathers of a tile: its chunk of every kGatherRows-th row.
template <class C>
struct GatheredRows {
  const Element* rows[C::kTokens / kGatherRows];  // null where there is none

  __device__ GatheredRows(const Product& p, const ExpertTile& tile) {
#pragma unroll
    for (int i = 0; i < C::kTokens / kGatherRows; ++i) {
      rows[i] = nullptr;
      const int row = static_cast<int>(threadIdx.x) / kChunks + i * kGatherRows;
      if (row >= tile.num_rows) continue;
      const std::int32_t position = tile.first_row + row;
      const std::int32_t index = p.row_indices[position];
      if (!index_fits(p.faults, FaultSite::kExpertRowIndices, position, index, p.num_input_rows)) continue;
      rows[i] = p.input + index * p.input_stride;
    }
  }

  /// Starts the copies of a slice, with the swizzle that the copy engine would have used.
  __device__ void fetch(SharedAddress tokens, int depth, int in_width) const {
    const int first_row = static_cast<int>(threadIdx.x) / kChunks;
    const int chunk = static_cast<int>(threadIdx.x) % kChunks;
    const int column = depth + chunk * (kChunkBytes / 2);
    const std::uint32_t num_bytes = column < in_width ? kChunkBytes : 0;  // a slice's end: zeros
    const SharedAddress place =
        tokens + first_row * kRowBytes + ((chunk ^ (first_row % kChunks)) * kChunkBytes);
#pragma unroll
    for (int i = 0; i < C::kTokens / kGatherRows; ++i) {
      if (rows[i] == nullptr) continue;
      copy_16(place + i * kGatherRows * kRowBytes, num_bytes == 0 ? rows[i] : rows[i] + column, num_bytes);
    }
  }
};

/// After the last tile; the stage is empty.
template <class C>
__device__ void announce_end(const Ring<C>& ring, int stage) {
  ring.tiles[stage].expert = kNoExpert;
  arrive(ring.full(stage));
}

/// kGateUp, all threads of the warpgroup.
template <class C>
__device__ void fetch_gathered(const Product& p, const Ring<C>& ring, const ExpertTable& table,
                               TileClaims<C>& claims) {
  Place<C> place;
  int turn = 0;
  // One thread claims. Where it writes, all have read what was there before, since they have met once more.
  const auto next = [&](std::int32_t num_tiles) {
    constexpr int kFetchersMeet = 1 + C::kWarpgroups;  // the barriers before are the multiplying warpgroups'
    if (threadIdx.x == 0) store_shared(ring.told(turn), claims.next(num_tiles));
    synchronize(kFetchersMeet, kWarpgroup);
    const std::int32_t number = load_shared(ring.told(turn));
    turn ^= 1;
    return number;
  };
  for_each_tile<C>(p, table, next, [&](const ExpertTile& tile) {
    const GatheredRows<C> rows(p, tile);
    for (int depth = 0; depth < p.in_width; depth += kSlice) {
      wait_for(ring.empty(place.stage), place.parity ^ 1);
      if (threadIdx.x == 0 && depth == 0) ring.tiles[place.stage] = tile;
      if (threadIdx.x == 0 && depth == claim_depth(p.in_width)) claims.look_ahead();
      if (threadIdx.x == 0) fetch_weights<C, true>(p, ring, tile, place.stage, depth, 0);
      rows.fetch(ring.tokens(place.stage), depth, p.in_width);
      arrive_after_copies(ring.full(place.stage));
      place.advance();
    }
  });
  wait_for(ring.empty(place.stage), place.parity ^ 1);
  if (threadIdx.x == 0) announce_end(ring, place.stage);
  arrive(ring.full(place.stage));
}

/// Rows of a tile as the copy engine brings them: a whole number of boxes.
__device__ inline int num_token_boxes(const ExpertTile& tile) {
  return (tile.num_rows + kTokenBox - 1) / kTokenBox;
}

template <class C>
__device__ void fetch_tokens(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int stage,
                             int depth) {
  for (int box = 0; box < num_token_boxes(tile); ++box) {
    copy_box(ring.tokens(stage) + box * kTokenBox * kRowBytes, &p.activations, depth,
             tile.first_row + box * kTokenBox, ring.full(stage));
  }
}

/// kDown, one thread. The kernel in front computes the tokens' rows; the weights of the first round of the
/// ring are asked for while it still does.
template <class C>
__device__ void fetch_boxes(const Product& p, const Ring<C>& ring, const ExpertTable& table,
                            TileClaims<C>& claims) {
  const auto fetch_weights_of = [&](const ExpertTile& tile, int stage, int depth) {
    fetch_weights<C, false>(p, ring, tile, stage, depth, num_token_boxes(tile) * kTokenBox * kRowBytes);
  };
  Place<C> place;
  bool has_waited = false;
  const auto next = [&](std::int32_t num_tiles) { return claims.next(num_tiles); };
  for_each_tile<C>(p, table, next, [&](const ExpertTile& tile) {
    int depth = 0;
    if (!has_waited) {
      const int num_early = min(C::kStages, (p.in_width + kSlice - 1) / kSlice);
      ring.tiles[0] = tile;
      for (int stage = 0; stage < num_early; ++stage) fetch_weights_of(tile, stage, stage * kSlice);
      wait_for_kernel_before();
      has_waited = true;
      for (; place.stage < num_early && place.parity == 0; place.advance(), depth += kSlice) {
        fetch_tokens(p, ring, tile, place.stage, depth);
      }
    }
    for (; depth < p.in_width; depth += kSlice) {
      wait_for(ring.empty(place.stage), place.parity ^ 1);
      if (depth == 0) ring.tiles[place.stage] = tile;
      if (depth == claim_depth(p.in_width)) claims.look_ahead();
      fetch_weights_of(tile, place.stage, depth);
      fetch_tokens(p, ring, tile, place.stage, depth);
      place.advance();
    }
  });
  if (!has_waited) wait_for_kernel_before();
  wait_for(ring.empty(place.stage), place.parity ^ 1);
  announce_end(ring, place.stage);
}

}  // namespace aurora::cuda::wgmma
