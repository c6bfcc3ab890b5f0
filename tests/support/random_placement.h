// Random routing and placements for tests: seeded, replicas included.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "scheduler/plan.h"

namespace aurora::test {

/// Each expert on one to `max_replicas` distinct ranks, with random shares.
inline LayerPlacement random_placement(int num_experts, int num_ranks, int max_replicas,
                                       std::mt19937& random) {
  LayerPlacement placement;
  placement.experts.resize(static_cast<std::size_t>(num_experts));
  for (auto& replicas : placement.experts) {
    std::vector<int> ranks(static_cast<std::size_t>(num_ranks));
    for (int rank = 0; rank < num_ranks; ++rank) ranks[rank] = rank;
    std::ranges::shuffle(ranks, random);
    const int count = std::uniform_int_distribution<int>(1, std::min(max_replicas, num_ranks))(random);
    ranks.resize(static_cast<std::size_t>(count));
    std::ranges::sort(ranks);
    double sum = 0;
    for (const int rank : ranks) {
      const double share = std::uniform_real_distribution<double>(0.1, 1)(random);
      replicas.push_back({GpuId{rank}, share});
      sum += share;
    }
    for (ExpertReplica& replica : replicas) replica.share /= sum;
  }
  return placement;
}

/// [num_tokens, top_k] distinct experts per token.
inline std::vector<std::int32_t> random_expert_ids(int num_tokens, int num_experts, int top_k,
                                                   std::mt19937& random) {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> experts(static_cast<std::size_t>(num_experts));
  for (int expert = 0; expert < num_experts; ++expert) experts[expert] = expert;
  for (int token = 0; token < num_tokens; ++token) {
    std::ranges::shuffle(experts, random);
    ids.insert(ids.end(), experts.begin(), experts.begin() + top_k);
  }
  return ids;
}

}  // namespace aurora::test
