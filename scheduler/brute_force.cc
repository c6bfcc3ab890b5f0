#include "scheduler/brute_force.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "scheduler/baseline_placements.h"
#include "scheduler/branch_and_bound.h"
#include "scheduler/placement_problem.h"
#include "scheduler/placement_search.h"
#include "scheduler/placement_state.h"

namespace aurora {

Assignment best_assignment_by_force(const LayerProblem& problem) {
  // Every expert starts on GPU 0; leaves of the search tree within the slots are evaluated.
  Assignment start;
  std::vector<ExpertRef> experts;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    start.emplace_back(problem.demands[model].expert_pairs.size(), 0);
    for (int expert = 0; expert < problem.demands[model].num_experts; ++expert)
      experts.push_back({model, expert});
  }
  PlacementState state(problem, start, std::numeric_limits<std::size_t>::max());
  double best_time = std::numeric_limits<double>::infinity();
  Assignment best;
  const auto fits = [&] {
    for (std::size_t model = 0; model < problem.num_models(); ++model) {
      for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
        if (state.num_on(model, gpu) > problem.slots[model][gpu]) return false;
      }
    }
    return true;
  };
  const std::function<void(std::size_t)> place_from = [&](std::size_t next) {
    if (next == experts.size()) {
      const double time = state.layer_time_us();
      if (time >= best_time || !fits()) return;
      best_time = time;
      best = state.assignment();
      return;
    }
    for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
      state.move(experts[next], gpu);
      place_from(next + 1);
    }
    state.move(experts[next], 0);
  };
  place_from(0);
  return best;
}

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

namespace {

/// Nothing when the proof runs out of trials.
std::optional<Assignment> proven_optimum(const LayerProblem& problem, std::int64_t max_trials) {
  Assignment start;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    start.push_back(contiguous_assignment(problem.demands[model].num_experts, problem.slots[model]));
  }
  // From a good limit the proof is short; a little above it, so that there is something to find.
  const Assignment good = improve_assignment(problem, start, {});
  BranchAndBoundResult exact = branch_and_bound(
      problem, {.limit_us = layer_time_us(problem, good) * (1 + 1e-6), .max_trials = max_trials});
  if (!exact.is_proven) return std::nullopt;
  return exact.assignment;
}

}  // namespace

std::optional<DeploymentPlan> proven_deployment(std::span<const ModelTraffic> traffic,
                                                const ClusterSpec& cluster, std::int64_t max_trials) {
  const std::vector<LayerProblem> problems = layer_problems(traffic, cluster);
  std::vector<Assignment> optima;
  for (const LayerProblem& problem : problems) {
    const bool is_single = std::all_of(problem.slots.begin(), problem.slots.end(), [](const auto& slots) {
      return *std::max_element(slots.begin(), slots.end()) <= 1;
    });
    if (!is_single || !can_branch_and_bound(problem)) return std::nullopt;
    std::optional<Assignment> optimum = proven_optimum(problem, max_trials);
    if (!optimum) return std::nullopt;
    optima.push_back(std::move(*optimum));
  }
  DeploymentPlan plan = plan_by_layers(traffic, cluster, [&](const LayerProblem&, std::size_t layer) {
    std::vector<LayerPlacement> placements;
    for (const std::vector<int>& gpu_of_expert : optima[layer]) {
      placements.push_back(placement_of(gpu_of_expert));
    }
    return placements;
  });
  plan.placement_policy = "branch-and-bound";
  return plan;
}

}  // namespace aurora
