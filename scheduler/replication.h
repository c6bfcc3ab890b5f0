// Replication: further copies of hot experts, and which share of an expert's tokens each copy serves.
//
// Greedy, then local search, then shares. Copies are added one at a time where they help most, with equal
// shares; copies are moved and swapped while that helps; then share is shifted between the copies of an
// expert in ever smaller steps. Judged by the layer time plus a small smooth term (search_score.h), since
// with several equally busy GPUs one more copy alone does not lower a maximum.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/placement_problem.h"

namespace aurora {

struct ReplicationArgs {
  int num_replicas = 0;
  std::int64_t max_evaluations = 0;  // placements, while copies are moved and swapped
  /// Also judge by the layer time under even popularity, as much as by that of the problem: a hedge against
  /// traffic other than recorded (placement_search.h).
  bool is_hedged = false;
};

/// Adds up to `num_replicas` copies for each model within the slots; fewer when no further copy helps. The
/// result is never worse than `start`, in which every expert may have replicas already.
std::vector<LayerPlacement> replicate_experts(const LayerProblem& problem, std::vector<LayerPlacement> start,
                                              const ReplicationArgs& args);

}  // namespace aurora
