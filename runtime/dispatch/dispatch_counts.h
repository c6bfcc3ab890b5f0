// What every rank announces before a dispatch: its rows for each rank, then its pairs for each slot
// (placement_table.h). After the all-gather every rank knows all traffic, and each of its experts' load.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "runtime/dispatch/exchange_plan.h"
#include "runtime/dispatch/placement_table.h"
#include "runtime/dispatch/workspace.h"
#include "runtime/transport/transport.h"

namespace aurora {

class DispatchCounts {
 public:
  explicit DispatchCounts(Backend& backend) : space_(backend, MemorySpace::kHost) {}

  /// Makes room for the counts of all ranks under `table`, which must outlive their use.
  void reset(const PlacementTable& table);
  /// What `rank` announces, in host memory that the device can write: [num_ranks + num_slots].
  std::span<std::int32_t> of_rank(int rank) const;
  /// The all-gather: this rank's counts to all others, and theirs.
  std::vector<Message> messages(int rank, std::uint32_t tag) const;

  // Once all counts are there.
  CountMatrix matrix() const;

 private:
  const PlacementTable* table_ = nullptr;
  Workspace space_;
  std::int32_t* counts_ = nullptr;  // [num_ranks, num_ranks + num_slots]
};

}  // namespace aurora
