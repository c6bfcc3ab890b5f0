#include "benchmarks/layer/routing.h"

#include <numeric>
#include <utility>

#include "kernels/error.h"
#include "scheduler/random.h"

namespace aurora::bench {

std::vector<std::int64_t> LayerRouting::pairs_by_expert(std::int64_t num_experts) const {
  std::vector<std::int64_t> pairs(static_cast<std::size_t>(num_experts));
  for (const std::int32_t expert : expert_ids) ++pairs.at(static_cast<std::size_t>(expert));
  return pairs;
}

LayerRouting uniform_routing(const LayerShape& shape, std::int64_t num_tokens, std::uint64_t seed) {
  LayerRouting routing{.name = "uniform", .num_tokens = num_tokens, .top_k = shape.top_k, .expert_ids = {}};
  const auto num_experts = static_cast<std::size_t>(shape.num_experts);
  Random random(seed);
  std::vector<std::int32_t> experts(num_experts);
  for (std::int64_t token = 0; token < num_tokens; ++token) {
    std::iota(experts.begin(), experts.end(), 0);
    for (std::size_t k = 0; k < static_cast<std::size_t>(shape.top_k); ++k) {
      std::swap(experts[k], experts[k + random.below(num_experts - k)]);
      routing.expert_ids.push_back(experts[k]);
    }
  }
  return routing;
}

bool fits(const RoutingRecord& record, const LayerShape& shape) {
  return record.num_experts == shape.num_experts && record.top_k == shape.top_k;
}

LayerRouting replayed_routing(const RoutingRecord& record, std::int64_t num_tokens) {
  LayerRouting routing{
      .name = record.model, .num_tokens = num_tokens, .top_k = record.top_k, .expert_ids = {}};
  const std::int64_t first = record.num_tokens / 2;
  for (std::int64_t token = 0; token < num_tokens; ++token) {
    const auto experts = record.experts_of(record.num_layers / 2, (first + token) % record.num_tokens);
    routing.expert_ids.insert(routing.expert_ids.end(), experts.begin(), experts.end());
  }
  return routing;
}

LayerRouting even_routing(const LayerShape& shape, std::int64_t num_hit, std::int64_t rows_per_expert) {
  check(num_hit >= shape.top_k && num_hit <= shape.num_experts,
        "even routing hits at least top-k experts and at most all");
  LayerRouting routing{.name = "even", .num_tokens = 0, .top_k = shape.top_k, .expert_ids = {}};
  routing.num_tokens = (num_hit * rows_per_expert + shape.top_k - 1) / shape.top_k;
  for (std::int64_t pair = 0; pair < routing.num_pairs(); ++pair) {
    routing.expert_ids.push_back(static_cast<std::int32_t>(pair % num_hit));
  }
  return routing;
}

}  // namespace aurora::bench
