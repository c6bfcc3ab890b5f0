// Re-planning: drift, moves and decisions with expectations computed by hand, and the decision for small
// layers against all placements.
#include "scheduler/replan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "scheduler/layer_replan.h"
#include "scheduler/plan_move.h"
#include "scheduler/traffic_history.h"
#include "tests/scheduler/random_models.h"

namespace aurora {
namespace {

DeploymentPlan plan_of(int num_gpus, const std::vector<std::vector<int>>& gpu_of_expert_by_model) {
  DeploymentPlan plan;
  plan.num_gpus = num_gpus;
  for (std::size_t model = 0; model < gpu_of_expert_by_model.size(); ++model) {
    plan.models.push_back(
        {std::string(1, static_cast<char>('a' + model)), {placement_of(gpu_of_expert_by_model[model])}});
  }
  return plan;
}

/// One layer, top-1, 1000 bytes a token each way, no compute.
ModelTraffic plain_model(std::vector<std::vector<double>> dispatch, double expert_bytes) {
  ModelTraffic model;
  model.model = "a";
  model.num_experts = static_cast<int>(dispatch.front().size());
  model.top_k = 1;
  model.dispatch_bytes_per_token = 1000;
  model.combine_bytes_per_token = 1000;
  model.expert_bytes = expert_bytes;
  model.is_mean = true;
  model.layers = {{.dispatch = std::move(dispatch), .samples = {}}};
  return model;
}

TEST(Drift, IsTheTotalVariationDistanceLessWhatSamplesDifferByAnyway) {
  const std::vector<double> before{50, 50, 0, 0};
  const std::vector<double> after{25, 25, 25, 25};
  // Distance 1/2; joint popularities 3/8, 3/8, 1/8, 1/8 of 100 and 100 pairs.
  const double noise = 0.5 * std::sqrt(2 / std::numbers::pi * 0.02) *
                       (2 * std::sqrt(0.375 * 0.625) + 2 * std::sqrt(0.125 * 0.875));
  EXPECT_NEAR(noise, 0.09195, 1e-5);
  EXPECT_NEAR(layer_drift(before, after), 0.5 - noise, 1e-12);
  EXPECT_EQ(layer_drift(before, before), 0);
  EXPECT_EQ(layer_drift(before, std::vector<double>(4, 0)), 0) << "nothing is known";
}

TEST(Drift, OfSamplesFromOneDistributionIsNearNoneAndOfAnotherWorkloadIsLarge) {
  std::mt19937_64 random(7);
  const test::RandomModelArgs args{.num_experts = 64, .top_k = 6, .num_sources = 1, .tokens_per_source = 500};
  // The same popularity twice: split one layer's tokens.
  const LayerTraffic layer = test::random_layer(args, random);
  std::vector<double> first(64, 0), second(64, 0);
  for (std::size_t token = 0; token < 500; ++token) {
    for (const ExpertId expert : layer.samples[0][token]) (token < 250 ? first : second)[expert.value] += 1;
  }
  const LayerTraffic other = test::random_layer(args, random);
  EXPECT_LT(layer_drift(first, second), 0.02);
  EXPECT_GT(layer_drift(first, other.dispatch[0]), 0.2);
}

TEST(TrafficHistory, CountsOfAHalfLifeAgoWeighHalf) {
  TrafficHistory history({plain_model({{0, 0}}, 1)}, 1, 10);
  const auto window = [](double a, double b) {
    return std::vector<std::vector<LayerTraffic>>{{{.dispatch = {{a, b}}, .samples = {{}}}}};
  };
  history.add(window(100, 20), 10);
  EXPECT_EQ(history.mean_step()[0].layers[0].dispatch[0], (std::vector<double>{10, 2}));
  history.add(window(0, 40), 10);
  // (100 / 2 + 0) / (10 / 2 + 10) and (20 / 2 + 40) / 15.
  EXPECT_NEAR(history.mean_step()[0].layers[0].dispatch[0][0], 50.0 / 15, 1e-12);
  EXPECT_NEAR(history.mean_step()[0].layers[0].dispatch[0][1], 50.0 / 15, 1e-12);
  EXPECT_EQ(history.window_counts()[0][0], (std::vector<double>{0, 40}));
  history.forget_older();
  EXPECT_EQ(history.mean_step()[0].layers[0].dispatch[0], (std::vector<double>{0, 4}));
  EXPECT_EQ(history.counts()[0][0], (std::vector<double>{0, 40}));
}

TEST(TrafficHistory, MeansOfWholeTokensAreValidTraffic) {
  // Three tokens of two experts each in two steps: 1.5 tokens a step, though all counts are whole.
  ModelTraffic model = plain_model({{0, 0, 0}}, 1);
  model.top_k = 2;
  model.is_mean = false;
  TrafficHistory history({model}, 1, 10);
  history.add(std::vector<std::vector<LayerTraffic>>{{{.dispatch = {{2, 2, 2}}, .samples = {{}}}}}, 2);
  EXPECT_NO_THROW(validate(history.mean_step()[0]));
}

TEST(TrafficHistory, KeepsTheLatestSamples) {
  TrafficHistory history({plain_model({{0, 0}}, 1)}, 1, 10);
  LayerTraffic layer{.dispatch = {{1, 1}}, .samples = {{}}};
  layer.samples[0].assign(TrafficHistory::kMaxSamples, {ExpertId{0}});
  history.add(std::vector<std::vector<LayerTraffic>>{{layer}}, 1);
  layer.samples[0].assign(TrafficHistory::kMaxSamples / 2, {ExpertId{1}});
  history.add(std::vector<std::vector<LayerTraffic>>{{layer}}, 1);
  const std::vector<ModelTraffic> models = history.mean_step();
  const auto& kept = models[0].layers[0].samples[0];
  ASSERT_EQ(kept.size(), TrafficHistory::kMaxSamples);
  const auto num_late = std::ranges::count(kept, std::vector<ExpertId>{ExpertId{1}});
  EXPECT_EQ(num_late, TrafficHistory::kMaxSamples / 2);
}

TEST(PlanMove, OnlyCopiesThatAreNewTravelAndTheFreestHolderSends) {
  DeploymentPlan current = plan_of(3, {{0, 0, 1}});
  current.models[0].layers[0].experts[0] = {{GpuId{0}, 0.5}, {GpuId{1}, 0.5}};
  DeploymentPlan next = plan_of(3, {{2, 2, 1}});
  next.models[0].layers[0].experts[2] = {{GpuId{1}, 0.5}, {GpuId{2}, 0.5}};
  const ModelTraffic model = plain_model({{0, 0, 0}}, 600);
  const std::vector<ExpertTransfer> transfers =
      transfers_between(current, next, {&model, 1}, uniform_cluster(3, 8));
  // Expert 0 has two holders alike: the lower. Expert 1 has GPU 0 alone, expert 2 GPU 1.
  EXPECT_EQ(transfers,
            (std::vector<ExpertTransfer>{
                {0, 0, {0}, {0}, {2}, 600}, {0, 0, {1}, {0}, {2}, 600}, {0, 0, {2}, {1}, {2}, 600}}));
  // The other way round: expert 0 to GPUs 0 and 1 from 2, expert 1 to 0, expert 2 stays.
  EXPECT_EQ(transfers_between(next, current, {&model, 1}, uniform_cluster(3, 8)).size(), 3U);
  EXPECT_TRUE(transfers_between(next, next, {&model, 1}, uniform_cluster(3, 8)).empty());
  // Had GPU 0 to send expert 1 first, expert 0 would come from GPU 1.
  current.models[0].layers[0].experts = {
      {{GpuId{0}, 1}}, {{GpuId{0}, 0.5}, {GpuId{1}, 0.5}}, {{GpuId{1}, 1}}};
  const auto shared = transfers_between(current, next, {&model, 1}, uniform_cluster(3, 8));
  EXPECT_EQ(shared[0].source, GpuId{0});
  EXPECT_EQ(shared[1].source, GpuId{1});
}

TEST(PlanMove, TheBusiestSideOfAPortDecidesItsTime) {
  ClusterSpec cluster = uniform_cluster(3, 8);  // 1000 bytes per microsecond
  cluster.gpus[2].port_gbps = 4;                // 500
  const std::vector<ExpertTransfer> transfers{
      {0, 0, {0}, {0}, {1}, 3000}, {0, 0, {1}, {0}, {2}, 2000}, {0, 0, {2}, {1}, {2}, 1000}};
  // GPU 0 sends 5000 in 5 us, GPU 1 receives in 3 us, GPU 2 receives 3000 in 6 us.
  EXPECT_DOUBLE_EQ(move_time_us(transfers, cluster), 6);
  EXPECT_EQ(move_time_us({}, cluster), 0);
}

TEST(PlanMove, PartsKeepTheBudgetOfBothEnds) {
  using Part = PacedMove::Part;
  PacedMove move({{0, 0, {0}, {0}, {1}, 10}, {0, 0, {1}, {0}, {2}, 10}, {0, 0, {2}, {2}, {1}, 10}}, 3, 6);
  EXPECT_EQ(move.next_step(), (std::vector<Part>{{0, 0, 6}}));
  EXPECT_EQ(move.next_step(), (std::vector<Part>{{0, 6, 4}, {1, 0, 2}, {2, 0, 2}}));
  EXPECT_EQ(move.next_step(), (std::vector<Part>{{1, 2, 6}, {2, 2, 6}}));
  EXPECT_FALSE(move.is_done());
  EXPECT_EQ(move.next_step(), (std::vector<Part>{{1, 8, 2}, {2, 8, 2}}));
  EXPECT_TRUE(move.is_done());
  EXPECT_TRUE(move.next_step().empty());
  EXPECT_TRUE(PacedMove({}, 3, 6).is_done());
  EXPECT_THROW(PacedMove({}, 3, 0), std::invalid_argument);
}

TEST(PlanMove, EveryByteTravelsOnceUnderAnyBudget) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 50; ++round) {
    std::vector<ExpertTransfer> transfers;
    for (int index = 0; index < 12; ++index) {
      const auto from = static_cast<std::int32_t>(random() % 4);
      const auto to = static_cast<std::int32_t>((from + 1 + random() % 3) % 4);
      transfers.push_back({0, 0, {index}, {from}, {to}, static_cast<Bytes>(1 + random() % 1000)});
    }
    const auto budget = static_cast<Bytes>(1 + random() % 400);
    PacedMove move(transfers, 4, budget);
    std::vector<Bytes> moved(transfers.size(), 0);
    for (auto parts = move.next_step(); !parts.empty(); parts = move.next_step()) {
      std::vector<Bytes> sent(4, 0), received(4, 0);
      for (const PacedMove::Part& part : parts) {
        ASSERT_EQ(part.offset, moved[part.transfer_index]);
        ASSERT_GT(part.bytes, 0);
        moved[part.transfer_index] += part.bytes;
        sent[transfers[part.transfer_index].source.value] += part.bytes;
        received[transfers[part.transfer_index].destination.value] += part.bytes;
      }
      for (int gpu = 0; gpu < 4; ++gpu) {
        ASSERT_LE(sent[gpu], budget);
        ASSERT_LE(received[gpu], budget);
      }
    }
    ASSERT_TRUE(move.is_done());
    for (std::size_t index = 0; index < transfers.size(); ++index)
      ASSERT_EQ(moved[index], transfers[index].bytes);
  }
}

