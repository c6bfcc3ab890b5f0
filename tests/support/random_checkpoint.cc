#include "tests/support/random_checkpoint.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace aurora::test {
namespace {

/// Collects random tensors and writes them as one safetensors file.
class TensorFile {
 public:
  explicit TensorFile(std::uint32_t seed) : random_(seed) {}

  void add(const std::string& name, std::vector<std::int64_t> shape) {
    std::size_t count = 1;
    for (const std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
    const bool is_norm = shape.size() == 1;
    std::normal_distribution<float> normal(0, 1.0F / std::sqrt(static_cast<float>(shape.back())));
    const std::size_t first = values_.size();
    for (std::size_t i = 0; i < count; ++i) values_.push_back(is_norm ? 1.0F : normal(random_));
    header_[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {first * 4, values_.size() * 4}}};
  }

  void write(const std::filesystem::path& file) const {
    const std::string header = header_.dump();
    const std::uint64_t header_bytes = header.size();
    std::ofstream output(file, std::ios::binary);
    output.write(reinterpret_cast<const char*>(&header_bytes), 8);
    output.write(header.data(), static_cast<std::streamsize>(header.size()));
    output.write(reinterpret_cast<const char*>(values_.data()),
                 static_cast<std::streamsize>(values_.size() * 4));
  }

 private:
  std::mt19937 random_;
  std::vector<float> values_;
  nlohmann::json header_;
};

void add_layer(TensorFile& file, std::int64_t layer, const RandomCheckpointArgs& args) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  file.add(prefix + "input_layernorm.weight", {args.hidden});
  file.add(prefix + "post_attention_layernorm.weight", {args.hidden});
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    file.add(prefix + "self_attn." + name + ".weight", {args.hidden, args.hidden});
  }
  file.add(prefix + "self_attn.q_norm.weight", {args.hidden / 2});
  file.add(prefix + "self_attn.k_norm.weight", {args.hidden / 2});
  file.add(prefix + "mlp.gate.weight", {args.num_experts, args.hidden});
  for (std::int64_t expert = 0; expert < args.num_experts; ++expert) {
    const std::string name = prefix + "mlp.experts." + std::to_string(expert) + ".";
    file.add(name + "gate_proj.weight", {args.expert_inner, args.hidden});
    file.add(name + "up_proj.weight", {args.expert_inner, args.hidden});
    file.add(name + "down_proj.weight", {args.hidden, args.expert_inner});
  }
}

}  // namespace

void write_random_checkpoint(const std::filesystem::path& folder, const RandomCheckpointArgs& args) {
  std::filesystem::create_directories(folder);
  const nlohmann::json config = {{"architectures", {"Qwen3MoeForCausalLM"}},
                                 {"model_type", "qwen3_moe"},
                                 {"hidden_size", args.hidden},
                                 {"num_hidden_layers", args.num_layers},
                                 {"num_attention_heads", 2},
                                 {"num_key_value_heads", 2},
                                 {"head_dim", args.hidden / 2},
                                 {"intermediate_size", args.expert_inner},
                                 {"moe_intermediate_size", args.expert_inner},
                                 {"num_experts", args.num_experts},
                                 {"num_experts_per_tok", args.top_k},
                                 {"norm_topk_prob", true},
                                 {"vocab_size", args.vocabulary},
                                 {"max_position_embeddings", 512},
                                 {"rms_norm_eps", 1e-6},
                                 {"rope_theta", 10000.0},
                                 {"hidden_act", "silu"},
                                 {"tie_word_embeddings", true}};
  std::ofstream(folder / "config.json") << config.dump(1);
  TensorFile file(args.seed);
  file.add("model.embed_tokens.weight", {args.vocabulary, args.hidden});
  file.add("model.norm.weight", {args.hidden});
  for (std::int64_t layer = 0; layer < args.num_layers; ++layer) add_layer(file, layer, args);
  file.write(folder / "model.safetensors");
}

}  // namespace aurora::test
