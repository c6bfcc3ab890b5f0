// Shares of turns, counted in steps.
#include "runtime/turn_planner.h"

#include <gtest/gtest.h>

#include <random>

namespace aurora {
namespace {

constexpr std::int64_t kManyTokens = 1'000'000;

ModelDemand decoding(std::int64_t tokens) {
  return {.num_requests = tokens,
          .most_requests = tokens,
          .decode_tokens = tokens,
          .prefill_tokens = 0,
          .remaining_tokens = kManyTokens};
}

ModelDemand reading(std::int64_t tokens) {
  return {.num_requests = 1,
          .most_requests = 1,
          .decode_tokens = 0,
          .prefill_tokens = tokens,
          .remaining_tokens = kManyTokens};
}

ModelTraits traits(double weight, std::int64_t max_batch_tokens = 512) {
  return {.weight = weight, .parameters_per_token = 1e6, .max_batch_tokens = max_batch_tokens};
}

/// Steps of each model over `num_turns` turns of the same demands.
std::vector<std::int64_t> steps_over(TurnPlanner& planner, const std::vector<ModelDemand>& demands,
                                     int num_turns) {
  std::vector<std::int64_t> steps(demands.size(), 0);
  for (int turn = 0; turn < num_turns; ++turn) {
    for (const TurnShare& share : planner.plan(demands)) {
      steps[static_cast<std::size_t>(share.model_index)] += share.num_steps;
    }
  }
  return steps;
}

TEST(TurnPlanner, ModelsAlikeStepInTurn) {
  TurnPlanner planner({traits(1), traits(1)}, Schedule::kColocated);
  EXPECT_EQ(steps_over(planner, {decoding(8), decoding(8)}, 100), (std::vector<std::int64_t>{100, 100}));
}

TEST(TurnPlanner, StepsOfLikeWorkAreInTheProportionOfTheWeights) {
  TurnPlanner planner({traits(2), traits(3), traits(7)}, Schedule::kColocated);
  const auto steps = steps_over(planner, {decoding(5), decoding(5), decoding(5)}, 100);
  EXPECT_EQ(steps[0], 100);
  EXPECT_NEAR(static_cast<double>(steps[1]), 150, 1);
  EXPECT_NEAR(static_cast<double>(steps[2]), 350, 1);
}

/// Work is tokens plus the fixed ones, the same for both models: 48 + 16 against 0 + 16.
TEST(TurnPlanner, SmallStepsAreTakenInTheTimeOfALargeOne) {
  constexpr std::int64_t kLarge = 3 * TurnPlanner::kFixedTokens;
  TurnPlanner planner({traits(1), traits(1)}, Schedule::kColocated);
  ModelDemand tiny = decoding(1);
  tiny.decode_tokens = 0;
  EXPECT_EQ(steps_over(planner, {decoding(kLarge), tiny}, 50), (std::vector<std::int64_t>{50, 200}));
}

TEST(TurnPlanner, WorkOfRandomModelsFollowsTheirWeights) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 200; ++trial) {
    SCOPED_TRACE("seed 7, trial " + std::to_string(trial));
    std::vector<ModelTraits> models;
    std::vector<ModelDemand> demands;
    std::vector<double> work;
    for (int model = 0; model < 3; ++model) {
      // Ratios that the limit of steps in a turn does not cut.
      models.push_back({.weight = 1 + static_cast<double>(random() % 100) / 100,
                        .parameters_per_token = 1e6 * (1 + static_cast<double>(random() % 100) / 100),
                        .max_batch_tokens = 512});
      demands.push_back(decoding(1 + static_cast<std::int64_t>(random() % 8)));
      work.push_back(models.back().parameters_per_token *
                     static_cast<double>(demands.back().decode_tokens + TurnPlanner::kFixedTokens));
    }
    TurnPlanner planner(models, Schedule::kColocated);
    constexpr int kTurns = 300;
    const auto steps = steps_over(planner, demands, kTurns);
    // Received over weight is the same for all, to within the work of one step of each.
    for (std::size_t a = 0; a < 3; ++a) {
      for (std::size_t b = 0; b < 3; ++b) {
        const double of_a = static_cast<double>(steps[a]) * work[a] / models[a].weight;
        const double of_b = static_cast<double>(steps[b]) * work[b] / models[b].weight;
        EXPECT_LE(std::abs(of_a - of_b), work[a] / models[a].weight + work[b] / models[b].weight);
      }
    }
  }
}

TEST(TurnPlanner, ChunksOfPromptsAreCutByWeight) {
  TurnPlanner planner({traits(1, 400), traits(4, 100)}, Schedule::kColocated);
  const auto shares = planner.plan(std::vector<ModelDemand>{reading(kManyTokens), decoding(1)});
  ASSERT_EQ(shares.size(), 2U);
  EXPECT_EQ(shares[0].most_prefill_tokens, 100);
  EXPECT_EQ(shares[1].most_prefill_tokens, 100);
}

