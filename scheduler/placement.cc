#include "scheduler/placement.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "scheduler/baseline_placements.h"
#include "scheduler/branch_and_bound.h"
#include "scheduler/colocation.h"
#include "scheduler/one_expert_per_gpu.h"
#include "scheduler/placement_search.h"
#include "scheduler/random.h"
#include "scheduler/replication.h"

namespace aurora {
namespace {

using Placements = std::vector<LayerPlacement>;  // [model]

/// Gives every model of the problem what `assign(model index)` returns.
template <class Assign>
Placements place_each(const LayerProblem& problem, const Assign& assign) {
  Placements placements;
  for (std::size_t model = 0; model < problem.num_models(); ++model)
    placements.push_back(placement_of(assign(model)));
  return placements;
}

Placements place_contiguous(const LayerProblem& problem, const PlacementOptions&) {
  return place_each(problem, [&](std::size_t model) {
    return contiguous_assignment(problem.demands[model].num_experts, problem.slots[model]);
  });
}

Placements place_round_robin(const LayerProblem& problem, const PlacementOptions&) {
  return place_each(problem, [&](std::size_t model) {
    return round_robin_assignment(problem.demands[model].num_experts, problem.slots[model]);
  });
}

/// `seed` is already that of the layer.
Placements place_random(const LayerProblem& problem, const PlacementOptions& options) {
  return place_each(problem, [&](std::size_t model) {
    return random_assignment(problem.demands[model].num_experts, problem.slots[model],
                             Random(options.seed + model).next());
  });
}

Assignment paper_assignment(const LayerProblem& problem) {
  if (problem.num_models() == 1) return {sorted_assignment(problem, 0)};
  return paper_colocation(problem);
}

Placements to_placements(const Assignment& assignment) {
  Placements placements;
  for (const std::vector<int>& gpu_of_expert : assignment) placements.push_back(placement_of(gpu_of_expert));
  return placements;
}

Placements place_paper(const LayerProblem& problem, const PlacementOptions&) {
  return to_placements(paper_assignment(problem));
}

Placements place_lina(const LayerProblem& problem, const PlacementOptions&) {
  return to_placements(lina_assignment(problem));
}

Placements place_eplb(const LayerProblem& problem, const PlacementOptions& options) {
  Placements placements;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    placements.push_back(
        eplb_placement(problem, model, problem.demands[model].num_experts + options.num_replicas));
  }
  return placements;
}

/// Starts that are worth searching from: every model by itself as the simple policies do it, and the paper's
/// answer.
std::vector<Assignment> search_starts(const LayerProblem& problem, const PlacementOptions& options) {
  std::vector<Assignment> starts(2);
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    starts[0].push_back(contiguous_assignment(problem.demands[model].num_experts, problem.slots[model]));
    starts[1].push_back(sorted_assignment(problem, model));
  }
  starts.push_back(listed_assignment(problem));
  if (problem.num_models() == 1 && can_place_one_per_gpu(problem))
    starts.push_back({best_single_assignment(problem)});
  if (problem.num_models() == 1) return starts;
  try {
    starts.push_back(paper_colocation(problem));
  } catch (const std::invalid_argument&) {
    // The paper's colocation does not know memory limits; the other starts do.
  }
  Assignment alone;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    const SearchEffort effort{.max_evaluations = options.search_evaluations / 4, .seed = options.seed};
    alone.push_back(improve_assignment(problem.only(model), {starts[1][model]}, effort).front());
  }
  starts.push_back(std::move(alone));
  return starts;
}

/// The better of two ways to use replicas: added to a good placement without any, and copies made by load
/// alone, packed as EPLB does it; both rearranged by search.
Placements place_replicas(const LayerProblem& problem, Placements placements,
                          const PlacementOptions& options) {
  // A placement with replicas is evaluated from scratch, which costs an order of magnitude more.
  const SearchEffort effort{.max_evaluations = options.search_evaluations / 10, .seed = options.seed};
  placements = replicate_experts(problem, std::move(placements), options.num_replicas, effort);
  Placements by_load;
  try {
    by_load = place_eplb(problem, options);
  } catch (const std::invalid_argument&) {
    return placements;  // equal numbers of copies do not fit the memory
  }
  by_load = replicate_experts(problem, std::move(by_load), 0, effort);
  return layer_time_us(problem, by_load) < layer_time_us(problem, placements) ? by_load : placements;
}

