// Which experts the tokens of a measured batch go to.
//
// Uniform routing is the same in every program that follows these lines (benchmarks/layer_peers.py does): of
// one SplitMix64 sequence (scheduler/random.h) token t takes the draws t k to t k + k - 1; draw j picks among
// the experts that it has not picked yet by the j-th step of a Fisher-Yates shuffle of 0, 1, ..., E - 1. So
// a batch is the beginning of every larger one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "benchmarks/layer/shape.h"
#include "runtime/plan_io/routing_record.h"

namespace aurora::bench {

struct LayerRouting {
  std::string name;  // "uniform", or where the tokens come from
  std::int64_t num_tokens = 0;
  std::int64_t top_k = 0;
  std::vector<std::int32_t> expert_ids;  // [num_tokens, top_k]

  std::int64_t num_pairs() const { return num_tokens * top_k; }
  /// Pairs of each expert, [num_experts].
  std::vector<std::int64_t> pairs_by_expert(std::int64_t num_experts) const;
};

LayerRouting uniform_routing(const LayerShape& shape, std::int64_t num_tokens, std::uint64_t seed);

/// Whether the record's tokens have as many experts to choose from, and choose as many, as the shape's.
bool fits(const RoutingRecord& record, const LayerShape& shape);

/// Consecutive tokens of the record's middle layer, from its middle token on, around the end.
LayerRouting replayed_routing(const RoutingRecord& record, std::int64_t num_tokens);

/// `rows_per_expert` pairs for each of the first `num_hit` experts: token t takes the experts from t k on,
/// around the end of those. As many tokens as that takes; needs num_hit of at least top_k.
LayerRouting even_routing(const LayerShape& shape, std::int64_t num_hit, std::int64_t rows_per_expert);

}  // namespace aurora::bench
