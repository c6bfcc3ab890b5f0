#include "scheduler/brute_force.h"

#include <cmath>

#include "scheduler/placement_problem.h"
#include "scheduler/placement_search.h"

namespace aurora {

std::optional<DeploymentPlan> brute_force_deployment(std::span<const ModelTraffic> traffic,
                                                     const ClusterSpec& cluster,
                                                     std::int64_t max_placements) {
  double num_experts = 0;
  for (const ModelTraffic& model : traffic) num_experts += model.num_experts;
  if (std::pow(cluster.num_gpus(), num_experts) > static_cast<double>(max_placements)) return std::nullopt;
  DeploymentPlan plan = plan_by_layers(traffic, cluster, [](const LayerProblem& problem, std::size_t) {
    std::vector<LayerPlacement> placements;
    for (const std::vector<int>& gpu_of_expert : best_assignment_by_force(problem)) {
      placements.push_back(placement_of(gpu_of_expert));
    }
    return placements;
  });
  plan.placement_policy = "brute-force";
  return plan;
}

}  // namespace aurora
