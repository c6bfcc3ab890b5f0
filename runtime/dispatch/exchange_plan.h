// From counts to rounds: all ranks hold the same count matrix after the counts exchange and compute from it,
// each for itself, the same rounds of the dispatch and of the combine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "runtime/dispatch/fabric_model.h"
#include "scheduler/order_policy.h"
#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"

namespace aurora {

/// Rows and (token, expert) pairs from one rank to one other, or to itself.
struct RowCounts {
  std::int32_t rows = 0;
  std::int32_t pairs = 0;
};
static_assert(sizeof(RowCounts) == 8);

/// All ranks' counts: at(source, destination), the diagonal included.
class CountMatrix {
 public:
  explicit CountMatrix(int num_ranks = 0)
      : num_ranks_(num_ranks),
        counts_(static_cast<std::size_t>(num_ranks) * static_cast<std::size_t>(num_ranks)) {}

  int num_ranks() const { return num_ranks_; }
  /// Row `source`, [num_ranks].
  std::span<RowCounts> row(int source) {
    return {counts_.data() + static_cast<std::size_t>(source) * static_cast<std::size_t>(num_ranks_),
            static_cast<std::size_t>(num_ranks_)};
  }
  const RowCounts& at(int source, int destination) const {
    return counts_[static_cast<std::size_t>(source) * static_cast<std::size_t>(num_ranks_) +
                   static_cast<std::size_t>(destination)];
  }

 private:
  int num_ranks_;
  std::vector<RowCounts> counts_;
};

/// How exchanges are ordered, and on what kind of network.
struct ExchangePolicy {
  OrderPolicy order = OrderPolicy::kAurora;
  OrderOptions options;
  std::shared_ptr<const FabricModel> fabric = {};  // for kAuto; the same numbers on every rank
};

/// One exchange, planned.
struct PlannedExchange {
  TrafficMatrix traffic;  // bytes
  TransmissionOrder order;
  double bound_seconds = 0;  // makespan bound on the policy's ports
  // With OrderPolicy::kAuto:
  std::optional<std::size_t> candidate = {};  // that was chosen, among order_candidates()
  double predicted_seconds = 0;
};

/// Bytes of the dispatch: rows(source, destination) * row_bytes.
TrafficMatrix dispatch_traffic(const CountMatrix& counts, std::size_t row_bytes);
/// Bytes of the combine, the other way round: per row or per pair.
TrafficMatrix combine_traffic(const CountMatrix& counts, std::size_t return_row_bytes, bool per_pair);

PlannedExchange plan_exchange(TrafficMatrix traffic, const ExchangePolicy& policy);

/// A port order as rounds in which every rank sends to one peer at most and receives from one at most: each
/// transfer, in the order of the list, goes to the first round after those of all earlier transfers of its
/// sender's sends and of its receiver's receives. This is the list schedule with all transfers equally long,
/// so it keeps every side's order; its barriers cost what the lengths of transfers that share a round differ.
/// O(number of transfers).
TransmissionOrder one_to_one_rounds(const TransmissionOrder& ports);

}  // namespace aurora
