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
#include "scheduler/simulated_choice.h"

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

/// Combinations that branch and bound may try before the search goes on without a proof: well below a
/// millisecond.
constexpr std::int64_t kQuickProofTrials = 12000;
/// GPUs up to which a layer gets the full effort of the search. On more, an evaluation takes longer in
/// proportion, and there are fewer.
constexpr int kGpusOfFullEffort = 8;

/// Closed forms that differ by less count as a tie.
constexpr double kTieTolerance = 0.004;
/// Flows in all simulations of a layer together: 24 simulations of two models on 8 GPUs, about 0.1 ms each.
constexpr std::int64_t kSimulatedFlows = 24 * 256;

Assignment best_assignment(const LayerProblem& problem, const PlacementOptions& options);

/// Starts that are worth searching from: every model by itself as the simple policies do it, and the paper's
/// answer.
std::vector<Assignment> search_starts(const LayerProblem& problem, const PlacementOptions& options) {
  std::vector<Assignment> starts(2);
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    starts[0].push_back(contiguous_assignment(problem.demands[model].num_experts, problem.slots[model]));
    starts[1].push_back(sorted_assignment(problem, model));
  }
  starts.push_back(listed_assignment(problem));
  if (problem.num_models() == 1) {
    if (can_place_one_per_gpu(problem)) starts.push_back({best_single_assignment(problem)});
    return starts;
  }
  try {
    starts.push_back(paper_colocation(problem));
  } catch (const std::invalid_argument&) {
    // The paper's colocation does not know memory limits; the other starts do.
  }
  PlacementOptions less_effort = options;
  less_effort.search_evaluations /= 4;
  Assignment alone;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    alone.push_back(best_assignment(problem.only(model), less_effort).front());
  }
  starts.push_back(std::move(alone));
  return starts;
}

Assignment best_start(const LayerProblem& problem, const PlacementOptions& options) {
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
  return std::move(starts[best]);
}

/// Whether no GPU has room for two experts of a model: then what is best with one expert of each model on a
/// GPU is best of all.
bool has_single_slots(const LayerProblem& problem) {
  return std::all_of(problem.slots.begin(), problem.slots.end(), [](const std::vector<int>& slots) {
    return *std::max_element(slots.begin(), slots.end()) <= 1;
  });
}

SearchEffort effort_of(const LayerProblem& problem, const PlacementOptions& options) {
  const int num_gpus = std::max(kGpusOfFullEffort, problem.num_gpus());
  return {.max_evaluations = options.search_evaluations * kGpusOfFullEffort / num_gpus, .seed = options.seed};
}

/// Exact for one model with single slots; for several, with branch and bound where that is quick. Else the
/// best that the search finds.
Assignment best_assignment(const LayerProblem& problem, const PlacementOptions& options) {
  const bool is_single = has_single_slots(problem);
  if (is_single && problem.num_models() == 1 && can_place_one_per_gpu(problem))
    return {best_single_assignment(problem)};
  SearchEffort effort = effort_of(problem, options);
  Assignment found = best_start(problem, options);
  if (is_single && can_branch_and_bound(problem)) {
    const SearchEffort quick{.max_evaluations = effort.max_evaluations / 8, .seed = options.seed};
    found = improve_assignment(problem, std::move(found), quick);
    BranchAndBoundResult exact = branch_and_bound(
        problem, {.limit_us = layer_time_us(problem, found), .max_trials = kQuickProofTrials});
    if (exact.assignment) found = std::move(*exact.assignment);
    if (exact.is_proven) return found;
    effort.max_evaluations /= 16;  // a proof that ran out says that little can be left
  }
  return improve_assignment(problem, std::move(found), effort);
}

bool is_recorded(const LayerProblem& problem) {
  return std::all_of(problem.demands.begin(), problem.demands.end(),
                     [](const LayerDemand& demand) { return !demand.samples.is_empty(); });
}

/// The better of two ways to use replicas: added to a good placement without any, and copies made by load
/// alone, packed as EPLB does it; both rearranged by search.
Placements place_replicas(const LayerProblem& problem, Placements placements,
                          const PlacementOptions& options) {
  // With shares an evaluation costs an order of magnitude more than without.
  ReplicationArgs args{.num_replicas = options.num_replicas,
                       .max_evaluations = options.search_evaluations / 10,
                       .is_hedged = options.robustness_price > 0 && is_recorded(problem)};
  placements = replicate_experts(problem, std::move(placements), args);
  Placements by_load;
  try {
    by_load = place_eplb(problem, options);
  } catch (const std::invalid_argument&) {
    return placements;  // equal numbers of copies do not fit the memory
  }
  args.num_replicas = 0;
  by_load = replicate_experts(problem, std::move(by_load), args);
  return layer_time_us(problem, by_load) < layer_time_us(problem, placements) ? by_load : placements;
}

/// The best assignment; where tokens were recorded, hedged against other traffic.
Assignment safe_assignment(const LayerProblem& problem, const PlacementOptions& options) {
  Assignment best = best_assignment(problem, options);
  if (options.robustness_price == 0 || has_single_slots(problem) || !is_recorded(problem)) return best;
  SearchEffort effort = effort_of(problem, options);
  // Every evaluation looks at two problems; on many GPUs a plan should still take some ten milliseconds.
  effort.max_evaluations /= problem.num_gpus() > kGpusOfFullEffort ? 8 : 2;
  return hedge_assignment(problem, best, options.robustness_price, effort);
}

/// Where several models share the GPUs, the event simulation has the last word, as far as the closed form
/// ties and simulations are quick.
Assignment final_assignment(const LayerProblem& problem, const PlacementOptions& options) {
  Assignment assignment = safe_assignment(problem, options);
  if (problem.num_models() == 1) return assignment;
  // An exchange has up to GPUs squared flows, and every model has two.
  const std::int64_t num_flows =
      2 * static_cast<std::int64_t>(problem.num_models()) * problem.num_gpus() * problem.num_gpus();
  const auto max_simulations = static_cast<int>(kSimulatedFlows / num_flows);
  if (max_simulations < 2) return assignment;
  return choose_by_simulation(problem, assignment,
                              {.tolerance = kTieTolerance, .max_simulations = max_simulations});
}

Placements place_auto(const LayerProblem& problem, const PlacementOptions& options) {
  Placements placements = to_placements(final_assignment(problem, options));
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
    PolicyRow{PlacementPolicy::kRandom, "rga", place_random},
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
  if (name == "random") return PlacementPolicy::kRandom;
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
  if (!(options.robustness_price >= 0 && options.robustness_price <= 1)) {
    throw std::invalid_argument("placement: robustness_price is " + std::to_string(options.robustness_price) +
                                "; it is a part, from 0 to 1");
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