Placements place_auto(const LayerProblem& problem, const PlacementOptions& options) {
  std::vector<Assignment> starts = search_starts(problem, options);
  std::size_t best = 0;
  double best_time = layer_time_us(problem, starts[0]);
  for (std::size_t start = 1; start < starts.size(); ++start) {
    const double time = layer_time_us(problem, starts[start]);
    if (time < best_time * (1 - 1e-9)) {
      best = start;
      best_time = time;
    }
  }
  const SearchEffort effort{.max_evaluations = options.search_evaluations, .seed = options.seed};
  Placements placements = to_placements(improve_assignment(problem, std::move(starts[best]), effort));
  if (options.num_replicas == 0) return placements;
  return place_replicas(problem, std::move(placements), options);
}

Placements place_rec(const LayerProblem& problem, const PlacementOptions& options) {
  Placements placements = place_random(problem, options);
  placements.front() = place_auto(problem.only(0), options).front();
  return placements;
}

struct PolicyRow {
  PlacementPolicy policy;
  std::string_view name;
  Placements (*place)(const LayerProblem& problem, const PlacementOptions& options);
};

constexpr std::array kPolicies{
    PolicyRow{PlacementPolicy::kAuto, "auto", place_auto},
    PolicyRow{PlacementPolicy::kContiguous, "contiguous", place_contiguous},
    PolicyRow{PlacementPolicy::kRoundRobin, "round-robin", place_round_robin},
    PolicyRow{PlacementPolicy::kRandom, "random", place_random},
    PolicyRow{PlacementPolicy::kPaper, "paper", place_paper},
    PolicyRow{PlacementPolicy::kLina, "lina", place_lina},
    PolicyRow{PlacementPolicy::kEplb, "eplb", place_eplb},
    PolicyRow{PlacementPolicy::kRec, "rec", place_rec},
};

constexpr auto kPolicyList = [] {
  std::array<PlacementPolicy, kPolicies.size()> list{};
  for (std::size_t index = 0; index < list.size(); ++index) list[index] = kPolicies[index].policy;
  return list;
}();

const PolicyRow& row_of(PlacementPolicy policy) {
  const auto row = std::find_if(kPolicies.begin(), kPolicies.end(),
                                [&](const PolicyRow& candidate) { return candidate.policy == policy; });
  if (row == kPolicies.end()) {
    throw std::invalid_argument("placement policy " + std::to_string(static_cast<int>(policy)) +
                                " is not in the table");
  }
  return *row;
}

}  // namespace

std::string_view placement_policy_name(PlacementPolicy policy) { return row_of(policy).name; }

std::optional<PlacementPolicy> parse_placement_policy(std::string_view name) {
  if (name == "rga") return PlacementPolicy::kRandom;
  for (const PolicyRow& row : kPolicies) {
    if (row.name == name) return row.policy;
  }
  return std::nullopt;
}

std::span<const PlacementPolicy> all_placement_policies() { return kPolicyList; }

DeploymentPlan plan_deployment(std::span<const ModelTraffic> traffic, const ClusterSpec& cluster,
                               PlacementPolicy policy, const PlacementOptions& options) {
  if (options.num_replicas < 0 || options.search_evaluations < 0) {
    throw std::invalid_argument("placement: " + std::to_string(options.num_replicas) + " replicas and " +
                                std::to_string(options.search_evaluations) +
                                " evaluations; neither may be negative");
  }
  DeploymentPlan plan = plan_by_layers(traffic, cluster, [&](const LayerProblem& problem, std::size_t layer) {
    PlacementOptions layer_options = options;
    layer_options.seed = Random(options.seed ^ (layer << 32)).next();
    return row_of(policy).place(problem, layer_options);
  });
  plan.placement_policy = placement_policy_name(policy);
  return plan;
}

ModelPlacement plan_placement(PlacementPolicy policy, const ModelTraffic& traffic, const ClusterSpec& cluster,
                              const PlacementOptions& options) {
  return std::move(plan_deployment({&traffic, 1}, cluster, policy, options).models.front());
}

}  // namespace aurora