/// Two GPUs with ports of 1000 bytes per microsecond; each source sends 100 tokens to an expert of the other,
/// so that dispatch and combine take 100 us each. Both gone when experts 0 and 2 change places, each of
/// 1000 us on a port.
struct Crossed {
  ClusterSpec cluster = uniform_cluster(2, 8);
  DeploymentPlan current = plan_of(2, {{0, 0, 1, 1}});
  ModelTraffic traffic = plain_model({{0, 0, 100, 0}, {100, 0, 0, 0}}, 1e6);

  Replan plan(double horizon_steps) const {
    return replan({.current = &current,
                   .traffic = {&traffic, 1},
                   .cluster = &cluster,
                   .horizon_steps = horizon_steps,
                   .placement = {}});
  }
};

TEST(Replan, MovesWhatPaysWithinTheHorizon) {
  const Crossed crossed;
  // Both moves at once take 1000 us and save 200 us a step.
  const Replan found = crossed.plan(6);
  EXPECT_DOUBLE_EQ(found.before_us, 200);
  EXPECT_DOUBLE_EQ(found.after_us, 0);
  EXPECT_DOUBLE_EQ(found.move_us, 1000);
  EXPECT_DOUBLE_EQ(found.payback_steps(), 5);
  EXPECT_TRUE(found.pays(6));
  EXPECT_FALSE(found.pays(4.9));
  EXPECT_EQ(found.transfers.size(), 2U);
  EXPECT_EQ(found.plan.epoch, crossed.current.epoch + 1);
  // Experts 1 and 3 get no tokens and stay where they are.
  EXPECT_EQ(found.plan.models[0].layers[0], placement_of({1, 0, 0, 1}));
}

