// The planned rows of a trace against timelines worked out by hand.
#include "runtime/planned_timeline.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace aurora {
namespace {

/// One layer on two GPUs, expert g on GPU g. In ten steps each GPU's 20 tokens all go to the other GPU's
/// expert: 2 in a mean step. A token costs 3 us of gate and attention, 5 us of expert, 1 us of aggregation,
/// and 100 bytes each way through ports of 0.8 Gbit/s, 100 bytes per us.
struct Crossing {
  explicit Crossing(const std::string& name) {
    traffic.model = name;
    traffic.num_experts = 2;
    traffic.top_k = 1;
    traffic.dispatch_bytes_per_token = 100;
    traffic.combine_bytes_per_token = 100;
    traffic.attention_us = 2;
    traffic.gate_us = 1;
    traffic.expert_us_per_token = 5;
    traffic.aggregate_us = 1;
    traffic.layers = {{.dispatch = {{0, 20}, {20, 0}}, .samples = {}}};
    placement = {name, {{.experts = {{{GpuId{0}}}, {{GpuId{1}}}}}}};
  }
  ModelTraffic traffic;
  ModelPlacement placement;
};

std::vector<PlannedSpan> planned(const std::vector<Crossing>& models, Schedule schedule,
                                 const FabricModel* fabric = nullptr) {
  DeploymentPlan plan;
  plan.num_gpus = 2;
  std::vector<ModelTraffic> traffic;
  for (const Crossing& model : models) {
    plan.models.push_back(model.placement);
    traffic.push_back(model.traffic);
  }
  const std::vector<std::int64_t> steps(models.size(), 10);
  return planned_timeline({.plan = &plan,
                           .traffic = traffic,
                           .num_steps = steps,
                           .cluster = uniform_cluster(2, 0.8),
                           .schedule = schedule,
                           .fabric = fabric});
}

double end_of(const std::vector<PlannedSpan>& spans) {
  return std::ranges::max(spans, {}, &PlannedSpan::end_us).end_us;
}

TEST(PlannedTimeline, IsThatOfAMeanStep) {
  const auto spans = planned({Crossing("a")}, Schedule::kSerial);
  ASSERT_EQ(spans.size(), 10U) << "five phases on two GPUs";
  const auto expect = [&](Phase phase, double start_us, double end_us) {
    for (const PlannedSpan& span : spans) {
      if (span.phase != phase) continue;
      EXPECT_NEAR(span.start_us, start_us, 1e-6) << phase_name(phase);
      EXPECT_NEAR(span.end_us, end_us, 1e-6) << phase_name(phase);
      EXPECT_EQ(span.model_index, 0);
      EXPECT_EQ(span.layer, 0);
    }
  };
  expect(Phase::kGate, 0, 6);
  expect(Phase::kDispatch, 6, 8);
  expect(Phase::kExperts, 8, 18);
  expect(Phase::kCombine, 18, 20);
  expect(Phase::kAggregation, 20, 22);
}

TEST(PlannedTimeline, ExchangesTakeWhatTheFabricIsKnownToTake) {
  FabricModel fabric;
  fabric.start_us = 3;
  for (const PlannedSpan& span : planned({Crossing("a")}, Schedule::kSerial, &fabric)) {
    const bool is_exchange = span.phase == Phase::kDispatch || span.phase == Phase::kCombine;
    if (!is_exchange) continue;
    EXPECT_NEAR(span.end_us - span.start_us, 2 + 3, 1e-6) << phase_name(span.phase);
  }
  EXPECT_NEAR(end_of(planned({Crossing("a")}, Schedule::kSerial, &fabric)), 22 + 2 * 3, 1e-6);
}

TEST(PlannedTimeline, RunsModelsOneAfterTheOtherOrTogether) {
  const std::vector<Crossing> models = {Crossing("a"), Crossing("b")};
  EXPECT_NEAR(end_of(planned(models, Schedule::kSerial)), 44, 1e-6);
  // Gates 0..6 and 6..12, experts 12..22 and 22..32, of which the exchanges are hidden, aggregations 32..34
  // and 34..36: N^a, 6..8, N^b, 12..14, C^a, 22..24, C^b, 32..34. But the experts of a are ready at 8, when
  // the gate of b computes until 12, since no computation is interrupted.
  EXPECT_NEAR(end_of(planned(models, Schedule::kColocated)), 36, 1e-6);
}

TEST(PlannedTimeline, CutsAStepInHalvesThatOverlap) {
  const auto spans = planned({Crossing("a")}, Schedule::kTwoBatch);
  EXPECT_EQ(spans.size(), 20U);
  // Half the work each: gates 0..3 and 3..6, experts 6..11 and 11..16, aggregations 16..17 and 17..18.
  EXPECT_NEAR(end_of(spans), 18, 1e-6);
}

TEST(PlannedTimeline, LeavesOutModelsThatNeverStepped) {
  const Crossing a("a");
  const Crossing b("b");
  DeploymentPlan plan;
  plan.num_gpus = 2;
  plan.models = {a.placement, b.placement};
  const std::vector<ModelTraffic> traffic = {a.traffic, b.traffic};
  const std::vector<std::int64_t> steps = {0, 10};
  const auto spans = planned_timeline({.plan = &plan,
                                       .traffic = traffic,
                                       .num_steps = steps,
                                       .cluster = uniform_cluster(2, 0.8),
                                       .schedule = Schedule::kColocated});
  EXPECT_EQ(spans.size(), 10U);
  for (const PlannedSpan& span : spans) EXPECT_EQ(span.model_index, 1);
}

}  // namespace
}  // namespace aurora
