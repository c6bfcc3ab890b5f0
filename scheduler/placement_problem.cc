#include "scheduler/placement_problem.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "scheduler/expert_slots.h"

namespace aurora {
namespace {

void check_models(std::span<const ModelTraffic> traffic) {
  if (traffic.empty()) throw std::invalid_argument("placement: no model is given");
  for (std::size_t index = 0; index < traffic.size(); ++index) {
    validate(traffic[index]);
    for (std::size_t before = 0; before < index; ++before) {
      if (traffic[before].model == traffic[index].model) {
        throw std::invalid_argument("placement: two models are named \"" + traffic[index].model + "\"");
      }
    }
  }
}

}  // namespace

LayerPlacement placement_of(const std::vector<int>& gpu_of_expert) {
  LayerPlacement placement;
  for (const int gpu : gpu_of_expert) placement.experts.push_back({{GpuId{gpu}, 1.0}});
  return placement;
}

double layer_time_us(const LayerProblem& problem, const std::vector<LayerPlacement>& placements) {
  std::vector<LayerLoad> loads;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    loads.push_back(
        layer_load(problem.demands[model], placements[model], *problem.models[model], *problem.cluster));
  }
  return layer_time_us(loads);
}

double layer_time_us(const LayerProblem& problem, const Assignment& assignment) {
  std::vector<LayerPlacement> placements;
  for (const std::vector<int>& gpu_of_expert : assignment) placements.push_back(placement_of(gpu_of_expert));
  return layer_time_us(problem, placements);
}

DeploymentPlan plan_by_layers(std::span<const ModelTraffic> traffic, const ClusterSpec& cluster,
                              const PlaceLayer& place) {
  validate(cluster);
  check_models(traffic);
  const ExpertSlots slots = expert_slots(traffic, cluster);
  DeploymentPlan plan;
  plan.num_gpus = cluster.num_gpus();
  std::size_t num_layers = 0;
  for (const ModelTraffic& model : traffic) {
    plan.models.push_back({model.model, {}});
    num_layers = std::max(num_layers, model.layers.size());
  }
  for (std::size_t layer = 0; layer < num_layers; ++layer) {
    LayerProblem problem;
    problem.cluster = &cluster;
    std::vector<std::size_t> present;
    for (std::size_t model = 0; model < traffic.size(); ++model) {
      if (layer >= traffic[model].layers.size()) continue;
      present.push_back(model);
      problem.models.push_back(&traffic[model]);
      problem.demands.emplace_back(traffic[model].layers[layer], traffic[model], cluster.num_gpus());
      problem.slots.push_back(slots[model][layer]);
    }
    std::vector<LayerPlacement> placements = place(problem, layer);
    for (std::size_t index = 0; index < present.size(); ++index) {
      plan.models[present[index]].layers.push_back(std::move(placements[index]));
    }
  }
  validate(plan);
  return plan;
}

}  // namespace aurora
