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

LayerProblem with_even_popularity(LayerProblem problem) {
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    LayerDemand& demand = problem.demands[model];
    for (int expert = 0; expert < demand.num_experts; ++expert) {
      demand.expert_pairs[expert] = 0;
      for (int source = 0; source < demand.num_gpus; ++source) {
        const double pairs = demand.tokens[source] * problem.models[model]->top_k / demand.num_experts;
        demand.pairs_by_expert[static_cast<std::size_t>(expert) * demand.num_gpus + source] = pairs;
        demand.expert_pairs[expert] += pairs;
      }
    }
  }
  return problem;
}

std::vector<LayerProblem> layer_problems(std::span<const ModelTraffic> traffic, const ClusterSpec& cluster) {
  validate(cluster);
  check_models(traffic);
  const ExpertSlots slots = expert_slots(traffic, cluster);
  std::vector<LayerProblem> problems;
  for (std::size_t model = 0; model < traffic.size(); ++model) {
    if (problems.size() < traffic[model].layers.size()) problems.resize(traffic[model].layers.size());
    for (std::size_t layer = 0; layer < traffic[model].layers.size(); ++layer) {
      LayerProblem& problem = problems[layer];
      problem.cluster = &cluster;
      problem.models.push_back(&traffic[model]);
      problem.demands.emplace_back(traffic[model].layers[layer], traffic[model], cluster.num_gpus());
      problem.slots.push_back(slots[model][layer]);
    }
  }
  return problems;
}

DeploymentPlan plan_by_layers(std::span<const ModelTraffic> traffic, const ClusterSpec& cluster,
                              const PlaceLayer& place) {
  const std::vector<LayerProblem> problems = layer_problems(traffic, cluster);
  DeploymentPlan plan;
  plan.num_gpus = cluster.num_gpus();
  for (const ModelTraffic& model : traffic) plan.models.push_back({model.model, {}});
  for (std::size_t layer = 0; layer < problems.size(); ++layer) {
    std::vector<LayerPlacement> placements = place(problems[layer], layer);
    auto placement = placements.begin();
    for (std::size_t model = 0; model < traffic.size(); ++model) {
      if (layer < traffic[model].layers.size()) plan.models[model].layers.push_back(std::move(*placement++));
    }
  }
  validate(plan);
  return plan;
}

}  // namespace aurora
