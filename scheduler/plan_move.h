// From one deployment plan to the next: which experts' weights travel between which GPUs, how long that keeps
// the ports busy, and in which pieces they travel while the models serve.
//
// A copy that the next plan wants and the current one does not have comes from a GPU that holds the expert;
// copies that are no longer wanted cost nothing. Shares that change move nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/cluster.h"
#include "scheduler/plan.h"
#include "scheduler/units.h"

namespace aurora {

/// The weights of one expert from one GPU to another.
struct ExpertTransfer {
  std::int32_t model_index = 0;  // in the traffic that the transfers were made for
  std::int32_t layer = 0;        // among MoE layers
  ExpertId expert;
  GpuId source;
  GpuId destination;
  Bytes bytes = 0;
  bool operator==(const ExpertTransfer&) const = default;
};

/// All transfers from `current` to `next`, by layer, model, expert and destination. Models and the sizes of
/// their experts are those of `traffic`, which both plans place. Of several holders the one sends that would
/// be done earliest with all that it sends, the lowest on a tie.
std::vector<ExpertTransfer> transfers_between(const DeploymentPlan& current, const DeploymentPlan& next,
                                              std::span<const ModelTraffic> traffic,
                                              const ClusterSpec& cluster);

/// Time that the transfers take on the busiest side of a port, with nothing else on the wire.
double move_time_us(std::span<const ExpertTransfer> transfers, const ClusterSpec& cluster);

/// Bytes that the busiest GPU sends or receives.
Bytes most_bytes(std::span<const ExpertTransfer> transfers);

/// A move in steps: in each, a GPU sends at most a budget of bytes and receives at most as many. The same on
/// every rank.
class PacedMove {
 public:
  /// A piece of a transfer.
  struct Part {
    std::size_t transfer_index = 0;
    Bytes offset = 0;
    Bytes bytes = 0;
    bool operator==(const Part&) const = default;
  };

  PacedMove() = default;
  /// Throws std::invalid_argument when the budget is not positive.
  PacedMove(std::vector<ExpertTransfer> transfers, int num_gpus, Bytes bytes_per_step);

  const std::vector<ExpertTransfer>& transfers() const { return transfers_; }
  /// What travels in the next step, by transfer. Transfers are served in their order as far as both of their
  /// ends have budget left, so a step without parts is the end.
  std::vector<Part> next_step();
  bool is_done() const { return first_open_ == transfers_.size(); }

 private:
  std::vector<ExpertTransfer> transfers_;
  int num_gpus_ = 0;
  Bytes bytes_per_step_ = 0;
  std::vector<Bytes> moved_;    // [transfer]
  std::size_t first_open_ = 0;  // transfers before it are complete
};

}  // namespace aurora
