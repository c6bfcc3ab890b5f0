// What the two halves of expert_ffn_wgmma.cu share: the sizes of a tile and the block's shared memory, which
// the fetching warpgroup fills and the others empty.
#pragma once

#include "kernels/cuda/expert_products.h"
#include "kernels/cuda/expert_tiles.cuh"
#include "kernels/cuda/hopper.cuh"

namespace aurora::cuda::wgmma {

using Element = __nv_bfloat16;

inline constexpr int kSlice = 64;  // of the inner dimension: 128 bytes
inline constexpr int kPanel = 64;  // features: rows of a warpgroup product
inline constexpr int kRowBytes = kSlice * 2;
inline constexpr int kPanelBytes = kPanel * kRowBytes;
inline constexpr int kTokenBox = 32;  // rows of the copy engine's box of tokens
inline constexpr int kChunkBytes = 16;
inline constexpr int kChunks = kRowBytes / kChunkBytes;   // of a row's slice
inline constexpr int kGatherRows = kWarpgroup / kChunks;  // that one pass of the fetching threads copies

template <int kClusterBlocks, int kMultipliers, int kTokenColumns, int kStageCount>
struct Config {
  static constexpr int kBlocks = kClusterBlocks;    // of a cluster
  static constexpr int kWarpgroups = kMultipliers;  // that multiply
  static constexpr int kTokens = kTokenColumns;     // of a block's share of a tile
  static constexpr int kStages = kStageCount;
  /// Where tiles are so small, an expert has one of each strip as a rule, and the activations better stay.
  static constexpr bool kReadsWeightsOnce = kBlocks == 1 && kTokens <= 64;
  static constexpr int kThreads = (kWarpgroups + 1) * kWarpgroup;
  static constexpr int kPanels = 2 * kWarpgroups;
  static constexpr int kOwnPanels = kPanels / kBlocks;  // that a block asks for
  static constexpr int kWeightBytes = kPanels * kPanelBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kRowBytes;
  static constexpr int kOutputTokens = kTokens < 64 ? kTokens : 64;  // that leave at once
  static constexpr int kOutputBytes = kOutputTokens * kRowBytes;     // of one warpgroup
  static constexpr int kBarrierOffset = kStages * kStageBytes + kWarpgroups * kOutputBytes;
  static constexpr int kTilesOffset = kBarrierOffset + 2 * kStages * 8;
  static constexpr int kClaimsOffset = kTilesOffset + kStages * static_cast<int>(sizeof(ExpertTile));
  /// Claims that are on their way to the cluster's other blocks: see TileClaims.
  static constexpr int kSlots = 8;
  static_assert(kBlocks == 1 || kSlots > kStages);
  static constexpr int kTableOffset = kClaimsOffset + kSlots * (8 + 4) + 2 * 4;
  static_assert(kTokens % kTokenBox == 0 && kPanels % kBlocks == 0);
};

/// As the kernel reads it.
struct alignas(128) Product {
  TensorMap activations;  // kDown: the rows, side by side
  ExpertTiles tiles;
  const ExpertMaps* experts = nullptr;
  const Element* input = nullptr;  // kGateUp: rows by index
  const std::int32_t* row_indices = nullptr;
  std::int64_t num_input_rows = 0;
  std::int64_t input_stride = 0;
  std::uint32_t* num_claimed = nullptr;  // tiles; 0 before the kernel and after
  std::int32_t in_width = 0;
  std::int32_t out_width = 0;
  Element* output = nullptr;
  FaultSink faults;
};

/// A place in the ring, and how often the ring was gone round.
template <class C>
struct Place {
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ void advance() {
    if (++stage < C::kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

/// The block's shared memory.
template <class C>
struct Ring {
  SharedAddress base;
  /// Of a tile's first slice: the tile, found by the warpgroup that fetches. No expert: there are no more.
  ExpertTile* tiles;

  __device__ SharedAddress weights(int stage, int panel) const {
    return base + stage * C::kStageBytes + panel * kPanelBytes;
  }
  __device__ SharedAddress tokens(int stage) const { return base + stage * C::kStageBytes + C::kWeightBytes; }
  __device__ SharedAddress output(int warpgroup) const {
    return base + C::kStages * C::kStageBytes + warpgroup * C::kOutputBytes;
  }
  /// Complete when the stage has been filled, and when it may be filled again, in all blocks of the cluster.
  __device__ SharedAddress full(int stage) const { return base + C::kBarrierOffset + stage * 8; }
  __device__ SharedAddress empty(int stage) const {
    return base + C::kBarrierOffset + (C::kStages + stage) * 8;
  }
  /// Complete when the cluster's first block has written `claim` of the slot.
  __device__ SharedAddress claimed(int slot) const { return base + C::kClaimsOffset + slot * 8; }
  __device__ SharedAddress claim(int slot) const {
    return base + C::kClaimsOffset + C::kSlots * 8 + slot * 4;
  }
  /// Two places for what one thread of the fetching warpgroup tells the others.
  __device__ SharedAddress told(int turn) const { return claim(C::kSlots) + turn * 4; }
};

template <class C, bool kIsGated>
__device__ void init_ring(const Ring<C>& ring) {
  if (threadIdx.x != 0) return;
  for (int stage = 0; stage < C::kStages; ++stage) {
    // The thread that asks the copy engine, and those that gather; one thread of each warp that multiplies.
    init_barrier(ring.full(stage), kIsGated ? 1 + kWarpgroup : 1);
    init_barrier(ring.empty(stage), C::kBlocks * C::kWarpgroups * kWarpgroup / kWarp);
  }
  for (int slot = 0; slot < C::kSlots; ++slot) init_barrier(ring.claimed(slot), 1);
  publish_barriers();
}

/// This block's share of a tile's rows; the other blocks of the cluster have the rest.
template <class C>
__device__ ExpertTile own_share(ExpertTile tile) {
  if constexpr (C::kBlocks > 1) {
    constexpr int kStep = 8;  // columns of the narrowest product
    const int share = (tile.num_rows + C::kBlocks * kStep - 1) / (C::kBlocks * kStep) * kStep;
    const int begin = min(block_in_cluster() * share, tile.num_rows);
    tile.first_row += begin;
    tile.num_rows = min(share, tile.num_rows - begin);
  }
  return tile;
}

inline constexpr std::int32_t kNoExpert = -1;

/// Slices before the end of a tile at which its cluster asks for the next: they take longer than the answer.
inline constexpr int kClaimSlices = 4;
/// Where the slice begins at which to ask.
__device__ inline int claim_depth(std::int32_t in_width) {
  return max((in_width - 1) / kSlice - kClaimSlices + 1, 0) * kSlice;
}

}  // namespace aurora::cuda::wgmma
