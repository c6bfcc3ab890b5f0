// Exact colocation of few models on few GPUs: the expert-pair-GPU problem, a 3-dimensional matching
// (NP-hard), for placements with at most one expert of each model on a GPU.
//
// A node of the search tree has decided the experts of some GPUs. All that decides the layer time are maxima
// over GPUs (PhaseMaxima), each monotone, so that the maxima over the decided GPUs bound the time from below.
// The bound is raised by what must still come: every open GPU takes one of the combinations of experts left
// to it, every open expert one of the places left to it, and the least value among those is due in every
// maximum. A combination that would reach the best known time is struck out, which raises the bounds again,
// until nothing changes. The GPU with the fewest combinations left branches. With the optimum or nearly so as
// the start, most of the work is the proof. n = 8, two models: 8! * 8! placements, typically some hundred
// nodes.
#pragma once

#include <cstdint>
#include <optional>

#include "scheduler/placement_problem.h"

namespace aurora {

struct BranchAndBoundArgs {
  double limit_us = 0;          // only placements below this layer time are of interest
  std::int64_t max_trials = 0;  // effort: combinations tried on GPUs; 0: until it is proven
};

struct BranchAndBoundResult {
  std::optional<Assignment> assignment;  // the best below the limit; nothing: none was found
  double layer_time_us = 0;              // of it, or the limit
  bool is_proven = false;                // nothing better exists
  std::int64_t num_nodes = 0;
};

/// Whether branch_and_bound takes the problem: at most 64 GPUs, one expert of each model per GPU possible, no
/// links inside nodes, and tables of combinations within a few megabytes.
bool can_branch_and_bound(const LayerProblem& problem);

/// Throws std::invalid_argument for a problem that can_branch_and_bound refuses.
BranchAndBoundResult branch_and_bound(const LayerProblem& problem, const BranchAndBoundArgs& args);

}  // namespace aurora
