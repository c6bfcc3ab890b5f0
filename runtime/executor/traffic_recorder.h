// What one model's routers really did on this rank: tokens per expert and layer, and samples of whole expert
// sets.
//
// Counts alone overstate bytes (copies of a token to one rank travel once), hence the samples: a reservoir of
// expert sets per layer, uniform over all tokens seen (Vitter's algorithm R, with a fixed seed).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/serialization.h"
#include "scheduler/plan.h"

namespace aurora {

class TrafficRecorder {
 public:
  /// Expert sets kept per layer: enough for 2 % error on the share of tokens that a rank receives.
  static constexpr std::size_t kMaxSamples = 512;

  TrafficRecorder(int num_moe_layers, int num_experts, int top_k, std::size_t max_samples = kMaxSamples);

  /// `expert_ids` is [num_tokens, top_k].
  void record(int moe_layer, std::span<const std::int32_t> expert_ids);

  /// Tokens per expert of a layer, [num_experts].
  const std::vector<std::int64_t>& tokens(int moe_layer) const { return layers_[moe_layer].tokens; }

  void serialize(ByteWriter& writer) const;
  /// Forgets what was recorded.
  void clear();

 private:
  struct Layer {
    std::vector<std::int64_t> tokens;   // [num_experts]
    std::vector<std::int32_t> samples;  // [num_samples, top_k]
    std::uint64_t num_seen = 0;
    std::uint64_t random = 0;
  };

  int top_k_;
  std::size_t max_samples_;
  std::vector<Layer> layers_;
};

/// Joins what all ranks recorded, one serialised recorder per source rank in rank order, into
/// `traffic.layers`. `expert_tokens` becomes the sum over sources, [moe layer][expert].
void merge_recorded_traffic(std::vector<ByteReader>& recorded, ModelTraffic& traffic,
                            std::vector<std::vector<std::int64_t>>& expert_tokens);

}  // namespace aurora
