// What a checkpoint's config.json says, in one vocabulary for all supported architectures and both spellings
// (transformers 4 and 5).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/dtype.h"

namespace aurora {

enum class Architecture : std::uint8_t { kMixtral, kQwen2Moe, kQwen3Moe, kOlmoe };

/// "MixtralForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "OlmoeForCausalLM".
std::string_view architecture_name(Architecture architecture);

enum class RopeScaling : std::uint8_t { kNone, kLinear, kLlama3, kYarn };

struct RopeConfig {
  double theta = 10000;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;
  double original_max_positions = 0;          // llama3, yarn
  double low_freq_factor = 1;                 // llama3
  double high_freq_factor = 4;                // llama3
  double beta_fast = 32;                      // yarn
  double beta_slow = 1;                       // yarn
  std::optional<double> attention_factor;     // yarn
};

/// How q_norm and k_norm normalise: Qwen3 over each head, OLMoE over the whole projection.
enum class QueryKeyNorm : std::uint8_t { kNone, kPerHead, kFull };

struct ModelConfig {
  Architecture architecture = Architecture::kMixtral;
  std::int64_t num_layers = 0;
  std::int64_t hidden = 0;
  std::int64_t vocabulary = 0;
  std::int64_t max_positions = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_width = 0;
  double rms_norm_epsilon = 1e-6;
  RopeConfig rope;
  QueryKeyNorm query_key_norm = QueryKeyNorm::kNone;
  bool attention_bias = false;        // q, k, v projections carry a bias (Qwen2-MoE: always)
  bool output_projection_bias = false;
  double clip_qkv = 0;                // 0: none (OLMoE)
  /// Sliding window of each layer, 0 for full attention; [num_layers].
  std::vector<std::int32_t> window;
  bool tie_word_embeddings = false;

  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  std::int64_t expert_inner = 0;          // width of one expert's FFN
  std::int64_t shared_expert_inner = 0;   // 0: no shared expert
  std::int64_t dense_inner = 0;           // width of the FFN of layers that are not MoE
  bool normalize_top_k = true;
  /// Which layers are MoE; [num_layers].
  std::vector<bool> is_moe_layer;

  std::vector<std::int32_t> eos_token_ids;  // from generation_config.json, else config.json
  std::optional<std::int32_t> bos_token_id;

  std::int64_t num_moe_layers() const;
};

/// Reads `folder`/config.json and, if present, generation_config.json. Throws Error naming file, key and value:
/// kNotFound, kFormat, or kUnsupported for an architecture, activation or rope scaling that is not implemented.
ModelConfig read_model_config(const std::filesystem::path& folder);

}  // namespace aurora
