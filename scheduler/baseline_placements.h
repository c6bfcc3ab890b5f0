// Placements that plans are measured against, and that searches start from. Each keeps to the slots of the
// problem and gives every GPU the same number of experts as far as they allow.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/placement_problem.h"

namespace aurora {

/// Experts per GPU: as even as `slots` allow; earlier GPUs take what does not divide. Sums to `num_experts`.
std::vector<int> even_quotas(int num_experts, const std::vector<int>& slots);

/// Blocks of consecutive experts: what inference engines do.
std::vector<int> contiguous_assignment(int num_experts, const std::vector<int>& slots);
/// Expert e to GPU e mod n, passing over full ones.
std::vector<int> round_robin_assignment(int num_experts, const std::vector<int>& slots);
/// A random even assignment.
std::vector<int> random_assignment(int num_experts, const std::vector<int>& slots, std::uint64_t seed);

/// Experts by descending load onto GPUs from fastest to slowest (Li et al., theorem 5.1). The theorem has one
/// expert per GPU; with more, the next n experts go back from the slowest to the fastest, and so on in turns.
std::vector<int> sorted_assignment(const LayerProblem& problem, std::size_t model);

/// List scheduling (Graham 1969): the experts of all models by descending work, each to the GPU that is then
/// done first, counting its gates, its experts and the busier side of its port, every pair as a row. Fast
/// GPUs get more experts than slow ones. O(experts * GPUs).
Assignment listed_assignment(const LayerProblem& problem);

/// Lina (Li et al., USENIX ATC 2023) as the paper models it: each model has GPUs to itself, and the hottest
/// expert shares one with the coldest of the same model. Models get equal consecutive parts of the GPUs, or
/// all GPUs where there are fewer GPUs than models.
Assignment lina_assignment(const LayerProblem& problem);

/// EPLB (DeepSeek-AI, 2025; the global policy): replicas, one at a time, to the expert with the most load per
/// replica until there are `num_copies` in all, then copies by descending load onto the least loaded GPU that
/// has fewer than its equal number. Looks at load only; two copies on one GPU become one. Throws
/// std::invalid_argument when the slots of a GPU do not suffice.
LayerPlacement eplb_placement(const LayerProblem& problem, std::size_t model, int num_copies);

}  // namespace aurora
