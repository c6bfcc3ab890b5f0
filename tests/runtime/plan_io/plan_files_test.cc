// Plans and traffic files: what is written is read back to the same value, and what is wrong is refused with
// its place and value.
#include <gtest/gtest.h>

#include <random>

#include "kernels/error.h"
#include "runtime/plan_io/plan_file.h"
#include "runtime/plan_io/traffic_file.h"
#include "tests/support/random_placement.h"
#include "tests/support/thrown_by.h"

namespace aurora {
namespace {

using test::thrown_by;

DeploymentPlan random_plan() {
  std::mt19937 random(7);
  DeploymentPlan plan;
  plan.epoch = 5;
  plan.num_gpus = 6;
  plan.placement_policy = "auto";
  plan.order_policy = OrderPolicy::kExact;
  for (const char* name : {"a", "b"}) {
    ModelPlacement model{name, {}};
    for (int layer = 0; layer < 3; ++layer) model.layers.push_back(test::random_placement(9, 6, 3, random));
    plan.models.push_back(model);
  }
  return plan;
}

TEST(PlanFile, ReadsBackWhatItWroteToTheLastBit) {
  const DeploymentPlan plan = random_plan();
  const DeploymentPlan read = parse_plan(plan_text(plan), "plan.json");
  EXPECT_EQ(read.models, plan.models);
  EXPECT_EQ(read.epoch, plan.epoch);
  EXPECT_EQ(read.num_gpus, plan.num_gpus);
  EXPECT_EQ(read.order_policy, plan.order_policy);
  EXPECT_EQ(read.placement_policy, plan.placement_policy);
}

TEST(PlanFile, NamesThePlaceOfEveryMistake) {
  const std::string good =
      R"({"version":1,"num_gpus":2,"models":[{"model":"a","layers":[{"experts":[[{"gpu":0}],[{"gpu":1}]]}]}]})";
  EXPECT_NO_THROW(parse_plan(good, "p"));
  const auto broken = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return thrown_by([&] { parse_plan(text, "p.json"); });
  };
  EXPECT_NE(broken(R"("gpu":1)", R"("gpu":2)").find("p.json: models[0].layers[0].experts[1][0].gpu"),
            std::string::npos);
  EXPECT_NE(broken(R"("num_gpus")", R"("num_gpu")").find("did you mean \"num_gpus\""), std::string::npos);
  EXPECT_NE(broken(R"("version":1)", R"("version":2)").find("2 is outside 1..1"), std::string::npos);
  EXPECT_NE(broken(R"([{"gpu":0}])", R"([])").find("p.json"), std::string::npos);
  EXPECT_NE(broken(R"({"gpu":0})", R"({"gpu":0,"share":0.5})").find("p.json"), std::string::npos);
  EXPECT_NE(broken("}]}]}", "}").find("not valid JSON"), std::string::npos);
}

ModelTraffic random_traffic() {
  std::mt19937 random(11);
  ModelTraffic traffic;
  traffic.model = "m";
  traffic.num_experts = 7;
  traffic.top_k = 3;
  traffic.dispatch_bytes_per_token = 544;
  traffic.combine_bytes_per_token = 512;
  traffic.expert_bytes = 1e6;
  traffic.attention_us = 0.1;
  traffic.expert_us_per_hit = 1.0 / 3;
  for (int layer = 0; layer < 2; ++layer) {
    LayerTraffic& recorded = traffic.layers.emplace_back();
    for (int source = 0; source < 4; ++source) {
      auto& counts = recorded.dispatch.emplace_back(7, 0.0);
      auto& sets = recorded.samples.emplace_back();
      const auto ids = test::random_expert_ids(20, 7, 3, random);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        counts[ids[i]] += 1;
        if (i % 3 == 0) sets.emplace_back();
        sets.back().push_back(ExpertId{ids[i]});
      }
    }
  }
  return traffic;
}

TEST(TrafficFile, ReadsBackWhatItWroteToTheLastBit) {
  const ModelTraffic traffic = random_traffic();
  const ModelTraffic read = parse_traffic(traffic_text(traffic), "t");
  EXPECT_EQ(read.model, traffic.model);
  EXPECT_EQ(read.top_k, traffic.top_k);
  EXPECT_EQ(read.expert_us_per_hit, traffic.expert_us_per_hit);
  EXPECT_EQ(read.combine_bytes_per_token, traffic.combine_bytes_per_token);
  ASSERT_EQ(read.layers.size(), traffic.layers.size());
  for (std::size_t layer = 0; layer < read.layers.size(); ++layer) {
    EXPECT_EQ(read.layers[layer].dispatch, traffic.layers[layer].dispatch);
    EXPECT_EQ(read.layers[layer].samples, traffic.layers[layer].samples);
  }
}

TEST(TrafficFile, NamesThePlaceOfEveryMistake) {
  const std::string good =
      R"({"model":"m","experts":3,"top_k":2,"layers":[{"dispatch":[[2,1,1]],"samples":[[[0,1],[0,2]]]}]})";
  EXPECT_NO_THROW(parse_traffic(good, "t"));
  const auto broken = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return thrown_by([&] { parse_traffic(text, "t.json"); });
  };
  EXPECT_NE(broken("[[2,1,1]]", "[[2,1]]").find("t.json: layers[0].dispatch[0]: has 2 counts"),
            std::string::npos);
  EXPECT_NE(broken("[[2,1,1]]", "[[9,1,1]]").find("disagree with top_k"), std::string::npos);
  EXPECT_NE(broken("[[2,1,1]]", "[[-2,1,1]]").find("dispatch[0][0]"), std::string::npos);
  EXPECT_NE(broken("[[2,1,1]]", "[[2,2,1]]").find("not a multiple of top_k"), std::string::npos);
  EXPECT_NE(broken(R"("experts":3)", R"("experts":4,"experts":3)").find("given twice"), std::string::npos);
  EXPECT_NE(broken("[0,1]", "[0,0]").find("names expert 0 twice"), std::string::npos);
  EXPECT_NE(broken("[0,1]", "[0,1,2]").find("top_k = 2"), std::string::npos);
  EXPECT_NE(broken("[0,1]", "[0,3]").find("3 is outside 0..2"), std::string::npos);
  EXPECT_NE(broken(R"("top_k":2)", R"("top_k":4)").find("top_k: 4 is outside 1..3"), std::string::npos);
  EXPECT_NE(broken(R"("top_k")", R"("topk")").find("did you mean"), std::string::npos);
  EXPECT_NE(thrown_by([] { read_traffic_file("/nonexistent/t.json"); }).find("/nonexistent/t.json"),
            std::string::npos);
}

TEST(PlanFiles, SurviveRandomMutations) {
  const std::vector<std::string> seeds = {plan_text(random_plan()), traffic_text(random_traffic())};
  std::mt19937 random(99);
  for (int round = 0; round < 4000; ++round) {
    std::string text = seeds[static_cast<std::size_t>(round % 2)];
    const int num_changes = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < num_changes; ++i)
      text[random() % text.size()] = "0123456789{}[],:\"-e.x"[random() % 21];
    if (round % 7 == 0) text.resize(random() % text.size());
    try {
      if (round % 2 == 0) {
        parse_plan(text, "mutated");
      } else {
        parse_traffic(text, "mutated");
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFormat) << error.what();
    }
  }
}

}  // namespace
}  // namespace aurora
