// Who computes which tile of expert_ffn_wgmma.cu: clusters claim tiles one by one from a counter of the
// stream.
//
// Blocks take all of a multiprocessor's shared memory, so that one whose multiprocessor is taken by an
// exchange's kernel begins when another block has ended. With shares fixed beforehand the product would then
// take up to twice as long; as it is, a block that comes late finds its work done by the others.
#pragma once

#include "kernels/cuda/wgmma_ring.cuh"

namespace aurora::cuda::wgmma {

/// The numbers of a cluster's tiles, for thread 0 of each block; that of the cluster's first block asks the
/// counter and tells the others.
template <class C>
class TileClaims {
 public:
  /// Asks for the first tile; nothing is told before `next`.
  __device__ TileClaims(const Product& p, const Ring<C>& ring) : p_(p), ring_(ring) {
    if (threadIdx.x == 0) look_ahead();
  }

  /// Asks for the next tile, whose number is there when it is wanted. Not long before: a cluster that holds a
  /// tile which it cannot begin keeps it from others.
  __device__ void look_ahead() {
    if (is_claimer()) ahead_ = claim();
    has_ahead_ = true;
  }

  /// The next tile's number; once, in the end, one that is not below `num_tiles`. The cluster's blocks and
  /// their barriers must have met before.
  __device__ std::int32_t next(std::int32_t num_tiles) {
    if (!has_ahead_) look_ahead();
    has_ahead_ = false;
    const std::int32_t last_claim = num_tiles + static_cast<std::int32_t>(gridDim.x) / C::kBlocks - 1;
    if (is_claimer() && ahead_ == last_claim)
      *p_.num_claimed = 0;  // every cluster has had its number in the end
    if constexpr (C::kBlocks > 1) return share(ahead_);
    return ahead_;
  }

 private:
  __device__ static bool is_claimer() { return C::kBlocks == 1 || block_in_cluster() == 0; }
  __device__ std::int32_t claim() const { return static_cast<std::int32_t>(atomicAdd(p_.num_claimed, 1U)); }

  /// A slot is written again kSlots tiles later. By then its reader has gone on: the first block is at most
  /// kStages slices ahead of what the others' products have read.
  __device__ std::int32_t share(std::int32_t number) {
    const int slot = count_ % C::kSlots;
    const std::uint32_t parity = count_ / C::kSlots % 2;
    ++count_;
    if (is_claimer()) {
      for (int block = 1; block < C::kBlocks; ++block) {
        store_in(block, ring_.claim(slot), static_cast<std::uint32_t>(number), ring_.claimed(slot));
      }
      return number;
    }
    arrive_and_expect(ring_.claimed(slot), sizeof(number));
    wait_for(ring_.claimed(slot), parity);
    return load_shared(ring_.claim(slot));
  }

  const Product& p_;
  const Ring<C>& ring_;
  std::int32_t ahead_ = 0;
  bool has_ahead_ = false;
  std::uint32_t count_ = 0;
};

/// Calls `use` with this block's share of each tile of its cluster, as `next`, like TileClaims::next, gives
/// them.
template <class C, class Next, class Use>
__device__ void for_each_tile(const Product& p, const ExpertTable& table, const Next& next, const Use& use) {
  const std::int32_t num_tiles = table.first_tile[p.tiles.num_experts];
#pragma unroll 1
  while (true) {
    const std::int32_t number = next(num_tiles);
    if (number >= num_tiles) return;
    use(own_share<C>(tile_at(p.tiles, table, number)));
  }
}

}  // namespace aurora::cuda::wgmma
