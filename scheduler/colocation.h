// The paper's colocation of models on the same GPUs (Li et al., arXiv 2410.17043, section 6): experts of
// different models are paired so that the largest sum of what a pair sends or receives is small, then pairs
// are given GPUs so that the largest time of a pair is small. Two bottleneck matchings one after the other;
// for GPUs that differ the joint problem is NP-hard and this is the paper's heuristic (1.07x the optimum on
// its average). A baseline here, and a start for the search.
//
// Beyond the paper: a model with more experts than GPUs is first packed into as many bundles as there are
// GPUs (hottest with coldest), one with fewer is filled up with empty bundles, and further models are matched
// to the pairs made so far.
#pragma once

#include <vector>

#include "scheduler/placement_problem.h"

namespace aurora {

/// What one side of a pair puts on the wire, in bytes.
struct WireLoad {
  double send = 0;
  double receive = 0;
};

/// partner[i] of b for each i of a, minimising max over pairs of max(a.send + b.send, a.receive + b.receive)
/// (theorem 6.1). When every element sends what it receives, ascending loads of a meet descending loads of b,
/// which is optimal; otherwise a bottleneck matching. Sizes must agree.
std::vector<int> pair_experts(const std::vector<WireLoad>& a, const std::vector<WireLoad>& b);

/// Throws std::invalid_argument when no GPU assignment of the pairs fits the slots.
Assignment paper_colocation(const LayerProblem& problem);

}  // namespace aurora