TEST(TurnPlanner, AModelAloneHasItAll) {
  TurnPlanner planner({traits(1, 400), traits(4, 100)}, Schedule::kColocated);
  const auto shares = planner.plan(std::vector<ModelDemand>{reading(kManyTokens), {}});
  EXPECT_EQ(shares, (std::vector<TurnShare>{{0, 1, 1, 400}}));
  EXPECT_TRUE(planner.plan(std::vector<ModelDemand>(2)).empty());
}

TEST(TurnPlanner, NobodyTakesMoreStepsThanHaveAUse) {
  TurnPlanner planner({traits(1), traits(1)}, Schedule::kColocated);
  ModelDemand nearly_done = decoding(1);
  nearly_done.remaining_tokens = 2;
  const auto shares = planner.plan(std::vector<ModelDemand>{reading(kManyTokens), nearly_done});
  EXPECT_EQ(shares[1].num_steps, 2);
  const auto many = planner.plan(std::vector<ModelDemand>{reading(kManyTokens), decoding(1)});
  EXPECT_EQ(many[1].num_steps, kMostStepsOfTurn);
}

TEST(TurnPlanner, WhoHadNothingToDoSavesNothingUp) {
  TurnPlanner planner({traits(1), traits(1.5)}, Schedule::kColocated);
  const std::vector<ModelDemand> both = {decoding(1), decoding(1)};
  EXPECT_EQ(planner.plan(both)[1].num_steps, 1);  // half a step is left
  planner.plan(std::vector<ModelDemand>{decoding(1), {}});
  EXPECT_EQ(planner.plan(both)[1].num_steps, 1);
  EXPECT_EQ(planner.plan(both)[1].num_steps, 2);
}

TEST(TurnPlanner, OtherSchedulesTakeOneWholeStepOfEach) {
  const std::vector<ModelDemand> demands = {reading(kManyTokens), decoding(2)};
  for (const Schedule schedule : {Schedule::kSerial, Schedule::kExclusive}) {
    TurnPlanner planner({traits(1), traits(5)}, schedule);
    EXPECT_EQ(planner.plan(demands), (std::vector<TurnShare>{{0, 1, 1, 512}, {1, 1, 1, 512}}));
  }
}

TEST(TurnPlanner, ATurnOfDecodingIsSeveralSteps) {
  for (const Schedule schedule : kSchedules) {
    TurnPlanner planner({traits(1), traits(1)}, schedule, 4);
    EXPECT_EQ(steps_over(planner, {decoding(8), decoding(8)}, 10), (std::vector<std::int64_t>{40, 40}));
    EXPECT_EQ(steps_over(planner, {decoding(8), reading(8)}, 10)[1], 10);
    ModelDemand nearly_done = decoding(8);
    nearly_done.remaining_tokens = 3;
    EXPECT_EQ(steps_over(planner, {nearly_done}, 1), (std::vector<std::int64_t>{3}));
  }
}

/// Four rounds would be twelve steps of the second model; two are six.
TEST(TurnPlanner, SeveralStepsKeepTheWeights) {
  TurnPlanner planner({traits(1), traits(3)}, Schedule::kColocated, 4);
  EXPECT_EQ(steps_over(planner, {decoding(5), decoding(5)}, 10), (std::vector<std::int64_t>{20, 60}));
  TurnPlanner steep({traits(1), traits(7)}, Schedule::kColocated, 4);
  EXPECT_EQ(steps_over(steep, {decoding(5), decoding(5)}, 10), (std::vector<std::int64_t>{10, 70}));
}

TEST(TurnPlanner, TwoBatchSplitsWhereARankHasSomethingToSplit) {
  TurnPlanner planner({traits(1), traits(5)}, Schedule::kTwoBatch);
  const auto shares = planner.plan(std::vector<ModelDemand>{reading(kManyTokens), decoding(2)});
  EXPECT_EQ(shares, (std::vector<TurnShare>{{0, 1, 1, 512}, {1, 2, 1, 512}}));
}

TEST(TurnPlanner, ParametersAreThoseOfTheLayersThatATokenPasses) {
  ModelConfig config;
  config.num_layers = 3;
  config.is_moe_layer = {true, false, true};
  config.hidden = 10;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_width = 5;
  config.top_k = 2;
  config.expert_inner = 7;
  config.shared_expert_inner = 3;
  config.dense_inner = 11;
  config.vocabulary = 100;
  // q and o: 10 x 20, k and v: 10 x 10, in three layers; three matrices of 10 x (2 * 7 + 3) in two and of
  // 10 x 11 in one; 10 x 100 once.
  EXPECT_EQ(parameters_per_token(config), 3 * (2 * 200 + 2 * 100) + 3 * (2 * 170 + 110) + 1000);
}

}  // namespace
}  // namespace aurora
