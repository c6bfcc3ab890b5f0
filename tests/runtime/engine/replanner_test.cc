// The leader of moves by itself: which orders two ranks get that route what a test says.
#include "runtime/replanner.h"

#include <gtest/gtest.h>

#include "runtime/executor/traffic_recorder.h"
#include "runtime/plan_io/plan_file.h"
#include "scheduler/placement_problem.h"

namespace aurora {
namespace {

using Kind = MoveOrder::Kind;

/// Two ranks with ports of 1000 bytes per microsecond, one layer of four experts of 1e6 bytes, top-1: experts
/// 0 and 1 on rank 0. Rank 0 sends 100 tokens a step to one expert and rank 1 to another.
class TwoRanks {
 public:
  explicit TwoRanks(ReplanMode mode) {
    ReplannerArgs args;
    args.options.mode = mode;
    args.options.interval_steps = 5;
    args.options.half_life_steps = 10;
    args.options.bytes_per_step = 10000;  // of the 1e6 that each rank receives
    args.options.plans_in_background = false;
    ModelTraffic model;
    model.model = "a";
    model.num_experts = 4;
    model.top_k = 1;
    model.dispatch_bytes_per_token = 1000;
    model.combine_bytes_per_token = 1000;
    model.expert_bytes = 1e6;
    model.layers.resize(1);
    args.models = {model};
    args.is_recorded = {false};
    args.cluster = uniform_cluster(2, 8);
    args.plan.num_gpus = 2;
    args.plan.models = {{"a", {placement_of({0, 0, 1, 1})}}};
    replanner.emplace(std::move(args));
  }

  /// One step; what the ranks are told about a move.
  MoveOrder step(std::int32_t expert_of_rank0, std::int32_t expert_of_rank1) {
    StepCommand command;
    replanner->instruct(command);
    windows_[0].record(0, std::vector<std::int32_t>(100, expert_of_rank0));
    windows_[1].record(0, std::vector<std::int32_t>(100, expert_of_rank1));
    std::vector<StepReply> replies(2);
    for (std::size_t rank = 0; rank < 2 && command.wants_traffic; ++rank) {
      ByteWriter writer;
      windows_[rank].serialize(writer);
      windows_[rank].clear();
      replies[rank].traffic = {{{writer.bytes().begin(), writer.bytes().end()}}, device};
    }
    replanner->absorb(replies, 0.001);
    return command.move;
  }
  Kind kind_of_step(std::int32_t expert_of_rank0, std::int32_t expert_of_rank1) {
    return step(expert_of_rank0, expert_of_rank1).kind;
  }

  std::optional<Replanner> replanner;
  DeviceMemory device;  // of both ranks each

 private:
  std::vector<TrafficRecorder> windows_{{1, 4, 1}, {1, 4, 1}};
};

TEST(Replanner, LeadsTheRanksFromLookToSwitch) {
  TwoRanks ranks(ReplanMode::kInterval);
  for (int step = 1; step <= 5; ++step) EXPECT_EQ(ranks.kind_of_step(2, 0), Kind::kNone);
  const MoveOrder order = ranks.step(2, 0);
  ASSERT_EQ(order.kind, Kind::kPrepare);
  EXPECT_EQ(parse_plan(order.plan, "order").models[0].layers[0], placement_of({1, 0, 0, 1}));
  EXPECT_EQ(order.transfers.size(), 2U);
  for (int part = 0; part < 100; ++part) ASSERT_EQ(ranks.kind_of_step(2, 0), Kind::kTransfer) << part;
  EXPECT_EQ(ranks.kind_of_step(2, 0), Kind::kSwitch);
  EXPECT_EQ(ranks.kind_of_step(2, 0), Kind::kNone);
  for (int step = 0; step < 10; ++step) ranks.step(2, 0);
  const ReplanReport report = ranks.replanner->report();
  ASSERT_EQ(report.switches.size(), 1U);
  const PlanSwitch& change = report.switches[0];
  EXPECT_EQ(change.decided_step, 6);
  EXPECT_EQ(change.switched_step, 107);
  EXPECT_EQ(change.bytes_moved, 2000000);
  EXPECT_DOUBLE_EQ(change.predicted_before_us, 200);
  EXPECT_DOUBLE_EQ(change.predicted_after_us, 0);
  EXPECT_DOUBLE_EQ(change.since_before_us, 200);
  EXPECT_DOUBLE_EQ(change.since_after_us, 0);
  EXPECT_DOUBLE_EQ(change.measured_before_us_per_token, 5);  // 1 ms for 200 tokens
}

TEST(Replanner, AMoveForTrafficThatIsNoMoreIsGivenUpForABetterOne) {
  for (const ReplanMode mode : {ReplanMode::kInterval, ReplanMode::kDrift}) {
    TwoRanks ranks(mode);
    for (int step = 1; step <= 20; ++step) ranks.step(2, 0);
    for (int step = 21; step <= 25; ++step) EXPECT_EQ(ranks.kind_of_step(3, 1), Kind::kTransfer);
    EXPECT_EQ(ranks.kind_of_step(3, 1), Kind::kAbandon);
    const MoveOrder order = ranks.step(3, 1);
    ASSERT_EQ(order.kind, Kind::kPrepare) << replan_mode_name(mode);
    EXPECT_EQ(parse_plan(order.plan, "order").models[0].layers[0], placement_of({0, 1, 1, 0}));
    EXPECT_TRUE(ranks.replanner->report().switches.empty());
  }
}

TEST(Replanner, DriftModePlansOnceWhileTrafficStays) {
  TwoRanks ranks(ReplanMode::kDrift);
  for (int step = 1; step <= 200; ++step) ranks.step(0, 2);  // at home already
  EXPECT_EQ(ranks.replanner->report().num_looks, 40);
  EXPECT_EQ(ranks.replanner->report().num_evaluations, 1);
  for (int step = 1; step <= 5; ++step) ranks.step(3, 1);
  EXPECT_EQ(ranks.replanner->report().num_evaluations, 2);
  EXPECT_GT(ranks.replanner->report().last_drift, 0.1);
}

TEST(Replanner, AMoveThatDoesNotFitIsNotBegun) {
  TwoRanks ranks(ReplanMode::kInterval);
  ranks.device = {"gpu", 1999999, 80000000,
                  0};  // one byte less than both experts, on a device that is shared
  for (int step = 1; step <= 12; ++step) EXPECT_EQ(ranks.kind_of_step(2, 0), Kind::kNone);
  const ReplanReport report = ranks.replanner->report();
  EXPECT_EQ(report.failed_moves.size(), 2U);
  EXPECT_TRUE(report.switches.empty());
}

}  // namespace
}  // namespace aurora
