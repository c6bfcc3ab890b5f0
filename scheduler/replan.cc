#include "scheduler/replan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

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

/// Layers that a change touches, those that gain most for the time of their move first.
std::vector<std::size_t> layers_by_worth(const Replan& whole, const ReplanArgs& args) {
  const std::vector<double> before = evaluate_plan(*args.current, args.traffic, *args.cluster).layer_time_us;
  const std::vector<double> after = evaluate_plan(whole.plan, args.traffic, *args.cluster).layer_time_us;
  std::vector<std::vector<ExpertTransfer>> transfers(before.size());
  for (const ExpertTransfer& transfer : whole.transfers) transfers[transfer.layer].push_back(transfer);
  DeploymentPlan current = *args.current;
  DeploymentPlan next = whole.plan;
  std::vector<std::pair<double, std::size_t>> worth;
  for (std::size_t layer = 0; layer < before.size(); ++layer) {
    if (layer_of(current, args.traffic, layer) == layer_of(next, args.traffic, layer)) continue;
    const double move_us = move_time_us(transfers[layer], *args.cluster);
    // Shares alone cost nothing.
    worth.emplace_back(move_us > 0 ? (before[layer] - after[layer]) / move_us : HUGE_VAL, layer);
  }
  std::ranges::sort(worth, [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  });
  std::vector<std::size_t> layers;
  for (const auto& [unused, layer] : worth) layers.push_back(layer);
  return layers;
}

/// Fills in what moving from `current` to `replan.plan` takes and gives.
void weigh(Replan& replan, const DeploymentPlan& current, const ReplanArgs& args) {
  replan.transfers = transfers_between(current, replan.plan, args.traffic, *args.cluster);
  replan.move_us = move_time_us(replan.transfers, *args.cluster);
  replan.before_us = step_time_us(current, args.traffic, *args.cluster);
  replan.after_us = step_time_us(replan.plan, args.traffic, *args.cluster);
}

}  // namespace

std::vector<Replan> in_stages(const Replan& whole, const ReplanArgs& args, Bytes stage_bytes) {
  std::vector<Replan> stages;
  DeploymentPlan current = *args.current;
  DeploymentPlan last = whole.plan;
  Replan stage;
  stage.plan = current;
  const auto finish_stage = [&] {
    stage.plan.epoch = current.epoch + 1;
    stage.plan.placement_policy = whole.plan.placement_policy;
    weigh(stage, current, args);
    current = stage.plan;
    stages.push_back(std::exchange(stage, {}));
    stage.plan = current;
  };
  for (const std::size_t layer : layers_by_worth(whole, args)) {
    DeploymentPlan longer = stage.plan;
    const int num_changed = set_layer(longer, args.traffic, layer, layer_of(last, args.traffic, layer));
    const bool is_full =
        most_bytes(transfers_between(current, longer, args.traffic, *args.cluster)) > stage_bytes;
    if (is_full && stage.num_layers_changed > 0) finish_stage();
    set_layer(stage.plan, args.traffic, layer, layer_of(last, args.traffic, layer));
    stage.num_layers_changed += num_changed;
  }
  if (stage.num_layers_changed > 0) finish_stage();
  return stages;
}

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
  weigh(result, *args.current, args);
  return result;
}

}  // namespace aurora
