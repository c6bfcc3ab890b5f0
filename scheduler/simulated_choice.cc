#include "scheduler/simulated_choice.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include "scheduler/placement_state.h"
#include "scheduler/timeline.h"

namespace aurora {
namespace {

/// Two experts that change places, or one that moves.
struct Change {
  ExpertRef expert;
  std::optional<ExpertRef> other;
  int to = 0;
  double score_us = 0;

  PlacementState::Trial attempt(PlacementState& state, double limit_us) const {
    return other ? state.try_swap(expert, *other, limit_us) : state.try_move(expert, to, limit_us);
  }
  void make(PlacementState& state) const {
    if (other) {
      state.swap(expert, *other);
    } else {
      state.move(expert, to);
    }
  }
  void undo(PlacementState& state, const Assignment& before) const {
    if (other) {
      state.swap(expert, *other);
    } else {
      state.move(expert, before[expert.model][expert.expert]);
    }
  }
};

double simulated_us(const LayerProblem& problem, const Assignment& assignment) {
  std::vector<std::vector<LayerWork>> work;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    work.push_back({layer_work(problem.demands[model], placement_of(assignment[model]),
                               *problem.models[model], *problem.cluster)});
  }
  return simulate_layers(work, *problem.cluster, Execution::kOverlapped).makespan_us;
}

/// Changes within the limit of the closed form, by their score.
std::vector<Change> changes_within(const LayerProblem& problem, PlacementState& state, double limit_us) {
  std::vector<Change> changes;
  const auto consider = [&](Change change) {
    const PlacementState::Trial trial = change.attempt(state, limit_us);
    change.score_us = trial.score_us;
    if (trial.layer_time_us < limit_us) changes.push_back(change);
  };
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    const int num_experts = problem.demands[model].num_experts;
    for (int expert = 0; expert < num_experts; ++expert) {
      const ExpertRef here{model, expert};
      for (int other = expert + 1; other < num_experts; ++other) {
        if (state.gpu_of(here) != state.gpu_of({model, other})) consider({here, ExpertRef{model, other}});
      }
      for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
        if (gpu == state.gpu_of(here) || state.num_on(model, gpu) >= problem.slots[model][gpu]) continue;
        consider({here, std::nullopt, gpu});
      }
    }
  }
  std::stable_sort(changes.begin(), changes.end(),
                   [](const Change& a, const Change& b) { return a.score_us < b.score_us; });
  return changes;
}

/// Whether the change is one, has room, and stays within the limit, now that others have been made.
bool is_possible(const LayerProblem& problem, PlacementState& state, const Change& change, double limit_us) {
  const int gpu = state.gpu_of(change.expert);
  if (change.other) {
    if (state.gpu_of(*change.other) == gpu) return false;
  } else if (gpu == change.to ||
             state.num_on(change.expert.model, change.to) >= problem.slots[change.expert.model][change.to]) {
    return false;
  }
  return change.attempt(state, 0).layer_time_us < limit_us;
}

}  // namespace

Assignment choose_by_simulation(const LayerProblem& problem, const Assignment& start,
                                const SimulatedChoiceArgs& args) {
  PlacementState state(problem, start);
  const double limit_us = state.layer_time_us() * (1 + args.tolerance);
  double best_us = simulated_us(problem, start);
  Assignment best = start;
  int num_simulations = 1;
  // Passes over all changes: one that is kept does not send the pass back to those that have failed.
  for (bool has_improved = true; has_improved;) {
    has_improved = false;
    for (const Change& change : changes_within(problem, state, limit_us)) {
      if (!is_possible(problem, state, change, limit_us)) continue;
      if (num_simulations >= args.max_simulations) return best;
      change.make(state);
      const double time_us = simulated_us(problem, state.assignment());
      ++num_simulations;
      if (time_us < best_us * (1 - 1e-9)) {
        best_us = time_us;
        best = state.assignment();
        has_improved = true;
      } else {
        change.undo(state, best);
      }
    }
  }
  return best;
}

}  // namespace aurora
