#include "scheduler/layer_replan.h"

#include <algorithm>
#include <utility>

#include "scheduler/copy_state.h"
#include "scheduler/layer_time.h"
#include "scheduler/placement_search.h"
#include "scheduler/replication.h"

namespace aurora {
namespace {

using Replicas = std::vector<ExpertReplica>;

bool is_on(const Replicas& replicas, GpuId gpu) {
  return std::ranges::find(replicas, gpu, &ExpertReplica::gpu) != replicas.end();
}

/// The copy that serves most tokens, the lowest GPU on a tie.
int main_gpu(const Replicas& replicas) {
  const auto best = std::ranges::max_element(replicas, {}, &ExpertReplica::share);
  return best->gpu.value;
}

Assignment main_copies(const std::vector<LayerPlacement>& placements) {
  Assignment assignment;
  for (const LayerPlacement& placement : placements) {
    std::vector<int>& gpu_of = assignment.emplace_back();
    for (const Replicas& replicas : placement.experts) gpu_of.push_back(main_gpu(replicas));
  }
  return assignment;
}

std::vector<LayerPlacement> placements_of(const Assignment& assignment) {
  std::vector<LayerPlacement> placements;
  for (const std::vector<int>& gpu_of : assignment) placements.push_back(placement_of(gpu_of));
  return placements;
}

/// kept[a * n + b]: bytes that need not move when GPU a of `wanted` is GPU b of `current`.
std::vector<double> kept_bytes(const LayerProblem& problem, const std::vector<LayerPlacement>& current,
                               const std::vector<LayerPlacement>& wanted) {
  const auto n = static_cast<std::size_t>(problem.num_gpus());
  std::vector<double> kept(n * n, 0.0);
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    for (std::size_t expert = 0; expert < wanted[model].experts.size(); ++expert) {
      for (const ExpertReplica& there : wanted[model].experts[expert]) {
        for (const ExpertReplica& here : current[model].experts[expert]) {
          kept[static_cast<std::size_t>(there.gpu.value) * n + static_cast<std::size_t>(here.gpu.value)] +=
              problem.models[model]->expert_bytes;
        }
      }
    }
  }
  return kept;
}

/// number[a]: the number that GPU a of `wanted` gets. The pair that keeps most comes first.
std::vector<int> new_numbers(const LayerProblem& problem, const std::vector<double>& kept) {
  const int n = problem.num_gpus();
  std::vector<int> number(static_cast<std::size_t>(n), -1);
  std::vector<bool> is_taken(static_cast<std::size_t>(n), false);
  for (int round = 0; round < n; ++round) {
    int best_old = -1;
    int best_new = -1;
    double most = -1;
    for (int old = 0; old < n; ++old) {
      for (int candidate = 0; candidate < n && number[old] < 0; ++candidate) {
        const double bytes = kept[static_cast<std::size_t>(old) * static_cast<std::size_t>(n) +
                                  static_cast<std::size_t>(candidate)];
        const bool is_alike = problem.cluster->gpus[old] == problem.cluster->gpus[candidate];
        if (is_taken[candidate] || !is_alike || bytes <= most) continue;
        best_old = old;
        best_new = candidate;
        most = bytes;
      }
    }
    number[best_old] = best_new;
    is_taken[best_new] = true;
  }
  return number;
}

/// Beyond one of each expert.
int num_copies(const LayerPlacement& placement) {
  int count = 0;
  for (const Replicas& replicas : placement.experts) count += static_cast<int>(replicas.size()) - 1;
  return count;
}

void sort_by_gpu(Replicas& replicas) { std::ranges::sort(replicas, {}, &ExpertReplica::gpu); }

struct ExpertChange {
  std::size_t model;
  int expert;
};

std::vector<ExpertChange> changes_between(const std::vector<LayerPlacement>& before,
                                          const std::vector<LayerPlacement>& after) {
  std::vector<ExpertChange> changes;
  for (std::size_t model = 0; model < before.size(); ++model) {
    for (int expert = 0; expert < before[model].num_experts(); ++expert) {
      if (before[model].experts[expert] != after[model].experts[expert]) changes.push_back({model, expert});
    }
  }
  return changes;
}

}  // namespace

LayerReplan::LayerReplan(LayerReplanArgs args) : args_(std::move(args)), best_(args_.current) {
  best_us_ = cost_us(best_);
}

void LayerReplan::consider_renumbered(std::vector<LayerPlacement> placements) {
  const std::vector<int> number =
      new_numbers(*args_.problem, kept_bytes(*args_.problem, args_.current, placements));
  for (LayerPlacement& placement : placements) {
    for (Replicas& replicas : placement.experts) {
      for (ExpertReplica& replica : replicas) replica.gpu = GpuId{number[replica.gpu.value]};
      sort_by_gpu(replicas);
    }
  }
  consider(std::move(placements));
}

