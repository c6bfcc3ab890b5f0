// The MoE layers that are measured: sizes of published models, and any others by their numbers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace aurora::bench {

struct LayerShape {
  std::string name;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  std::int64_t hidden = 0;
  std::int64_t inner = 0;  // of one expert

  /// Elements of one expert's gate, up and down.
  std::int64_t expert_elements() const { return 3 * hidden * inner; }
};

/// Mixtral-8x7B, Qwen3-30B-A3B, OLMoE-1B-7B, DeepSeek-V2-Lite (its routed experts).
std::span<const LayerShape> published_shapes();

/// A published name, or "8x2x64x32": experts, top-k, hidden, inner. Throws kInvalidArgument naming the
/// nearest name or the number that is out of range.
LayerShape parse_layer_shape(const std::string& text);
/// Each of `names`; "all" stands for the published ones.
std::vector<LayerShape> parse_layer_shapes(const std::vector<std::string>& names);

}  // namespace aurora::bench
