// What a plan is predicted to cost under a given traffic, which need not be the traffic that it was made
// from: the layer times of layer_time.h, layers of several models taken together as placement.h pairs them.
//
// The regret of a plan is its time over that of a plan made with hindsight, from the traffic it is evaluated
// on.
#pragma once

#include <span>
#include <vector>

#include "scheduler/cluster.h"
#include "scheduler/plan.h"
#include "scheduler/timeline.h"

namespace aurora {

struct PlanEvaluation {
  std::vector<double> layer_time_us;  // [layer]
  double mean_layer_time_us = 0;
  double utilisation = 0;  // over all layers
};

/// Throws std::invalid_argument when the plan does not place the models of `traffic` on this cluster, layer
/// by layer and expert by expert.
PlanEvaluation evaluate_plan(const DeploymentPlan& plan, std::span<const ModelTraffic> traffic,
                             const ClusterSpec& cluster);

/// The same layers in the event simulation of timeline.h, from the first layer's gate to the last
/// aggregation. Throws as evaluate_plan does.
Timeline simulate_plan(const DeploymentPlan& plan, std::span<const ModelTraffic> traffic,
                       const ClusterSpec& cluster, Execution execution);

}  // namespace aurora