TEST(Replan, StaysWhereTheHorizonIsTooShort) {
  const Crossed crossed;
  const Replan found = crossed.plan(4);
  EXPECT_EQ(found.plan.models[0].layers[0], crossed.current.models[0].layers[0]);
  EXPECT_TRUE(found.transfers.empty());
  EXPECT_EQ(found.num_layers_changed, 0);
  EXPECT_FALSE(found.pays(4));
  EXPECT_FALSE(found.pays(1e9)) << "nothing changes";
}

TEST(Replan, DecidesLayerByLayer) {
  Crossed crossed;
  // The second layer carries a tenth of the traffic: its moves would take 50 steps.
  crossed.traffic.layers.push_back({.dispatch = {{0, 0, 10, 0}, {10, 0, 0, 0}}, .samples = {}});
  crossed.current.models[0].layers.push_back(placement_of({0, 0, 1, 1}));
  const Replan found = crossed.plan(20);
  EXPECT_EQ(found.plan.models[0].layers[0], placement_of({1, 0, 0, 1}));
  EXPECT_EQ(found.plan.models[0].layers[1], placement_of({0, 0, 1, 1}));
  EXPECT_EQ(found.num_layers_changed, 1);
  EXPECT_DOUBLE_EQ(found.gain_us(), 200);
}

