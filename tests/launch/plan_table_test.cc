#include "launch/plan_table.h"

#include <gtest/gtest.h>

namespace aurora {
namespace {

ExpertReplica on(int gpu, double share = 1) { return {GpuId{gpu}, share}; }

/// Experts 0-2 on GPU 0, 3 on both, 4 on GPU 1, none on GPU 2.
LayerPlacement example_layer() { return {{{on(0)}, {on(0)}, {on(0)}, {on(0, 0.25), on(1, 0.75)}, {on(1)}}}; }

TEST(PlanTable, ExpertsAreListedInRunsWithTheirShares) {
  EXPECT_EQ(expert_list(example_layer(), GpuId{0}), "0-2 3(25%)");
  EXPECT_EQ(expert_list(example_layer(), GpuId{1}), "3(75%) 4");
  EXPECT_EQ(expert_list(example_layer(), GpuId{2}), "-");
}

TEST(PlanTable, LoadIsOverTheMeanOfAllRanks) {
  const std::vector<double> loads = rank_loads(example_layer(), 3, {10, 0, 10, 40, 0});
  ASSERT_EQ(loads.size(), 3U);
  EXPECT_DOUBLE_EQ(loads[0], 1.5);
  EXPECT_DOUBLE_EQ(loads[1], 1.5);
  EXPECT_DOUBLE_EQ(loads[2], 0);
  EXPECT_DOUBLE_EQ(rank_loads(example_layer(), 3, {})[0], 3.25 / (5.0 / 3));
  EXPECT_DOUBLE_EQ(rank_loads(example_layer(), 3, {0, 0, 0, 0, 0})[2], 1);
}

PlannedModel example_model() {
  PlannedModel model;
  model.options.name = "m";
  model.options.kv_cache_bytes = 1 << 20;
  model.config.num_layers = 2;
  model.config.hidden = 8;
  model.config.vocabulary = 100;
  model.config.num_heads = 2;
  model.config.num_kv_heads = 1;
  model.config.head_width = 4;
  model.config.tie_word_embeddings = true;
  model.config.num_experts = 5;
  model.config.top_k = 2;
  model.config.expert_inner = 16;
  model.config.is_moe_layer = {true, true};
  return model;
}

TEST(PlanTable, EqualLayersAreShownOnceAndDifferentOnesApart) {
  DeploymentPlan plan;
  plan.num_gpus = 3;
  plan.placement_policy = "test";
  const LayerPlacement other{{{on(2)}, {on(2)}, {on(2)}, {on(2)}, {on(2)}}};
  plan.models = {{"m", {example_layer(), example_layer(), other}}};
  const std::string text = plan_table(plan, {example_model()}, DType::kFloat32);
  EXPECT_NE(text.find("Deployment plan: 3 ranks, placement test"), std::string::npos) << text;
  EXPECT_NE(text.find("    0-1     0  0-2 3(25%)  1.95x\n"), std::string::npos) << text;
  EXPECT_NE(text.find("      2     0  -        0.00x\n"), std::string::npos) << text;
  EXPECT_NE(text.find("             2  0-4      3.00x\n"), std::string::npos) << text;
}

}  // namespace
}  // namespace aurora
