// The best placement by trying all of them: the yardstick of searches on small problems.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "scheduler/cluster.h"
#include "scheduler/placement_problem.h"
#include "scheduler/plan.h"

namespace aurora {

/// The optimum over all assignments of one layer within the slots. GPUs to the power of experts steps.
Assignment best_assignment_by_force(const LayerProblem& problem);

/// Placements without replicas that minimise the layer time, layer by layer, within the memory. Nothing when
/// a layer has more than `max_placements` (GPUs to the power of experts). Throws std::invalid_argument as
/// plan_deployment does.
std::optional<DeploymentPlan> brute_force_deployment(std::span<const ModelTraffic> traffic,
                                                     const ClusterSpec& cluster,
                                                     std::int64_t max_placements = 300000);

/// The optimum of several models where memory leaves one expert of each on a GPU, by branch and bound
/// (branch_and_bound.h): as good as trying all. Nothing when another layer is among them or the proof takes
/// more than `max_trials` for one. Throws std::invalid_argument as plan_deployment does.
std::optional<DeploymentPlan> proven_deployment(std::span<const ModelTraffic> traffic,
                                                const ClusterSpec& cluster,
                                                std::int64_t max_trials = 20'000'000);

}  // namespace aurora
