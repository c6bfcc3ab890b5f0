// One layer of each of the models that share the GPUs, to be placed together: what placement policies work
// on.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "scheduler/cluster.h"
#include "scheduler/expert_load.h"
#include "scheduler/layer_time.h"
#include "scheduler/plan.h"

namespace aurora {

struct LayerProblem {
  const ClusterSpec* cluster = nullptr;
  std::vector<const ModelTraffic*> models;
  std::vector<LayerDemand> demands;     // [model]
  std::vector<std::vector<int>> slots;  // [model][gpu] experts that fit

  int num_gpus() const { return cluster->num_gpus(); }
  std::size_t num_models() const { return models.size(); }
  /// The problem of one of the models by itself, with the same slots.
  LayerProblem only(std::size_t model) const {
    return {cluster, {models[model]}, {demands[model]}, {slots[model]}};
  }
};

/// The problem with all experts equally popular; which go together in a token stays as sampled. What plans
/// are hedged with (placement_search.h).
LayerProblem with_even_popularity(LayerProblem problem);

/// gpu_of[model][expert]: every expert on one GPU.
using Assignment = std::vector<std::vector<int>>;

LayerPlacement placement_of(const std::vector<int>& gpu_of_expert);

/// Layer time of a placement of all models, computed from scratch (layer_time.h).
double layer_time_us(const LayerProblem& problem, const std::vector<LayerPlacement>& placements);
double layer_time_us(const LayerProblem& problem, const Assignment& assignment);

/// One problem per layer: layers with the same index of all models that have one. Points at `traffic` and
/// `cluster`. Checks everything that placement.h promises to check.
std::vector<LayerProblem> layer_problems(std::span<const ModelTraffic> traffic, const ClusterSpec& cluster);

/// Places all layers by `place(problem, layer)`, which returns a placement of each of the problem's models.
/// The plan is valid.
using PlaceLayer = std::function<std::vector<LayerPlacement>(const LayerProblem& problem, std::size_t layer)>;
DeploymentPlan plan_by_layers(std::span<const ModelTraffic> traffic, const ClusterSpec& cluster,
                              const PlaceLayer& place);

}  // namespace aurora
