// A small random Qwen3-MoE checkpoint in Hugging Face layout, written to a folder: any number of layers and
// experts.
#pragma once

#include <cstdint>
#include <filesystem>

namespace aurora::test {

struct RandomCheckpointArgs {
  std::int64_t num_layers = 2;
  std::int64_t num_experts = 64;
  std::int64_t top_k = 6;
  std::int64_t hidden = 32;
  std::int64_t expert_inner = 16;
  std::int64_t vocabulary = 96;
  std::uint32_t seed = 1;
};

/// Creates `folder` with config.json and model.safetensors (float32); no tokenizer.
void write_random_checkpoint(const std::filesystem::path& folder, const RandomCheckpointArgs& args);

}  // namespace aurora::test
