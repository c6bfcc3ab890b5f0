#include "scheduler/plan_evaluation.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "scheduler/expert_load.h"
#include "scheduler/layer_time.h"

namespace aurora {
namespace {

const ModelPlacement& matching_placement(const DeploymentPlan& plan, const ModelTraffic& model) {
  const ModelPlacement* placement = plan.find(model.model);
  if (placement == nullptr)
    throw std::invalid_argument("the plan does not place model \"" + model.model + "\"");
  bool is_matching = placement->layers.size() == model.layers.size();
  for (const LayerPlacement& layer : placement->layers) {
    is_matching = is_matching && layer.num_experts() == model.num_experts;
  }
  if (!is_matching) {
    throw std::invalid_argument(
        "the plan places model \"" + model.model + "\" with other layers or experts than " +
        std::to_string(model.layers.size()) + " of " + std::to_string(model.num_experts));
  }
  return *placement;
}

void check_gpus(const DeploymentPlan& plan, const ClusterSpec& cluster) {
  if (plan.num_gpus == cluster.num_gpus()) return;
  throw std::invalid_argument("the plan is for " + std::to_string(plan.num_gpus) + " GPUs, the cluster has " +
                              std::to_string(cluster.num_gpus()));
}

}  // namespace

PlanEvaluation evaluate_plan(const DeploymentPlan& plan, std::span<const ModelTraffic> traffic,
                             const ClusterSpec& cluster) {
  check_gpus(plan, cluster);
  std::size_t num_layers = 0;
  for (const ModelTraffic& model : traffic) {
    matching_placement(plan, model);
    num_layers = std::max(num_layers, model.layers.size());
  }
  PlanEvaluation evaluation;
  double computing_us = 0;
  double total_us = 0;
  for (std::size_t layer = 0; layer < num_layers; ++layer) {
    std::vector<LayerLoad> loads;
    for (const ModelTraffic& model : traffic) {
      if (layer >= model.layers.size()) continue;
      const LayerDemand demand(model.layers[layer], model, cluster.num_gpus());
      loads.push_back(layer_load(demand, matching_placement(plan, model).layers[layer], model, cluster));
    }
    const double time_us = layer_time_us(loads);
    evaluation.layer_time_us.push_back(time_us);
    total_us += time_us;
    computing_us += utilisation(loads, time_us) * time_us;
  }
  if (num_layers > 0) evaluation.mean_layer_time_us = total_us / static_cast<double>(num_layers);
  if (total_us > 0) evaluation.utilisation = computing_us / total_us;
  return evaluation;
}

Timeline simulate_plan(const DeploymentPlan& plan, std::span<const ModelTraffic> traffic,
                       const ClusterSpec& cluster, Execution execution) {
  check_gpus(plan, cluster);
  std::vector<std::vector<LayerWork>> work;
  for (const ModelTraffic& model : traffic) {
    const ModelPlacement& placement = matching_placement(plan, model);
    std::vector<LayerWork>& layers = work.emplace_back();
    for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
      const LayerDemand demand(model.layers[layer], model, cluster.num_gpus());
      layers.push_back(layer_work(demand, placement.layers[layer], model, cluster));
    }
  }
  return simulate_layers(work, cluster, execution);
}

}  // namespace aurora
