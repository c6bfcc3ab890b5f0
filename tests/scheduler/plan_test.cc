// What a plan answers about itself, and which plans are refused.
#include "scheduler/plan.h"

#include <gtest/gtest.h>

namespace aurora {
namespace {

DeploymentPlan small_plan() {
  DeploymentPlan plan;
  plan.num_gpus = 3;
  plan.models = {{"a", {{{{{{0}, 1.0}}, {{{0}, 0.25}, {{2}, 0.75}}}}}}};
  return plan;
}

std::string refusal(const DeploymentPlan& plan) {
  try {
    validate(plan);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

TEST(Plan, KnowsWhoHostsWhat) {
  const DeploymentPlan plan = small_plan();
  EXPECT_EQ(refusal(plan), "");
  const LayerPlacement& layer = plan.find("a")->layers[0];
  EXPECT_TRUE(layer.hosts({2}, {1}));
  EXPECT_FALSE(layer.hosts({2}, {0}));
  EXPECT_FALSE(layer.hosts({2}, {7}));
  EXPECT_EQ(layer.experts_on({0}), (std::vector<ExpertId>{{0}, {1}}));
  EXPECT_TRUE(layer.experts_on({1}).empty());
  EXPECT_EQ(plan.find("b"), nullptr);
}

TEST(Plan, IsRefusedWithModelLayerAndExpert) {
  DeploymentPlan plan = small_plan();
  auto& replicas = plan.models[0].layers[0].experts[1];
  const std::string where = "model \"a\", layer 0, expert 1";
  replicas[1].gpu = {3};
  EXPECT_NE(refusal(plan).find(where + ": replica on GPU 3"), std::string::npos) << refusal(plan);
  replicas[1].gpu = {0};
  EXPECT_NE(refusal(plan).find("distinct and ascending"), std::string::npos) << refusal(plan);
  replicas[1] = {{2}, 0.5};
  EXPECT_NE(refusal(plan).find("sum to 0.75"), std::string::npos) << refusal(plan);
  replicas[1].share = 0;
  EXPECT_NE(refusal(plan).find("share 0"), std::string::npos) << refusal(plan);
  replicas.clear();
  EXPECT_NE(refusal(plan).find(where + ": no GPU hosts it"), std::string::npos) << refusal(plan);
  plan = small_plan();
  plan.models.push_back(plan.models[0]);
  EXPECT_NE(refusal(plan).find("placed twice"), std::string::npos) << refusal(plan);
  plan.num_gpus = 0;
  EXPECT_NE(refusal(plan).find("number of GPUs is 0"), std::string::npos) << refusal(plan);
}

}  // namespace
}  // namespace aurora
