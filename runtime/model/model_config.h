// What a checkpoint's config.json says, in one vocabulary for all supported architectures and both spellings
// (transformers 4 and 5).
//
// The two spellings. Version 4: `num_experts` (Mixtral: `num_local_experts`), `rope_theta` and `rope_scaling`
// with "type" or "rope_type", `torch_dtype`. Version 5: `rope_parameters` with `rope_theta` inside,
// `num_local_experts` also elsewhere, `dtype`. Keys that are absent take the default of the Hugging Face
// configuration class. Meanings follow transformers 5.23 (src/transformers/models/*/configuration_*.py,
// modeling_rope_utils.py).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"

namespace aurora {

enum class Architecture : std::uint8_t { kMixtral, kQwen2Moe, kQwen3Moe, kOlmoe };

/// "MixtralForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "OlmoeForCausalLM".
std::string_view architecture_name(Architecture architecture);

enum class RopeScaling : std::uint8_t { kNone, kLinear, kLlama3, kYarn };

/// What turns positions into angles; rope_table.h computes the tables. Fields of other scalings keep their
/// defaults.
struct RopeConfig {
  double theta = 10000;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;                      // linear, llama3, yarn: how much longer the context became
  double original_max_positions = 0;      // llama3, yarn; of the model before it was extended
  double low_freq_factor = 1;             // llama3
  double high_freq_factor = 4;            // llama3
  double beta_fast = 32;                  // yarn
  double beta_slow = 1;                   // yarn
  bool truncate_correction_range = true;  // yarn
  /// yarn: what cosines and sines are multiplied with. None: derived, see rope_attention_factor.
  std::optional<double> attention_factor;
  double magnitude_scale = 0;      // yarn's "mscale"; 0: not given
  double magnitude_scale_all = 0;  // yarn's "mscale_all_dim"; 0: not given
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
  bool attention_bias = false;  // q, k, v projections carry a bias (Qwen2-MoE: unless told otherwise)
  bool output_projection_bias = false;
  double clip_qkv = 0;  // 0: none (OLMoE)
  /// Sliding window of each layer, 0 for full attention; [num_layers].
  std::vector<std::int32_t> window;
  bool tie_word_embeddings = false;

  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  std::int64_t expert_inner = 0;         // width of one expert's FFN
  std::int64_t shared_expert_inner = 0;  // 0: no shared expert
  std::int64_t dense_inner = 0;          // width of the FFN of layers that are not MoE
  bool normalize_top_k = true;
  /// Which layers are MoE; [num_layers].
  std::vector<bool> is_moe_layer;

  std::vector<std::int32_t> eos_token_ids;  // from generation_config.json, else config.json
  std::optional<std::int32_t> bos_token_id;

  std::int64_t num_moe_layers() const;
};

/// Reads `folder`/config.json and, if present, generation_config.json. Throws Error naming file, key and
/// value: kNotFound, kFormat, or kUnsupported for an architecture, activation or rope scaling that is not
/// implemented.
ModelConfig read_model_config(const std::filesystem::path& folder);

/// The same from the texts of the two files; `generation_json` may be empty. `folder` is used in messages
/// only.
ModelConfig parse_model_config(std::string_view config_json, std::string_view generation_json,
                               const std::filesystem::path& folder);

}  // namespace aurora
