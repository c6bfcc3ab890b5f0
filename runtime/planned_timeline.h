// The planner's event simulation of a mean step, to be held against what was measured: the same plan, the
// tokens that were routed and the times per token that were measured, on the cluster as described.
//
// Serial and two-batch schedules are simulated model by model, one after the other; colocated and exclusive
// ones all together. With a fabric, an exchange takes as much longer than its bytes at the ports as order
// auto predicts. What the simulation does not know: counts, the head, fixed costs of steps, and without a
// fabric of exchanges.
#pragma once

#include <span>
#include <vector>

#include "runtime/dispatch/fabric_model.h"
#include "runtime/executor/trace.h"
#include "runtime/model_options.h"
#include "scheduler/cluster.h"
#include "scheduler/plan.h"

namespace aurora {

struct PlannedTimelineArgs {
  const DeploymentPlan* plan = nullptr;
  std::span<const ModelTraffic> traffic;    // [model], of the whole run
  std::span<const std::int64_t> num_steps;  // [model]; a model without steps is left out
  ClusterSpec cluster;
  Schedule schedule = Schedule::kColocated;
  const FabricModel* fabric = nullptr;  // of all ranks of the cluster; null: not known
};

/// Of one step of each model, from time 0; layers are MoE layers, gates include attention. What takes no time
/// is left out.
std::vector<PlannedSpan> planned_timeline(const PlannedTimelineArgs& args);

}  // namespace aurora
