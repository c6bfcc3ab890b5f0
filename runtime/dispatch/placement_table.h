// Where a plan meets the device: one layer's placement as tables that the operations read, built once per
// layer and plan.
//
// Replicas are numbered twice: by expert, as the plan lists them, and by *slot*, their position when all are
// ordered by rank and then by expert. Slots are how ranks count pairs: those of rank r are consecutive and in
// the order of its experts. Which replica serves a token differs from rank to rank, so that tokens stay where
// they are as far as the plan's shares allow (scheduler/replica_shares.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/ops.h"
#include "scheduler/plan.h"

namespace aurora {

/// One rank among all.
struct RankOf {
  int rank = 0;
  int num_ranks = 1;
};

class PlacementTable {
 public:
  /// Submits the upload to `stream`; the table can be used in work after it. Throws kInternal naming expert
  /// and rank when a replica lies outside the ranks.
  PlacementTable(const LayerPlacement& placement, RankOf self, Backend& backend, Stream& stream);

  int num_ranks() const { return static_cast<int>(slot_offsets_.size()) - 1; }
  int num_slots() const { return slot_offsets_.back(); }
  /// [num_ranks + 1], host: slots of rank r are [slot_offsets[r], slot_offsets[r+1]).
  std::span<const std::int32_t> slot_offsets() const { return slot_offsets_; }

  /// Device memory.
  const ReplicaTable& replicas() const { return replicas_; }
  /// [num_experts] int32, device: position of an expert among those of `self`, or -1.
  const Tensor& local_index() const { return local_index_; }

 private:
  std::vector<std::int32_t> slot_offsets_;
  ReplicaTable replicas_;
  Tensor local_index_;
  Buffer host_;  // what is uploaded; both hold replica offsets, ranks, bounds, slots and the local index
  Buffer device_;
};

}  // namespace aurora
