// Predictions in closed form, and what auto makes of them.
#include "runtime/dispatch/fabric_model.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

#include "kernels/backend_registry.h"
#include "runtime/dispatch/exchange.h"
#include "runtime/dispatch/fabric_measurement.h"
#include "runtime/dispatch/lane_simulation.h"
#include "runtime/plan_io/fabric_file.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/port_order.h"
#include "tests/support/device_thread_transport.h"
#include "tests/support/rank_threads.h"

namespace aurora {
namespace {

Transfer transfer(int source, int destination, Bytes bytes) {
  return {GpuId{source}, GpuId{destination}, bytes};
}

const FabricModel kFabric{
    .messages = {{1000, 10}, {3000, 30}}, .groups = {{2, 100, 1.5}, {4, 300, 2.5}}, .orders = {}};

TEST(FabricModel, CostsBetweenTwoMeasurementsLieOnTheirLine) {
  EXPECT_EQ(kFabric.message_extra_us(0), 10);
  EXPECT_EQ(kFabric.message_extra_us(1000), 10);
  EXPECT_EQ(kFabric.message_extra_us(2500), 25);
  EXPECT_EQ(kFabric.message_extra_us(6000), 60) << "in proportion above the last";
  EXPECT_EQ(kFabric.group_cost(3).start_us, 200);
  EXPECT_EQ(kFabric.group_cost(3).stretch, 2);
  EXPECT_EQ(kFabric.group_cost(9).stretch, 2.5);
  EXPECT_EQ(FabricModel{}.message_extra_us(5000), 0);
  EXPECT_EQ(FabricModel{}.group_cost(5).stretch, 1);
}

TEST(FabricModel, ALoneMessageTakesItsBytesAtTheSlowerPortItsExtraTimeAndTheStart) {
  const std::array<double, 2> ports{10, 5};
  const TransmissionOrder order{.rounds = {{{transfer(0, 1, 1000)}}}};
  FabricModel fabric = kFabric;
  fabric.start_us = 7;
  EXPECT_DOUBLE_EQ(predicted_exchange_us(order, ports, fabric), 1000 / 5.0 + 10 + 7);
}

constexpr auto kChunk = static_cast<Bytes>(kChunkBytes);

TEST(FabricModel, NeighbouringRoundsOverlapAndShareTheirPorts) {
  const std::array<double, 4> ports{10, 10, 10, 10};
  // In order: 0 -> 1 100 us, then 0 -> 2 300 us at ports of 10. Both are a chunk, are posted at once and
  // share port 0: after 200 us 0 -> 1 has ended and 0 -> 2 has 2000 bytes left: 400 us. 3 -> 2 is posted too:
  // port 2 gives it 5, too, all along, so it ends with its 1000 bytes after 200 us, like 0 -> 1.
  const TransmissionOrder order{
      .rounds = {{{transfer(0, 1, 1000), transfer(3, 2, 1000)}}, {{transfer(0, 2, 3000)}}}};
  EXPECT_DOUBLE_EQ(predicted_exchange_us(order, ports, {}), 400);
}

TEST(FabricModel, ASendWaitsUntilFewEnoughChunksBeforeItAreLeft) {
  // What counts of 0 -> 1 are eleven chunks, one a microsecond; port 0 could send ten times as much. 0 -> 3,
  // as slow, is posted when one of the eleven is left, after ten microseconds.
  const std::array<double, 4> ports{10.0 * kChunk, kChunk, 10.0 * kChunk, kChunk};
  const double held_us = kHeldBytes / kChunk;  // at the end, while 0 -> 3 may go on
  const auto us_of = [&](Bytes chunks) {
    const Bytes first = 11 * kChunk + static_cast<Bytes>(kHeldBytes);
    const TransmissionOrder order{.rounds = {{{transfer(0, 1, first)}}, {{transfer(0, 3, chunks * kChunk)}}}};
    return predicted_exchange_us(order, ports, {});
  };
  EXPECT_NEAR(us_of(1), 11 + held_us, 1e-6) << "beside the eleventh";
  EXPECT_NEAR(us_of(60), 10 + 60, 1e-6);
}

TEST(FabricModel, AGroupTakesItsFairShareTimeStretchedAndFollowsWhatCameBefore) {
  const std::vector<double> ports(4, 10);
  // Fair sharing: two messages of 1000 bytes leave port 0 in 200 us; its peers are half as busy, so half of
  // the stretch counts. Before it a chain of 110 us.
  const TransmissionOrder order{
      .rounds = {{{transfer(3, 0, 1000)}}, {{transfer(0, 1, 1000), transfer(0, 2, 1000)}}}};
  EXPECT_DOUBLE_EQ(predicted_exchange_us(order, ports, kFabric), 110 + 100 + 1.25 * 200);
}

TEST(FabricModel, AnUnevenGroupTakesLongerInProportion) {
  const std::vector<double> ports(3, 10);
  const auto us_of = [&](Bytes first, Bytes second, double uneven_stretch) {
    FabricModel fabric;
    fabric.uneven_stretch = uneven_stretch;
    const TransmissionOrder order{
        .rounds = {{{transfer(0, 1, first), transfer(0, 2, second), transfer(1, 2, first),
                     transfer(1, 0, second), transfer(2, 0, first), transfer(2, 1, second)}}}};
    return predicted_exchange_us(order, ports, fabric);
  };
  EXPECT_DOUBLE_EQ(us_of(1000, 1000, 1.5), 200) << "even";
  // 2 (0.75^2 + 0.25^2) = 1.25: a quarter of the stretch, since all ports are equally busy.
  EXPECT_DOUBLE_EQ(us_of(3000, 1000, 1.5), us_of(3000, 1000, 1) * 1.125);
}

TEST(FabricModel, UnevennessIsThatOfTheBusiestSide) {
  TrafficMatrix traffic(4);
  const std::vector<double> ports(4, 1);
  EXPECT_EQ(unevenness(traffic, ports), 1);
  traffic.set(0, 1, 300);
  traffic.set(0, 2, 100);
  traffic.set(3, 2, 50);
  EXPECT_DOUBLE_EQ(unevenness(traffic, ports), 2 * (0.75 * 0.75 + 0.25 * 0.25));
  traffic.set(0, 3, 200);
  EXPECT_DOUBLE_EQ(unevenness(traffic, ports), 3 * (0.25 + 1.0 / 36 + 1.0 / 9));
}

TEST(FabricModel, InBatchesARankWaitsForItsOwnPartOfTheRoundBeforeAlone) {
  const std::vector<double> ports(4, 10);
  FabricModel fabric;
  fabric.execution = ExchangeExecution::kBatches;
  // 0 -> 1 ends after 100 us, 2 -> 3 after 300. 1 -> 0 follows the first, 3 -> 0 both.
  TransmissionOrder order{
      .rounds = {{{transfer(0, 1, 1000), transfer(2, 3, 3000)}}, {{transfer(1, 0, 1000)}}}};
  EXPECT_DOUBLE_EQ(predicted_exchange_us(order, ports, fabric), 300);
  order.rounds.push_back({{transfer(3, 0, 500)}});
  EXPECT_DOUBLE_EQ(predicted_exchange_us(order, ports, fabric), 300 + 50);
  // A group of two peers that rank 0 comes to after 350 us.
  fabric.groups = {{2, 40, 1}};
  order.rounds.push_back({{transfer(0, 1, 1000), transfer(0, 2, 1000)}});
  EXPECT_DOUBLE_EQ(predicted_exchange_us(order, ports, fabric), 350 + 40 + 200);
}

TEST(FabricModel, PeersAreAsBusyAsTheirSharesOfTheBusiestPortsBytes) {
  TrafficMatrix traffic(3);
  EXPECT_EQ(peer_busyness(traffic, std::vector<double>(3, 1)), 0);
  traffic.set(0, 1, 300);
  traffic.set(0, 2, 100);
  traffic.set(2, 1, 60);
  // Port 0 sends 400; 3/4 of it to a receiver of 360, 1/4 to one of 100.
  EXPECT_DOUBLE_EQ(peer_busyness(traffic, std::vector<double>(3, 1)), 0.75 * 0.9 + 0.25 * 0.25);
  // With a port half as fast receiver 1 is the busiest, 720 us; 300 come from one of 400, 60 from one of 60.
  EXPECT_DOUBLE_EQ(peer_busyness(traffic, std::vector<double>{1, 0.5, 1}),
                   (300 * 400.0 + 60 * 60.0) / 720 / 360);
}

/// All ports equally full, messages of a row 1 to 4: the concurrent group's large messages end late.
TrafficMatrix uneven_traffic(Bytes unit) {
  TrafficMatrix traffic(5);
  for (int source = 0; source < 5; ++source) {
    for (int shift = 1; shift < 5; ++shift) traffic.set(source, (source + shift) % 5, shift * unit);
  }
  return traffic;
}

/// Of `candidate`, planned as choose_order does.
TransmissionOrder planned_order(const OrderCandidate& candidate, const TrafficMatrix& traffic,
                                const OrderOptions& options) {
  const TransmissionOrder order = plan_order(candidate.policy, traffic, options);
  const bool drops = candidate.without_barriers && order.pacing == Pacing::kRounds;
  return drops ? without_barriers(order) : order;
}

TEST(ChooseOrder, NoOtherCandidateIsPredictedToEndSooner) {
  const TrafficMatrix traffic = uneven_traffic(100000);
  for (const ExchangeExecution execution : {ExchangeExecution::kLanes, ExchangeExecution::kBatches}) {
    FabricModel fabric = kFabric;
    fabric.execution = execution;
    fabric.orders = {{OrderPolicy::kExact, 1.3}, {OrderPolicy::kLongestFirst, 1.02}};
    OrderOptions options{.ports = std::vector<double>(5, 10)};
    const ChosenOrder chosen = choose_order(traffic, options, fabric);
    const OrderCandidate& candidate = order_candidates()[chosen.candidate];
    EXPECT_EQ(carried_traffic(chosen.order, 5), traffic);
    EXPECT_NE(candidate.policy, OrderPolicy::kGroup)
        << "a group of four peers takes 2.5 times its fair share";
    options.round_cost_us = fabric.message_extra_us(0);
    EXPECT_EQ(chosen.order, planned_order(candidate, traffic, options));
    for (const OrderCandidate& other : order_candidates()) {
      EXPECT_LE(chosen.predicted_us, predicted_policy_us(other.policy, planned_order(other, traffic, options),
                                                         options.ports, fabric))
          << order_candidate_name(other);
    }
  }
}

TEST(ChooseOrder, CountsHowMuchLongerAPolicysOrdersTake) {
  const OrderOptions options{.ports = std::vector<double>(5, 10)};
  const TrafficMatrix traffic = uneven_traffic(100000);
  FabricModel fabric = kFabric;
  const OrderPolicy first = order_candidates()[choose_order(traffic, options, fabric).candidate].policy;
  fabric.orders = {{first, 3}};
  EXPECT_NE(order_candidates()[choose_order(traffic, options, fabric).candidate].policy, first);
}

TEST(ChooseOrder, WhereMessagesOfAChainAreDearTheGroupIsLeft) {
  const OrderOptions options{.ports = std::vector<double>(5, 10)};
  const FabricModel dear{
      .messages = {{1, 1e7}, {1e6, 1e7}}, .groups = {{4, 0, 1.2}}, .orders = {{OrderPolicy::kPaced, 2}}};
  EXPECT_EQ(choose_order(uneven_traffic(100000), options, dear).candidate, 0U);
}

TEST(ChooseOrder, WherePortsCollideTheClockIsKeptToUnlessItWasSeenToBeSlowOrThereIsNone) {
  const OrderOptions options{.ports = std::vector<double>(5, 10)};
  FabricModel fabric{.messages = {{1, 1e7}, {1e6, 1e7}}, .groups = {{4, 0, 1.2}}, .orders = {}};
  const TrafficMatrix traffic = uneven_traffic(100000);
  const auto chosen = [&] {
    return order_candidates()[choose_order(traffic, options, fabric).candidate].policy;
  };
  EXPECT_EQ(chosen(), OrderPolicy::kPaced);
  EXPECT_DOUBLE_EQ(choose_order(traffic, options, fabric).predicted_us, makespan_bound_us(traffic, options));
  fabric.orders = {{OrderPolicy::kPaced, 2}};
  EXPECT_EQ(chosen(), OrderPolicy::kGroup);
  fabric.orders = {};
  fabric.execution = ExchangeExecution::kBatches;
  EXPECT_NE(chosen(), OrderPolicy::kPaced);
}

FabricModel measured_by(Transport& transport, Backend& backend, std::span<const double> ports) {
  return measure_fabric({.transport = transport,
                         .backend = backend,
                         .ports = ports,
                         .exchange_tag = 20,
                         .control_tag = 21,
                         .deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60)});
}

TEST(MeasureFabric, GivesTheSameFiniteCostsOnEveryRank) {
  constexpr int kNumRanks = 4;
  std::vector<FabricModel> measured(kNumRanks);
  test::run_ranks(kNumRanks, [&](Transport& transport) {
    const auto backend = create_backend("cpu", {});
    const std::vector<double> ports(kNumRanks, 100);
    measured[static_cast<std::size_t>(transport.rank())] = measured_by(transport, *backend, ports);
  });
  const auto text_of = [](const FabricModel& fabric) { return fabric_text({fabric, {}}); };
  ASSERT_EQ(measured[0].messages.size(), 3U);
  EXPECT_GE(measured[0].uneven_stretch, 1);
  ASSERT_EQ(measured[0].groups.size(), 2U);
  ASSERT_EQ(measured[0].orders.size(), all_order_policies().size());
  for (const FabricModel& fabric : measured) EXPECT_EQ(text_of(fabric), text_of(measured[0]));
  EXPECT_GE(measured[0].start_us, 0);
  for (const auto& cost : measured[0].messages) EXPECT_GE(cost.extra_us, 0);
  for (const auto& cost : measured[0].groups) {
    EXPECT_GE(cost.start_us, 0);
    EXPECT_GE(cost.stretch, 1);
  }
  for (const auto& cost : measured[0].orders) EXPECT_TRUE(std::isfinite(cost.stretch) && cost.stretch >= 1);
}

TEST(MeasureFabric, WhereThePortsAreFasterThanTheirNumbersTheClockIsNotBelieved) {
  constexpr int kNumRanks = 5;
  test::run_ranks(kNumRanks, [&](Transport& transport) {
    const auto backend = create_backend("cpu", {});
    const std::vector<double> ports(kNumRanks, 10);  // bytes per microsecond; memory has thousands
    const FabricModel measured = measured_by(transport, *backend, ports);
    const OrderOptions options{.ports = ports};
    const TrafficMatrix traffic = uneven_traffic(100000);
    EXPECT_NE(order_candidates()[choose_order(traffic, options, measured).candidate].policy,
              OrderPolicy::kPaced);
  });
}

TEST(MeasureFabric, KnowsHowTheTransportExecutesOrders) {
  constexpr int kNumRanks = 3;
  ThreadFabric device_fabric(kNumRanks);
  test::run_ranks(kNumRanks, [&](Transport& host) {
    test::DeviceThreadTransport transport(host, device_fabric);
    const auto backend = create_backend("cpu", {.worker_streams = true});
    const std::vector<double> ports(kNumRanks, 100);
    const FabricModel measured = measured_by(transport, *backend, ports);
    EXPECT_EQ(measured.execution, ExchangeExecution::kBatches);
    EXPECT_EQ(measured.orders.size(), all_order_policies().size());
  });
}

}  // namespace
}  // namespace aurora
