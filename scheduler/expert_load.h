// From tokens and experts to rows between GPUs.
//
// A token is sent once to each GPU that hosts at least one of its experts, so the rows that cross the network
// are fewer than the (token, expert) pairs. Counts give the pairs exactly; samples of whole expert sets give
// how many pairs one row carries. Rows from source s to GPU g are estimated as
//     pairs(s, g) * (sampled rows from s to g / sampled pairs from s to g),
// which is exact where no GPU hosts two experts, and without samples counts every pair as a row. Which copy
// of an expert serves a source's tokens is in replica_shares.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/plan.h"
#include "scheduler/traffic_matrix.h"

namespace aurora {

/// Throws std::invalid_argument naming model, layer, source, expert, value and limit: sizes agree with
/// `num_experts`, counts are finite and not negative, the counts of a source are `top_k` for each of its
/// tokens, no expert has more than all tokens of a source, samples hold `top_k` distinct experts.
void validate(const ModelTraffic& traffic);

struct UniformTrafficArgs {
  std::string model;
  int num_layers = 1;
  int num_experts = 0;
  int top_k = 1;
  int num_gpus = 1;
  double tokens_per_gpu = 1024;
};
/// The traffic to plan with when none was recorded: every expert gets the same share of every source's
/// tokens. Has no samples and no times; the bytes are 1 per token, to be set by the caller who knows them.
ModelTraffic uniform_traffic(const UniformTrafficArgs& args);

/// Expert sets of single tokens, side by side in memory. The tokens of source s are [first_of_source[s],
/// first_of_source[s + 1]); each has `top_k` experts.
struct SampledTokens {
  int top_k = 0;
  std::vector<std::int32_t> experts;  // [token][top_k]
  std::vector<std::size_t> first_of_source;

  bool is_empty() const { return experts.empty(); }
  std::span<const std::int32_t> experts_of(std::size_t token) const {
    const auto size = static_cast<std::size_t>(top_k);
    return {experts.data() + token * size, size};
  }
};

/// The traffic of one layer as seen by a cluster of `num_gpus` GPUs: source i is GPU i. When the traffic was
/// recorded on another number of sources, which GPU they would be is unknown, and all tokens are spread
/// evenly over the GPUs.
struct LayerDemand {
  LayerDemand(const LayerTraffic& traffic, const ModelTraffic& model, int num_gpus);

  double pairs(int source, int expert) const {
    return pairs_by_expert[static_cast<std::size_t>(expert) * static_cast<std::size_t>(num_gpus) +
                           static_cast<std::size_t>(source)];
  }

  int num_gpus;
  int num_experts;
  std::vector<double> pairs_by_expert;  // [expert][source]
  std::vector<double> tokens;           // [source]
  std::vector<double> expert_pairs;     // [expert] summed over sources
  SampledTokens samples;
};

/// Rows between GPUs, row-major [source][destination], the diagonal (local rows, free) included.
std::vector<double> exchange_rows(const LayerDemand& demand, const LayerPlacement& placement);

/// Pairs that each replica of an expert serves, all sources together: [replica].
std::vector<double> pairs_of_replicas(const LayerDemand& demand, const LayerPlacement& placement, int expert);

/// Bytes of the dispatch of one layer; every entry rounded to whole bytes.
TrafficMatrix dispatch_bytes(const ModelTraffic& model, int layer, const LayerPlacement& placement,
                             int num_gpus);
/// Bytes of the combine: the rows of the dispatch, the other way.
TrafficMatrix combine_bytes(const ModelTraffic& model, int layer, const LayerPlacement& placement,
                            int num_gpus);

}  // namespace aurora
