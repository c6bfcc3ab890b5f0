// Re-planning: whether another plan than the one that serves is worth its move, and which.
//
// A plan made from scratch for new traffic is as good as any and shares almost nothing with the current one:
// every expert would move. What counts is time on both sides,
//     horizon * (layer times of a step)   against   the time that the weights take on the ports,
// and since layers do not touch each other, it is weighed layer by layer. Each layer has two candidates: the
// one planned from scratch, with GPUs that are alike renumbered so that they keep what they have, and the
// best that a local search finds from where the experts are. From both, what does not earn its way is taken
// back, expert by expert, the least useful first. The layer goes to the better of them, or stays.
//
// Weights move over the same ports as tokens, a step at a time (plan_move.h). While weighing, a copy costs
// what it takes on its receiver's port divided by the number of GPUs, as if the move kept all ports equally
// busy, which that of many layers nearly does; the last word has the time of the whole move at its busiest
// port. Predicted times are those of layer_time.h on the mean step of the traffic given. No input or output,
// no clock: what is decided depends on the arguments alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/cluster.h"
#include "scheduler/placement.h"
#include "scheduler/plan.h"
#include "scheduler/plan_move.h"

namespace aurora {

struct ReplanArgs {
  const DeploymentPlan* current = nullptr;
  std::span<const ModelTraffic> traffic;  // of a mean step
  const ClusterSpec* cluster = nullptr;
  /// Steps within which a move must pay.
  double horizon_steps = 1000;
  /// Effort, and the budget of copies beyond one of each expert, per model and layer.
  PlacementOptions placement;
};

/// Part of a step's layer times that a plan must save: the traffic is a sample, and below this a gain may be
/// one of the sample only. Planned again on traffic that had not changed, DeepSeek-V2-Lite's routing promised
/// 2.4 % for a third of its experts.
inline constexpr double kLeastGain = 0.03;

struct Replan {
  DeploymentPlan plan;                    // the next epoch; the current one's placements where nothing pays
  std::vector<ExpertTransfer> transfers;  // from the current plan
  double before_us = 0;                   // layers of a step under the current plan, predicted
  double after_us = 0;                    // under this one
  double move_us = 0;                     // at the busiest port
  int num_layers_changed = 0;             // of all models

  double gain_us() const { return before_us - after_us; }
  /// Steps after which the move has paid; infinite without a gain.
  double payback_steps() const;
  /// Whether to move.
  bool pays(double horizon_steps) const;
};

/// Throws std::invalid_argument as plan_deployment and evaluate_plan do.
Replan replan(const ReplanArgs& args);

/// The same change in several, one after the other: layers that gain most for their bytes come first, and no
/// GPU sends or receives more than `stage_bytes` in a stage of several layers. What serves in between is a
/// plan like any other, so a long move pays from its first stage on and needs memory for one of them. Epochs
/// count up; before and after are each stage's own.
std::vector<Replan> in_stages(const Replan& whole, const ReplanArgs& args, Bytes stage_bytes);

/// Layer times of a step under `plan`, summed.
double step_time_us(const DeploymentPlan& plan, std::span<const ModelTraffic> traffic,
                    const ClusterSpec& cluster);

}  // namespace aurora
