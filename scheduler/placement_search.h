// Local search for placements on the real objective, the layer time of layer_time.h.
//
// Layer times are maxima over GPUs: a move helps only if it touches a GPU at which one of the maxima is
// attained. The search moves single experts and swaps two, takes every improvement of layer time plus a small
// smooth term (search_score.h), and restarts from the best with a few random swaps until its
// evaluations are spent. Deterministic for a given seed: effort is counted in evaluations, not in time.
//
// What was recorded is a sample, and tomorrow's workload may be another. Of DeepSeek-V2-Lite's routing of two
// workloads, popularities of experts correlate by 0.1 on average, so that a plan fitted to the one gains
// nothing on the other; which experts go together in a token correlates by 0.5 to 0.7, and lasts. A hedged
// search therefore gives up a little of the recorded layer time, the price of robustness (Bertsimas and Sim,
// Operations Research 52(1), 2004), for the layer time of a second scenario: the same tokens with all experts
// equally popular. That evens out the number of experts on GPUs of a speed, which keeps sums of unknown loads
// close to each other, and keeps experts together that share tokens.
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

/// Hedges `start` against drift: lowers the layer time under even popularity, while that of `problem` grows
/// by at most the part `price` above that of `start`.
Assignment hedge_assignment(const LayerProblem& problem, const Assignment& start, double price,
                            const SearchEffort& effort);

}  // namespace aurora
