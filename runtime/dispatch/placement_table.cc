#include "runtime/dispatch/placement_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

#include "scheduler/replica_shares.h"

namespace aurora {
namespace {

using Indices = std::vector<std::int32_t>;

/// Sum of shares, as ReplicaTable::bounds has it.
std::int32_t bound_of(double share) {
  constexpr double kUnits = 0x1p31;
  return static_cast<std::int32_t>(std::min(std::round(share * kUnits), kUnits - 1));
}

/// The table's columns on the host.
struct Columns {
  Indices offsets{0}, ranks, bounds, slots, local_index;
};

Columns columns_of(const LayerPlacement& placement, RankOf self, Indices& slot_offsets) {
  Columns columns;
  slot_offsets.assign(static_cast<std::size_t>(self.num_ranks) + 1, 0);
  for (const auto& replicas : placement.experts) {
    const std::vector<double> shares = shares_from(replicas, GpuId{self.rank}, self.num_ranks);
    double share = 0;
    for (std::size_t index = 0; index < replicas.size(); ++index) {
      const ExpertReplica& replica = replicas[index];
      const std::int32_t rank = replica.gpu.value;
      check(rank >= 0 && rank < self.num_ranks, "expert " + std::to_string(columns.offsets.size() - 1) +
                                                    " is placed on rank " + std::to_string(rank) + " of " +
                                                    std::to_string(self.num_ranks));
      share += shares[index];
      columns.ranks.push_back(rank);
      columns.bounds.push_back(bound_of(share));
      ++slot_offsets[static_cast<std::size_t>(rank) + 1];
    }
    check(!replicas.empty(), "every expert has a replica");
    columns.offsets.push_back(static_cast<std::int32_t>(columns.ranks.size()));
  }
  std::partial_sum(slot_offsets.begin(), slot_offsets.end(), slot_offsets.begin());

  Indices next_slot(slot_offsets.begin(), slot_offsets.end() - 1);
  columns.local_index.assign(placement.experts.size(), -1);
  for (std::size_t expert = 0; expert < placement.experts.size(); ++expert) {
    for (const ExpertReplica& replica : placement.experts[expert]) {
      const std::int32_t slot = next_slot[replica.gpu.value]++;
      columns.slots.push_back(slot);
      if (replica.gpu.value == self.rank) columns.local_index[expert] = slot - slot_offsets[self.rank];
    }
  }
  return columns;
}

}  // namespace

PlacementTable::PlacementTable(const LayerPlacement& placement, RankOf self, Backend& backend,
                               Stream& stream) {
  const Columns columns = columns_of(placement, self, slot_offsets_);
  const std::size_t num_values =
      columns.offsets.size() + 3 * columns.ranks.size() + columns.local_index.size();
  const std::size_t size_bytes = num_values * sizeof(std::int32_t);
  host_ = backend.allocate(size_bytes, MemorySpace::kHost);
  device_ = backend.allocate(size_bytes, MemorySpace::kDevice);
  std::size_t at = 0;
  const auto place = [&](const Indices& values) {
    std::memcpy(host_.data() + at, values.data(), values.size() * sizeof(std::int32_t));
    const Tensor view(device_.data() + at, DType::kInt32, {static_cast<std::int64_t>(values.size())});
    at += view.size_bytes();
    return view;
  };
  replicas_.offsets = place(columns.offsets);
  replicas_.ranks = place(columns.ranks);
  replicas_.bounds = place(columns.bounds);
  replicas_.slots = place(columns.slots);
  local_index_ = place(columns.local_index);
  backend.copy(stream, device_.data(), host_.data(), size_bytes);
}

}  // namespace aurora
