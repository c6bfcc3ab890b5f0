// What a rank needs of its device, and who is told that it does not fit.
#include "runtime/rank_memory.h"

#include <gtest/gtest.h>

namespace aurora {
namespace {

constexpr std::int64_t kGibibyte = std::int64_t{1} << 30;

ModelOptions example_options(DType dtype) {
  ModelOptions options;
  options.name = "m";
  options.dtype = dtype;
  options.kv_cache_bytes = 100000;
  options.kv_block_tokens = 16;
  options.max_batch_tokens = 32;
  options.max_batch_requests = 4;
  return options;
}

ModelConfig example_config() {
  ModelConfig config;
  config.num_layers = 2;
  config.hidden = 8;
  config.vocabulary = 100;
  config.max_positions = 4096;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_width = 4;
  config.tie_word_embeddings = true;
  config.num_experts = 5;
  config.top_k = 2;
  config.expert_inner = 16;
  config.is_moe_layer = {true, true};
  return config;
}

ExpertReplica on(int gpu) { return {GpuId{gpu}, 1}; }

/// Two layers whose experts 0 to 2 are on GPU 0 and 3 and 4 on GPU 1.
ModelPlacement example_placement() {
  const LayerPlacement layer{{{on(0)}, {on(0)}, {on(0)}, {on(1)}, {on(1)}}};
  return {"m", {layer, layer}};
}

TEST(ModelMemory, CountsSharedWeightsHostedExpertsAndTheCacheInTheComputeDtype) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const auto element = static_cast<std::int64_t>(dtype_bytes(dtype));
    const ModelMemory memory = model_memory(example_options(dtype), example_config(), example_placement(),
                                            GpuId{0}, {.num_ranks = 2});
    // Embedding and last norm; per layer q, k, v, o, two norms and the gate.
    EXPECT_EQ(memory.shared_weight_bytes,
              element * (100 * 8 + 8 + 2 * (8 * 8 + 8 * 4 + 8 * 4 + 8 * 8 + 16 + 5 * 8)));
    EXPECT_EQ(memory.expert_weight_bytes, element * 2 * 3 * (3 * 8 * 16));
    // Whole blocks of 16 tokens: keys and values of 2 layers, 4 elements each.
    const std::int64_t block = 2 * 2 * 16 * 4 * element;
    EXPECT_EQ(memory.kv_cache_bytes, 100000 / block * block);
  }
}

TEST(ModelMemory, WorkspacesGrowWithTheRanksThatMaySendHere) {
  const auto workspace = [](int num_ranks) {
    return model_memory(example_options(DType::kFloat32), example_config(), example_placement(), GpuId{0},
                        {.num_ranks = num_ranks})
        .workspace_bytes;
  };
  // At least the experts' inputs, gate, up and outputs of 32 tokens of each rank, twice each.
  EXPECT_GE(workspace(8) - workspace(4), 4 * 32 * 2 * (2 * 8 + 2 * 16) * 4);
}

TEST(ModelMemory, AnOnlyRankNeedsNoRowsUnlessTheWireMayHaveToRound) {
  const auto workspace = [](DType dtype, DType wire_dtype) {
    return model_memory(example_options(dtype), example_config(), example_placement(), GpuId{0},
                        {.num_ranks = 1, .wire_dtype = wire_dtype})
        .workspace_bytes;
  };
  const std::int64_t local = workspace(DType::kFloat32, DType::kFloat32);
  // At least inputs, gate, up and outputs of two experts of each of 32 tokens.
  EXPECT_GE(local, 32 * 2 * (2 * 8 + 2 * 16) * 4);
  // Rows of 16 bytes at least are sent and received, and results of two experts of each token twice.
  EXPECT_GE(workspace(DType::kFloat32, DType::kBFloat16), local + 32 * 2 * 16 + 2 * 32 * 2 * 8 * 2);
  EXPECT_EQ(workspace(DType::kBFloat16, DType::kBFloat16), workspace(DType::kBFloat16, DType::kFloat32));
}

RankMemory rank(const std::string& device, std::int64_t free_gib, std::int64_t expert_gib) {
  ModelMemory model{"m", 1 * kGibibyte, expert_gib * kGibibyte, 2 * kGibibyte, 0};
  return {{device, free_gib * kGibibyte, 80 * kGibibyte, 0}, {model}};
}

TEST(MemoryShortage, ADeviceOfOnesOwnFitsToTheByte) {
  EXPECT_FALSE(memory_shortage({rank("a", 10, 7)}, 0));
  EXPECT_TRUE(memory_shortage({rank("a", 10, 8)}, 0));
  EXPECT_FALSE(memory_shortage({rank("a", 10, 7), rank("b", 10, 7)}, 1));
}

TEST(MemoryShortage, RanksThatShareADeviceAddUp) {
  const std::vector<RankMemory> ranks{rank("a", 19, 7), rank("b", 19, 7), rank("a", 19, 7)};
  EXPECT_TRUE(memory_shortage(ranks, 0));
  EXPECT_FALSE(memory_shortage(ranks, 1));
  EXPECT_TRUE(memory_shortage(ranks, 2));
}

TEST(MemoryShortage, TheTextNamesFreeAndNeededMemoryTheLargestPartAndTheRemedy) {
  const std::string text = *memory_shortage({rank("a", 18, 7), rank("a", 19, 7)}, 1);
  EXPECT_EQ(
      text,
      "a has 18.00 GiB of 80.00 GiB free, and 20.00 GiB are needed by the 2 ranks that share it, 10.00 GiB "
      "by this one; the largest part is 7.00 GiB of model m's expert weights; start more ranks on more GPUs");
}

TEST(MemoryShortage, ADeviceThatDoesNotSayWhatItHasIsNotJudged) {
  RankMemory unknown = rank("", 0, 1000);
  unknown.device.total_bytes = 0;
  EXPECT_FALSE(memory_shortage({unknown}, 0));
}

DeviceMemory device(const std::string& name, std::int64_t free_gib) {
  return {name, free_gib * kGibibyte, 80 * kGibibyte, 0};
}

TEST(MoveShortage, RanksThatShareADeviceAddUpAndTheOthersDoNot) {
  const std::vector<DeviceMemory> devices{device("a", 6), device("b", 6), device("a", 7)};
  const auto shortage = [&](std::int64_t first, std::int64_t second, std::int64_t third) {
    return move_shortage(devices, {first * kGibibyte, second * kGibibyte, third * kGibibyte});
  };
  EXPECT_FALSE(shortage(3, 6, 3));
  EXPECT_EQ(shortage(3, 0, 4),
            "a has 6.00 GiB of 80.00 GiB free, and experts of 7.00 GiB would move there before others leave");
  EXPECT_EQ(shortage(0, 7, 0)->substr(0, 9), "b has 6.0");
  DeviceMemory unknown = device("c", 0);
  unknown.total_bytes = 0;
  EXPECT_FALSE(move_shortage({unknown}, {kGibibyte}));
}

}  // namespace
}  // namespace aurora
