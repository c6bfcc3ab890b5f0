#include "scheduler/replan.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "scheduler/layer_replan.h"
#include "scheduler/placement_problem.h"
#include "scheduler/plan_evaluation.h"

namespace aurora {
namespace {

ModelPlacement& placement_in(DeploymentPlan& plan, const ModelTraffic& model) {
  return *std::ranges::find(plan.models, model.model, &ModelPlacement::model);
}

/// The layer with this index of all models that have one, in their order.
std::vector<LayerPlacement> layer_of(DeploymentPlan& plan, std::span<const ModelTraffic> traffic,
                                     std::size_t layer) {
  std::vector<LayerPlacement> placements;
  for (const ModelTraffic& model : traffic) {
    if (layer < model.layers.size()) placements.push_back(placement_in(plan, model).layers[layer]);
  }
  return placements;
}

/// Writes `placements` to `plan`; how many differ from what was there.
int set_layer(DeploymentPlan& plan, std::span<const ModelTraffic> traffic, std::size_t layer,
              std::vector<LayerPlacement> placements) {
  int num_changed = 0;
  auto next = placements.begin();
  for (const ModelTraffic& model : traffic) {
    if (layer >= model.layers.size()) continue;
    LayerPlacement& current = placement_in(plan, model).layers[layer];
    if (current != *next) ++num_changed;
    current = std::move(*next++);
  }
  return num_changed;
}

}  // namespace

double step_time_us(const DeploymentPlan& plan, std::span<const ModelTraffic> traffic,
                    const ClusterSpec& cluster) {
  const std::vector<double> layers = evaluate_plan(plan, traffic, cluster).layer_time_us;
  return std::accumulate(layers.begin(), layers.end(), 0.0);
}

double Replan::payback_steps() const {
  return gain_us() > 0 ? move_us / gain_us() : std::numeric_limits<double>::infinity();
}

bool Replan::pays(double horizon_steps) const {
  return num_layers_changed > 0 && gain_us() > kLeastGain * before_us && payback_steps() <= horizon_steps;
}

Replan replan(const ReplanArgs& args) {
  Replan result;
  result.before_us = step_time_us(*args.current, args.traffic, *args.cluster);
  DeploymentPlan scratch =
      plan_deployment(args.traffic, *args.cluster, PlacementPolicy::kAuto, args.placement);
  result.plan = *args.current;
  const std::vector<LayerProblem> problems = layer_problems(args.traffic, *args.cluster);
  for (std::size_t layer = 0; layer < problems.size(); ++layer) {
    LayerReplan search({.problem = &problems[layer],
                        .current = layer_of(result.plan, args.traffic, layer),
                        .horizon_steps = args.horizon_steps,
                        .placement = args.placement});
    search.consider_renumbered(layer_of(scratch, args.traffic, layer));
    search.consider_search();
    result.num_layers_changed += set_layer(result.plan, args.traffic, layer, search.take_best());
  }
  result.plan.epoch = args.current->epoch + 1;
  result.plan.placement_policy = "replan";
  validate(result.plan);
  result.after_us = step_time_us(result.plan, args.traffic, *args.cluster);
  result.transfers = transfers_between(*args.current, result.plan, args.traffic, *args.cluster);
  result.move_us = move_time_us(result.transfers, *args.cluster);
  return result;
}

}  // namespace aurora
