// Predictions in closed form, and what auto makes of them.
#include "runtime/dispatch/fabric_model.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "kernels/backend_registry.h"
#include "runtime/dispatch/fabric_measurement.h"
#include "scheduler/makespan_bound.h"
#include "tests/support/rank_threads.h"

namespace aurora {
namespace {

Transfer transfer(int source, int destination, Bytes bytes) {
  return {GpuId{source}, GpuId{destination}, bytes};
}

const FabricModel kFabric{.chain = {{1000, 10}, {3000, 30}}, .group = {{2, 100, 1.5}, {4, 300, 2.5}}};

TEST(FabricModel, CostsBetweenTwoMeasurementsLieOnTheirLine) {
  EXPECT_EQ(kFabric.chain_extra_us(0), 10);
  EXPECT_EQ(kFabric.chain_extra_us(1000), 10);
  EXPECT_EQ(kFabric.chain_extra_us(2500), 25);
  EXPECT_EQ(kFabric.chain_extra_us(6000), 60) << "in proportion above the last";
  EXPECT_EQ(kFabric.group_cost(3).start_us, 200);
  EXPECT_EQ(kFabric.group_cost(3).stretch, 2);
  EXPECT_EQ(kFabric.group_cost(9).stretch, 2.5);
  EXPECT_EQ(FabricModel{}.chain_extra_us(5000), 0);
  EXPECT_EQ(FabricModel{}.group_cost(5).stretch, 1);
}

TEST(FabricModel, ALoneMessageTakesItsBytesAtTheSlowerPortAndItsExtraTime) {
  const std::array<double, 2> ports{10, 5};
  const TransmissionOrder order{.rounds = {{{transfer(0, 1, 1000)}}}};
  EXPECT_DOUBLE_EQ(predicted_exchange_us(order, ports, kFabric), 1000 / 5.0 + 10);
}

TEST(FabricModel, NeighbouringRoundsOverlapAndShareTheirPorts) {
  const std::array<double, 4> ports{10, 10, 10, 10};
  // In order: 0 -> 1 100 us, then 0 -> 2 300 us at ports of 10. Both are posted at once and share port 0:
  // after 200 us 0 -> 1 has ended and 0 -> 2 has 2000 bytes left: 400 us. 3 -> 2 is posted too: port 2 gives
  // it 5, too, all along, so it ends with its 1000 bytes after 200 us, like 0 -> 1.
  const TransmissionOrder order{
      .rounds = {{{transfer(0, 1, 1000), transfer(3, 2, 1000)}}, {{transfer(0, 2, 3000)}}}};
  EXPECT_DOUBLE_EQ(predicted_exchange_us(order, ports, {}), 400);
}

TEST(FabricModel, AThirdSendWaitsForOneOfTheTwoBeforeIt) {
  const std::array<double, 4> ports{10, 10, 1, 100};
  // 0 -> 2 runs at 1 for 1000 us and 0 -> 1 at 9 for 100 us; only then 0 -> 3, at 9 too, for 100 us. With all
  // three at once 0 -> 1 and 0 -> 3 would have 4.5 each. Last 0 -> 3 again: 700 us at 9, within the 1000 us
  // of 0 -> 2.
  const auto us_of = [&](Bytes last) {
    const TransmissionOrder order{.rounds = {{{transfer(0, 2, 1000)}},
                                             {{transfer(0, 1, 900)}},
                                             {{transfer(0, 3, 900)}},
                                             {{transfer(0, 3, last)}}}};
    return predicted_exchange_us(order, ports, {});
  };
  EXPECT_DOUBLE_EQ(us_of(6300), 1000);
  // 800 us at 9, then the rest at 10.
  EXPECT_DOUBLE_EQ(us_of(9000), 1000 + (9000 - 9 * 800) / 10.0);
}

TEST(FabricModel, AGroupTakesItsFairShareTimeStretchedAndFollowsWhatCameBefore) {
  const std::vector<double> ports(4, 10);
  // Fair sharing: two messages of 1000 bytes leave port 0 in 200 us. Before it a chain of 110 us.
  const TransmissionOrder order{
      .rounds = {{{transfer(3, 0, 1000)}}, {{transfer(0, 1, 1000), transfer(0, 2, 1000)}}}};
  EXPECT_DOUBLE_EQ(predicted_exchange_us(order, ports, kFabric), 110 + 100 + 1.5 * 200);
}

/// All ports equally full, messages of a row 1 to 4: the concurrent group's large messages end late.
TrafficMatrix uneven_traffic(Bytes unit) {
  TrafficMatrix traffic(5);
  for (int source = 0; source < 5; ++source) {
    for (int shift = 1; shift < 5; ++shift) traffic.set(source, (source + shift) % 5, shift * unit);
  }
  return traffic;
}

TEST(ChooseOrder, NoOtherPolicyIsPredictedToEndSooner) {
  OrderOptions options{.ports = std::vector<double>(5, 10)};
  const TrafficMatrix traffic = uneven_traffic(100000);
  const ChosenOrder chosen = choose_order(traffic, options, kFabric);
  EXPECT_EQ(carried_traffic(chosen.order, 5), traffic);
  EXPECT_NE(chosen.policy, OrderPolicy::kGroup) << "a group of four peers takes 2.5 times its fair share";
  options.round_cost_us = kFabric.chain_extra_us(0);
  for (const OrderPolicy policy : all_order_policies()) {
    EXPECT_LE(chosen.predicted_us,
              predicted_exchange_us(plan_order(policy, traffic, options), options.ports, kFabric))
        << order_policy_name(policy);
  }
}

TEST(ChooseOrder, WhereMessagesOfAChainAreDearTheGroupIsLeft) {
  const OrderOptions options{.ports = std::vector<double>(5, 10)};
  const FabricModel dear{.chain = {{1, 1e7}, {1e6, 1e7}}, .group = {{4, 0, 1.2}}};
  EXPECT_EQ(choose_order(uneven_traffic(100000), options, dear).policy, OrderPolicy::kGroup);
}

TEST(MeasureFabric, GivesTheSameFiniteCostsOnEveryRank) {
  constexpr int kNumRanks = 4;
  std::vector<FabricModel> measured(kNumRanks);
  test::run_ranks(kNumRanks, [&](Transport& transport) {
    const auto backend = create_backend("cpu", {});
    const std::vector<double> ports(kNumRanks, 100);
    measured[static_cast<std::size_t>(transport.rank())] =
        measure_fabric({.transport = transport,
                        .backend = *backend,
                        .ports = ports,
                        .exchange_tag = 20,
                        .control_tag = 21,
                        .deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60)});
  });
  ASSERT_EQ(measured[0].chain.size(), 3U);
  ASSERT_EQ(measured[0].group.size(), 2U);
  for (const FabricModel& fabric : measured) {
    for (std::size_t index = 0; index < fabric.chain.size(); ++index) {
      EXPECT_EQ(fabric.chain[index].bytes, measured[0].chain[index].bytes);
      EXPECT_EQ(fabric.chain[index].extra_us, measured[0].chain[index].extra_us);
      EXPECT_GE(fabric.chain[index].extra_us, 0);
    }
    for (std::size_t index = 0; index < fabric.group.size(); ++index) {
      EXPECT_EQ(fabric.group[index].start_us, measured[0].group[index].start_us);
      EXPECT_EQ(fabric.group[index].stretch, measured[0].group[index].stretch);
      EXPECT_GE(fabric.group[index].stretch, 1);
    }
  }
}

}  // namespace
}  // namespace aurora