void LayerReplan::consider_search() {
  const LayerProblem& problem = *args_.problem;
  const PlacementOptions& options = args_.placement;
  std::vector<LayerPlacement> moved = placements_of(
      improve_assignment(problem, main_copies(args_.current),
                         {.max_evaluations = options.search_evaluations, .seed = options.seed}));
  if (options.num_replicas == 0) return consider(std::move(moved));
  // With shares an evaluation costs an order of magnitude more than without.
  ReplicationArgs copies{.num_replicas = options.num_replicas,
                         .max_evaluations = options.search_evaluations / 10};
  consider(replicate_experts(problem, std::move(moved), copies));
  copies.num_replicas = num_copies_left();
  consider(replicate_experts(problem, args_.current, copies));
}

/// Copies that no model has used up; copies that are dropped later do not count.
int LayerReplan::num_copies_left() const {
  int left = args_.placement.num_replicas;
  for (const LayerPlacement& placement : args_.current) {
    left = std::min(left, args_.placement.num_replicas - num_copies(placement));
  }
  return std::max(0, left);
}

void LayerReplan::consider(std::vector<LayerPlacement> placements) {
  if (!fits(placements)) return;
  placements = without_idle_changes(std::move(placements));
  const double cost = cost_us(placements);
  if (cost >= best_us_) return;
  best_us_ = cost;
  best_ = std::move(placements);
}

/// Within the slots, and within the budget of copies or what the current placement has of them.
bool LayerReplan::fits(const std::vector<LayerPlacement>& placements) const {
  for (std::size_t model = 0; model < placements.size(); ++model) {
    const int most_copies = std::max(args_.placement.num_replicas, num_copies(args_.current[model]));
    if (num_copies(placements[model]) > most_copies) return false;
    std::vector<int> num_on(static_cast<std::size_t>(args_.problem->num_gpus()), 0);
    for (const Replicas& replicas : placements[model].experts) {
      for (const ExpertReplica& replica : replicas) ++num_on[replica.gpu.value];
    }
    for (std::size_t gpu = 0; gpu < num_on.size(); ++gpu) {
      if (num_on[gpu] > args_.problem->slots[model][gpu]) return false;
    }
  }
  return true;
}

double LayerReplan::move_price_us(std::size_t model, const Replicas& before, const Replicas& after) const {
  const LayerProblem& problem = *args_.problem;
  double price = 0;
  for (const ExpertReplica& replica : after) {
    if (is_on(before, replica.gpu)) continue;
    const int to = replica.gpu.value;
    price += problem.models[model]->expert_bytes /
             bandwidth_towards(*problem.cluster, to, before.front().gpu.value) / problem.num_gpus();
  }
  return price;
}

double LayerReplan::cost_us(const std::vector<LayerPlacement>& placements) const {
  double cost = args_.horizon_steps * layer_time_us(*args_.problem, placements);
  for (const ExpertChange& change : changes_between(args_.current, placements)) {
    cost += move_price_us(change.model, args_.current[change.model].experts[change.expert],
                          placements[change.model].experts[change.expert]);
  }
  return cost;
}

/// Takes changes back, each time the one that is worth least, while that lowers the cost.
std::vector<LayerPlacement> LayerReplan::without_idle_changes(std::vector<LayerPlacement> placements) const {
  CopyState state(*args_.problem, placements);
  std::vector<ExpertChange> changes = changes_between(args_.current, placements);
  while (!changes.empty()) {
    const double time_us = layer_time_us(state.loads());
    std::size_t best = changes.size();
    double best_saving_us = 0;
    for (std::size_t index = 0; index < changes.size(); ++index) {
      const auto [model, expert] = changes[index];
      const Replicas& before = args_.current[model].experts[expert];
      Replicas& after = placements[model].experts[expert];
      state.set_copies(model, expert, before);
      const double lost_us = args_.horizon_steps * (layer_time_us(state.loads()) - time_us);
      state.set_copies(model, expert, after);
      const double saving_us = move_price_us(model, before, after) - lost_us;
      if (saving_us < best_saving_us || (best < changes.size() && saving_us == best_saving_us)) continue;
      std::vector<LayerPlacement> reverted = placements;
      reverted[model].experts[expert] = before;
      if (!fits(reverted)) continue;
      best = index;
      best_saving_us = saving_us;
    }
    if (best == changes.size()) return placements;
    const auto [model, expert] = changes[best];
    placements[model].experts[expert] = args_.current[model].experts[expert];
    state.set_copies(model, expert, placements[model].experts[expert]);
    changes.erase(changes.begin() + static_cast<std::ptrdiff_t>(best));
  }
  return placements;
}

}  // namespace aurora
