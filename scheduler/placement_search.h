// Local search for placements on the real objective, the layer time of layer_time.h.
//
// Layer times are maxima over GPUs: a move helps only if it touches a GPU at which one of the maxima is
// attained. The search moves single experts and swaps two, takes every improvement of layer time plus a small
// smooth term (which tells plateaus apart), and restarts from the best with a few random swaps until its
// evaluations are spent. Deterministic for a given seed: effort is counted in evaluations, not in time.
#pragma once

#include <cstdint>
#include <span>

#include "scheduler/placement_problem.h"

namespace aurora {

struct SearchEffort {
  std::int64_t max_evaluations = 20000;
  std::uint64_t seed = 1;
};

/// Layer time plus the smooth term: a small part of the root mean square over GPUs of what keeps them busy.
double search_score(std::span<const LayerLoad> loads, double layer_time);

/// The best assignment found, never worse than `start`. Keeps to the slots of `problem`.
Assignment improve_assignment(const LayerProblem& problem, Assignment start, const SearchEffort& effort);

/// The optimum over all assignments within the slots, by trying them all.
Assignment best_assignment_by_force(const LayerProblem& problem);

/// The optimum of one model alone with at most one expert on a GPU: the terms of a GPU depend on its expert
/// only, so the layer time is a sum of two bottlenecks (bottleneck_matching.h). Needs no more experts than
/// GPUs with slots.
std::vector<int> best_single_assignment(const LayerProblem& problem);

}  // namespace aurora
