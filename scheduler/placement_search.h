// Local search for placements on the real objective, the layer time of layer_time.h.
//
// Layer times are maxima over GPUs: a move helps only if it touches a GPU at which one of the maxima is
// attained. The search moves single experts and swaps two, takes every improvement of layer time plus a small
// smooth term (search_score.h), and restarts from the best with a few random swaps until its
// evaluations are spent. Deterministic for a given seed: effort is counted in evaluations, not in time.
#pragma once

#include <cstdint>

#include "scheduler/placement_problem.h"

namespace aurora {

struct SearchEffort {
  std::int64_t max_evaluations = 20000;
  std::uint64_t seed = 1;
};

/// The best assignment found, never worse than `start`. Keeps to the slots of `problem`.
Assignment improve_assignment(const LayerProblem& problem, Assignment start, const SearchEffort& effort);

}  // namespace aurora
