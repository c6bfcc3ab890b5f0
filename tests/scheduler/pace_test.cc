#include "scheduler/pace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "scheduler/fair_sharing.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/order_policy.h"
#include "scheduler/port_order.h"
#include "scheduler/two_tier_network.h"
#include "tests/scheduler/traffic_families.h"

namespace aurora {
namespace {

/// When the last transfer ends, and how full the fullest side of a port is at its fullest moment, as a share
/// of the port.
std::pair<double, double> end_and_load(const TransmissionOrder& order, std::span<const double> ports) {
  struct Step {
    double us, rate;
  };
  std::vector<std::vector<Step>> sides(2 * ports.size());
  double end = 0;
  for (std::size_t round = 0; round < order.rounds.size(); ++round) {
    EXPECT_EQ(order.spans[round].size(), order.rounds[round].transfers.size());
    for (std::size_t index = 0; index < order.spans[round].size(); ++index) {
      const Transfer& transfer = order.rounds[round].transfers[index];
      const TransferSpan& span = order.spans[round][index];
      const double rate = static_cast<double>(transfer.bytes) / (span.end_us - span.start_us);
      for (const std::size_t side : {static_cast<std::size_t>(transfer.source.value),
                                     ports.size() + static_cast<std::size_t>(transfer.destination.value)}) {
        sides[side].push_back({span.start_us, rate});
        sides[side].push_back({span.end_us, -rate});
      }
      end = std::max(end, span.end_us);
    }
  }
  double most = 0;
  for (std::size_t side = 0; side < sides.size(); ++side) {
    std::ranges::sort(sides[side], [](const Step& a, const Step& b) {
      return std::pair(a.us, a.rate) < std::pair(b.us, b.rate);  // who ends makes room for who begins
    });
    double rate = 0;
    for (const Step& step : sides[side])
      most = std::max(most, (rate += step.rate) / ports[side % ports.size()]);
  }
  return {end, most};
}

std::vector<double> some_ports(int n, bool are_equal, std::mt19937_64& random) {
  std::vector<double> ports(static_cast<std::size_t>(n), 10000);
  if (are_equal) return ports;
  for (double& port : ports) port = random() % 2 == 0 ? 10000 : 4000;
  return ports;
}

/// Two nodes of two GPUs each, whose links are four times as fast as the ports.
ClusterSpec two_nodes() {
  ClusterSpec cluster;
  for (int gpu = 0; gpu < 4; ++gpu) cluster.gpus.push_back({.port_gbps = 100, .node = gpu / 2});
  cluster.link_gbps = 400;
  return cluster;
}

TEST(Pace, OneRoundEndsAtTheBoundOfPortsAndLinks) {
  std::mt19937_64 random(11);
  const auto tiers = tiers_of(two_nodes());
  ASSERT_NE(tiers, nullptr);
  for (int repeat = 0; repeat < 200; ++repeat) {
    TrafficMatrix traffic(4);
    for (int source = 0; source < 4; ++source) {
      for (int destination = 0; destination < 4; ++destination) {
        if (source != destination) traffic.set(source, destination, static_cast<Bytes>(random() % 1000000));
      }
    }
    const TransmissionOrder order =
        plan_order(OrderPolicy::kPaced, traffic, {.ports = tiers->ports, .tiers = tiers});
    const double bound_us = two_tier_bounds(traffic, *tiers).direct_us();
    EXPECT_NEAR(paced_end_us(order), bound_us, 1e-9 * bound_us);
    EXPECT_LE(bound_us, makespan_bound_us(traffic, {.ports = tiers->ports}));
  }
}

TEST(Pace, WithoutBarriersALinkAndAPortOfOneGpuAreBusyAtOnce) {
  const auto tiers = tiers_of(two_nodes());
  TransmissionOrder order;
  order.pacing = Pacing::kPorts;
  order.rounds.push_back(
      {{{GpuId{0}, GpuId{2}, 12500}, {GpuId{0}, GpuId{1}, 50000}, {GpuId{0}, GpuId{3}, 12500}}});
  pace(order, tiers->ports, tiers.get());
  const std::vector<TransferSpan>& spans = order.spans.front();
  EXPECT_DOUBLE_EQ(spans[0].end_us, 1);  // 12.5 GB/s
  EXPECT_DOUBLE_EQ(spans[1].start_us, 0);
  EXPECT_DOUBLE_EQ(spans[1].end_us, 1);  // 50 GB/s
  EXPECT_DOUBLE_EQ(spans[2].start_us, 1);
  EXPECT_DOUBLE_EQ(spans[2].end_us, 2);
}

TEST(Pace, OneRoundEndsAtTheBoundAndNoPortIsEverOverfull) {
  std::mt19937_64 random(31);
  for (int instance = 0; instance < 200; ++instance) {
    const int n = 2 + static_cast<int>(random() % 8);
    const test::Family family = test::all_families()[random() % test::all_families().size()];
    const TrafficMatrix traffic = test::random_traffic(family, n, random);
    const OrderOptions options{.ports = some_ports(n, instance % 2 == 0, random)};
    const TransmissionOrder order = plan_order(OrderPolicy::kPaced, traffic, options);
    if (order.rounds.empty()) continue;
    const auto [end, load] = end_and_load(order, options.ports);
    const double bound = makespan_bound_us(traffic, options);
    EXPECT_NEAR(end, bound, bound * 1e-12);
    EXPECT_EQ(paced_end_us(order), end);
    EXPECT_EQ(predicted_makespan_us(order, options.ports, 7), 7 + end);
    EXPECT_LE(load, 1 + 1e-9);
  }
}

TEST(Pace, RoundsFollowEachOtherAndListsKeepToTheirModel) {
  std::mt19937_64 random(32);
  for (int instance = 0; instance < 200; ++instance) {
    const int n = 2 + static_cast<int>(random() % 8);
    const test::Family family = test::all_families()[random() % test::all_families().size()];
    const TrafficMatrix traffic = test::random_traffic(family, n, random);
    const OrderOptions options{.ports = some_ports(n, true, random)};
    TransmissionOrder exact = plan_order(OrderPolicy::kExact, traffic, options);
    if (exact.rounds.empty()) continue;
    pace(exact, options.ports);
    const auto [end, load] = end_and_load(exact, options.ports);
    const double bound = makespan_bound_us(traffic, options);
    EXPECT_NEAR(end, bound, bound * 1e-9);
    EXPECT_LE(load, 1 + 1e-6);
    if (exact.pacing == Pacing::kPorts) continue;
    TransmissionOrder list = without_barriers(exact);
    pace(list, options.ports);
    const auto [list_end, list_load] = end_and_load(list, options.ports);
    const double makespan = port_order_makespan_us(list.rounds.front().transfers, options.ports, 0);
    EXPECT_NEAR(list_end, makespan, makespan * 1e-12);
    EXPECT_LE(list_load, 1 + 1e-9);
  }
}

TEST(Pace, NothingToSendHasNoSpans) {
  TransmissionOrder order;
  pace(order, std::vector<double>{1, 1});
  EXPECT_TRUE(order.spans.empty());
}

}  // namespace
}  // namespace aurora
