// Any bytes as config.json and generation_config.json (what follows the first zero byte): a clear error, or a
// configuration whose numbers fit each other.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "kernels/error.h"
#include "runtime/model/model_config.h"
#include "runtime/model/rope_table.h"

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

void demand_consistent(const aurora::ModelConfig& config) {
  const auto num_layers = static_cast<std::size_t>(config.num_layers);
  demand(config.num_layers > 0 && config.hidden > 0 && config.vocabulary > 0 && config.max_positions > 0);
  demand(config.num_heads > 0 && config.num_kv_heads > 0 && config.num_heads % config.num_kv_heads == 0);
  demand(config.head_width > 0 && config.head_width % 2 == 0);
  demand(config.window.size() == num_layers && config.is_moe_layer.size() == num_layers);
  for (const std::int32_t window : config.window) demand(window >= 0);
  demand(config.num_moe_layers() > 0 && config.top_k > 0 && config.top_k <= config.num_experts);
  demand(config.expert_inner > 0 && config.shared_expert_inner >= 0);
  demand(config.num_moe_layers() == config.num_layers || config.dense_inner > 0);
  demand(std::isfinite(config.rms_norm_epsilon) && config.clip_qkv >= 0);
  for (const std::int32_t id : config.eos_token_ids) demand(id >= 0 && id < config.vocabulary);
  demand(std::isfinite(aurora::rope_attention_factor(config.rope)));
  for (const float frequency : aurora::rope_inverse_frequencies(config.rope, config.head_width)) {
    demand(std::isfinite(frequency) && frequency >= 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t split = text.find('\0');
  const std::string_view generation = split == std::string_view::npos ? "" : text.substr(split + 1);
  try {
    demand_consistent(aurora::parse_model_config(text.substr(0, split), generation, "fuzz"));
  } catch (const aurora::Error& error) {
    demand(error.kind() == aurora::ErrorKind::kFormat || error.kind() == aurora::ErrorKind::kUnsupported);
    demand(std::string_view(error.what()).starts_with("fuzz/"));
  }
  return 0;
}
