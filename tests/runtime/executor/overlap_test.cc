// Report arithmetic against events that were added up by hand, and against a count nanosecond by nanosecond.
#include "runtime/executor/overlap.h"

#include <gtest/gtest.h>

#include <random>

namespace aurora {
namespace {

constexpr double kNs = 1e-9;

/// model 0:  compute 0..10, 30..40    exchange 10..30
/// model 1:  compute 12..20           exchange 20..35, 25..50
TEST(OverlapMeter, AddsUpATimelineWorkedOutByHand) {
  OverlapMeter meter(2);
  meter.add(0, Phase::kAttention, {0, 10});
  meter.add(0, Phase::kDispatch, {10, 30});
  meter.add(1, Phase::kGate, {12, 20});
  meter.add(1, Phase::kCounts, {20, 35});
  meter.add(1, Phase::kCombine, {25, 50});
  meter.add(0, Phase::kExperts, {30, 40});
  EXPECT_EQ(meter.totals(), std::vector<OverlapTotal>(3)) << "the turn has not ended";
  meter.end_turn();
  const auto expect = [&](std::size_t model, double compute, double exchange, double exposed) {
    EXPECT_DOUBLE_EQ(meter.totals()[model].compute_seconds, compute * kNs);
    EXPECT_DOUBLE_EQ(meter.totals()[model].exchange_seconds, exchange * kNs);
    EXPECT_DOUBLE_EQ(meter.totals()[model].exposed_seconds, exposed * kNs);
  };
  expect(0, 20, 20, 12);  // hidden: 12..20
  expect(1, 8, 30, 20);   // hidden: 30..40, under the other model's compute
  expect(2, 28, 40, 22);  // under way: 10..50
}

TEST(OverlapMeter, SumsTurnsAndKeepsThemApart) {
  OverlapMeter meter(1);
  meter.add(0, Phase::kDispatch, {0, 10});
  meter.end_turn();
  meter.add(0, Phase::kExperts, {5, 9});  // of another turn: hides nothing of the one before
  meter.end_turn();
  EXPECT_DOUBLE_EQ(meter.totals()[0].exposed_seconds, 10 * kNs);
  EXPECT_DOUBLE_EQ(meter.totals()[0].compute_seconds, 4 * kNs);
  meter.end_turn();
  EXPECT_DOUBLE_EQ(meter.totals()[1].exchange_seconds, 10 * kNs);
}

TEST(OverlapMeter, AgreesWithACountNanosecondByNanosecond) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 200; ++trial) {
    SCOPED_TRACE("seed 3, trial " + std::to_string(trial));
    constexpr std::int64_t kLength = 60;
    OverlapMeter meter(2);
    bool computes[3][kLength] = {};
    bool exchanges[3][kLength] = {};
    for (int i = 0; i < 12; ++i) {
      const std::size_t model = random() % 2;
      const auto phase = static_cast<Phase>(random() % kNumPhases);
      const auto start = static_cast<std::int64_t>(random() % kLength);
      const auto end = start + static_cast<std::int64_t>(random()) % (kLength - start + 1);
      meter.add(model, phase, {start, end});
      for (std::int64_t ns = start; ns < end; ++ns) {
        (is_exchange(phase) ? exchanges : computes)[model][ns] = true;
        (is_exchange(phase) ? exchanges : computes)[2][ns] = true;
      }
    }
    meter.end_turn();
    for (std::size_t model = 0; model < 3; ++model) {
      std::int64_t computed = 0;
      std::int64_t exchanged = 0;
      std::int64_t exposed = 0;
      for (std::int64_t ns = 0; ns < kLength; ++ns) {
        computed += computes[model][ns] ? 1 : 0;
        exchanged += exchanges[model][ns] ? 1 : 0;
        exposed += exchanges[model][ns] && !computes[2][ns] ? 1 : 0;
      }
      EXPECT_DOUBLE_EQ(meter.totals()[model].compute_seconds, static_cast<double>(computed) * kNs);
      EXPECT_DOUBLE_EQ(meter.totals()[model].exchange_seconds, static_cast<double>(exchanged) * kNs);
      EXPECT_DOUBLE_EQ(meter.totals()[model].exposed_seconds, static_cast<double>(exposed) * kNs);
    }
  }
}

}  // namespace
}  // namespace aurora