TEST(Replan, StagesTakeTheLayersThatGainMostForTheirBytesFirst) {
  Crossed crossed;
  for (const double tokens : {50.0, 200.0, 30.0}) {
    crossed.traffic.layers.push_back({.dispatch = {{0, 0, tokens, 0}, {tokens, 0, 0, 0}}, .samples = {}});
    crossed.current.models[0].layers.push_back(placement_of({0, 0, 1, 1}));
  }
  const ReplanArgs args{.current = &crossed.current,
                        .traffic = {&crossed.traffic, 1},
                        .cluster = &crossed.cluster,
                        .horizon_steps = 100,
                        .placement = {}};
  const Replan whole = replan(args);
  EXPECT_DOUBLE_EQ(whole.before_us, 2 * (100 + 50 + 200 + 30));
  EXPECT_EQ(whole.num_layers_changed, 4);
  // An expert of 1e6 bytes to each side in every layer: two layers a stage. Layers 2 and 0 gain 400 and 200
  // us.
  const std::vector<Replan> stages = in_stages(whole, args, 2000000);
  ASSERT_EQ(stages.size(), 2U);
  EXPECT_DOUBLE_EQ(stages[0].before_us, 760);
  EXPECT_DOUBLE_EQ(stages[0].after_us, 160);
  EXPECT_DOUBLE_EQ(stages[0].move_us, 2000);
  EXPECT_EQ(stages[0].transfers.size(), 4U);
  EXPECT_EQ(stages[0].plan.models[0].layers[1], crossed.current.models[0].layers[1]);
  EXPECT_DOUBLE_EQ(stages[1].before_us, 160);
  EXPECT_DOUBLE_EQ(stages[1].after_us, 0);
  EXPECT_EQ(stages[1].plan.models, whole.plan.models);
  EXPECT_EQ(stages[1].plan.epoch, crossed.current.epoch + 2);
  // A layer that exceeds the bytes by itself has a stage of its own.
  EXPECT_EQ(in_stages(whole, args, 1).size(), 4U);
  EXPECT_EQ(in_stages(whole, args, 4000000).size(), 1U);
}

TEST(Replan, TooSmallAGainIsNoise) {
  Replan replan;
  replan.num_layers_changed = 1;
  replan.before_us = 1000;
  replan.after_us = 980;
  EXPECT_FALSE(replan.pays(1e9)) << "two percent";
  replan.after_us = 960;
  EXPECT_TRUE(replan.pays(1e9));
  replan.move_us = 2000;
  EXPECT_TRUE(replan.pays(50));
  EXPECT_FALSE(replan.pays(49));
}

