// Placements with at most one expert of a model on a GPU: the paper's setting, where everything that a GPU
// does follows from which expert of each model it hosts. No row is shared by two experts, so samples do not
// matter.
#pragma once

#include <cstddef>
#include <vector>

#include "scheduler/placement_problem.h"

namespace aurora {

/// What an expert makes of the GPU that hosts it, [expert][gpu]. Rows beyond the experts stand for GPUs that
/// host none.
struct HostingTerms {
  std::size_t num_gpus = 0;
  std::vector<double> expert_us;
  std::vector<double> send;     // rows over bytes per microsecond, of the dispatch
  std::vector<double> receive;  // the combine sends what the dispatch receives
  std::vector<bool> is_allowed;

  std::size_t at(std::size_t expert, std::size_t gpu) const { return expert * num_gpus + gpu; }
};

/// True when no model has more experts than GPUs with slots, and no links inside nodes make a row's cost
/// depend on where other experts are.
bool can_place_one_per_gpu(const LayerProblem& problem);

/// Of one model of a problem with can_place_one_per_gpu.
HostingTerms hosting_terms(const LayerProblem& problem, std::size_t model);

/// The optimum of the first model alone with at most one expert on a GPU: gate and dispatch, experts and
/// combine are two terms of a GPU and its expert, aggregation is the same for all placements, so that the
/// layer time is a sum of two bottlenecks (bottleneck_matching.h). Any compute, ports, sources and slots.
std::vector<int> best_single_assignment(const LayerProblem& problem);

}  // namespace aurora