TEST(Replan, CopiesStayWithinTheBudgetAndFollowTheHotExpert) {
  // All tokens of both other sources go to one expert of GPU 0, then of GPU 1: its port is the bottleneck.
  const ClusterSpec cluster = uniform_cluster(3, 8);
  const DeploymentPlan start = plan_of(3, {{0, 1, 2}});
  const auto hot = [](int expert) {
    std::vector<std::vector<double>> dispatch(3, std::vector<double>(3, 1));
    for (auto& source : dispatch) source[expert] = 100;
    return plain_model(std::move(dispatch), 1000);
  };
  PlacementOptions options;
  options.num_replicas = 1;
  const auto num_copies = [](const DeploymentPlan& plan) {
    std::size_t count = 0;
    for (const auto& replicas : plan.models[0].layers[0].experts) count += replicas.size();
    return count;
  };
  const ModelTraffic first = hot(0);
  const Replan one = replan({&start, {&first, 1}, &cluster, 1000, options});
  EXPECT_TRUE(one.pays(1000));
  EXPECT_EQ(num_copies(one.plan), 4U);
  EXPECT_EQ(one.plan.models[0].layers[0].experts[0].size(), 2U);
  const ModelTraffic second = hot(1);
  const Replan two = replan({&one.plan, {&second, 1}, &cluster, 1000, options});
  EXPECT_TRUE(two.pays(1000));
  EXPECT_EQ(num_copies(two.plan), 4U) << "the copy of the expert that is hot no more makes room";
  EXPECT_EQ(two.plan.models[0].layers[0].experts[1].size(), 2U);
}

/// What the header of replan.h weighs, by the closed form and for one model without copies.
double weighed_us(const LayerProblem& problem, const std::vector<int>& before, const std::vector<int>& after,
                  double horizon) {
  double cost = horizon * layer_time_us(problem, Assignment{after});
  for (std::size_t expert = 0; expert < before.size(); ++expert) {
    if (before[expert] == after[expert]) continue;
    const double port = problem.cluster->gpus[after[expert]].port_gbps * kBytesPerUsOfGbps;
    cost += problem.models[0]->expert_bytes / port / problem.num_gpus();
  }
  return cost;
}

TEST(LayerReplan, ComesCloseToTheBestOfAllPlacements) {
  std::mt19937_64 random(5);
  double sum_of_ratios = 0;
  constexpr int kRounds = 60;
  for (int round = 0; round < kRounds; ++round) {
    const ClusterSpec cluster = test::test_cluster(3, round % 2 == 1);
    ModelTraffic model =
        test::random_model({.num_experts = 6, .top_k = 2, .num_sources = 3, .tokens_per_source = 60}, random);
    model.expert_bytes = 1e6;  // 80 us on a port of 100 Gbit/s
    const std::vector<ModelTraffic> models{model};
    LayerProblem problem = layer_problems(models, cluster)[0];
    std::vector<int> current(6);
    for (int& gpu : current) gpu = static_cast<int>(random() % 3);
    const double horizon = std::pow(10.0, static_cast<double>(random() % 4));
    double best = std::numeric_limits<double>::infinity();
    for (int code = 0; code < 729; ++code) {
      std::vector<int> candidate;
      for (int rest = code, expert = 0; expert < 6; ++expert, rest /= 3) candidate.push_back(rest % 3);
      best = std::min(best, weighed_us(problem, current, candidate, horizon));
    }
    LayerReplan search({.problem = &problem,
                        .current = {placement_of(current)},
                        .horizon_steps = horizon,
                        .placement = {.search_evaluations = 5000}});
    search.consider_search();
    const std::vector<LayerPlacement> best_found = search.take_best();
    std::vector<int> found;
    for (const auto& replicas : best_found[0].experts) found.push_back(replicas.front().gpu.value);
    const double cost = weighed_us(problem, current, found, horizon);
    ASSERT_LE(cost, weighed_us(problem, current, current, horizon) * (1 + 1e-9)) << "round " << round;
    ASSERT_GE(cost, best * (1 - 1e-9));
    sum_of_ratios += cost / best;
  }
  EXPECT_LT(sum_of_ratios / kRounds, 1.02) << "mean over the best";
}

}  // namespace
}  // namespace aurora
