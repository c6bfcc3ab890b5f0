// How good orders are at 8 GPUs and equal ports: on real routing, and without barriers. All times are by the
// simulations of order_simulation.h.
#include <gtest/gtest.h>

#include "scheduler/baseline_orders.h"
#include "scheduler/order_policy.h"
#include "scheduler/port_order.h"
#include "scheduler/port_search.h"
#include "tests/scheduler/order_simulation.h"
#include "tests/scheduler/traffic_families.h"

namespace aurora {
namespace {

using test::Family;

constexpr int kGpus = 8;
const std::vector<double> kPorts(kGpus, 1250.0);

double order_us(const TransmissionOrder& order) {
  if (order.pacing == Pacing::kRounds) return test::naive_rounds_us(order.rounds, kPorts);
  return order.rounds.empty() ? 0 : test::naive_port_order_us(order.rounds.front().transfers, kPorts, 0);
}

/// Whole messages in the best order that a beam of `width` finds: over the bound.
double whole_messages_over_bound(const TrafficMatrix& traffic, int width) {
  PortSearch search(concurrent_group(traffic).rounds.front().transfers, kPorts, 0);
  const PortSearch::Found found = search.find(width, std::numeric_limits<double>::infinity());
  EXPECT_EQ(carried_traffic({.rounds = {{found.starts}}}, kGpus), traffic);
  EXPECT_LE(most_messages_of_a_side(found.starts), kGpus - 1);
  const double us = test::naive_port_order_us(found.starts, kPorts, 0);
  EXPECT_NEAR(us, found.makespan_us, 1e-9 * us);
  return us / test::naive_bound_us(traffic, kPorts);
}

TEST(RealRouting, IsAtTheBoundInTheExactOrder) {
  for (const std::string workload : {"law", "summary"}) {
    const TrafficMatrix traffic = test::real_traffic(AURORA_SOURCE_DIR, workload);
    const double bound = test::naive_bound_us(traffic, kPorts);
    const TransmissionOrder exact = plan_order(OrderPolicy::kExact, traffic, {.ports = kPorts});
    const double algorithm1 = order_us(plan_order(OrderPolicy::kAlgorithm1, traffic, {.ports = kPorts}));
    EXPECT_EQ(carried_traffic(exact, kGpus), traffic);
    EXPECT_NEAR(order_us(exact) / bound, 1, 1e-12);
    EXPECT_GE(algorithm1, bound * (1 - 1e-12));
    std::printf("%s: exact %.6f of the bound in %zu rounds, algorithm1 %.6f\n", workload.c_str(),
                order_us(exact) / bound, exact.rounds.size(), algorithm1 / bound);
  }
}

TEST(RealRouting, IsWithinTwoThousandthsOfTheBoundWithOneMessageForEachPeer) {
  for (const std::string workload : {"law", "summary"}) {
    const TrafficMatrix traffic = test::real_traffic(AURORA_SOURCE_DIR, workload);
    EXPECT_LE(whole_messages_over_bound(traffic, 16), 1.002) << workload;
    const TransmissionOrder order = plan_order(
        OrderPolicy::kAurora, traffic, {.ports = kPorts, .round_cost_us = 0, .max_rounds = kGpus - 1});
    EXPECT_LE(num_rounds(order), kGpus - 1);
    EXPECT_LE(order_us(order) / test::naive_bound_us(traffic, kPorts), 1.002) << workload;
  }
}

TEST(OrdersWithoutBarriers, AreWithinFiveThousandthsOfTheBoundOnUniformTrafficWithWholeMessages) {
  const std::uint64_t seed = 41;
  for (const int width : {1, 4, 16, 64}) {
    std::mt19937_64 random(seed);
    double sum = 0;
    double worst = 1;
    constexpr int kInstances = 300;
    for (int instance = 0; instance < kInstances; ++instance) {
      const double ratio =
          whole_messages_over_bound(test::random_traffic(Family::kUniform, kGpus, random), width);
      EXPECT_GE(ratio, 1 - 1e-12);
      sum += ratio;
      worst = std::max(worst, ratio);
    }
    std::printf(
        "uniform, whole messages, beam of %d: %.5f of the bound on average, %.5f at most (seed %llu)\n",
        width, sum / kInstances, worst, static_cast<unsigned long long>(seed));
    if (width == 64) {
      EXPECT_LE(sum / kInstances, 1.005);
    }
  }
}

TEST(AuroraOrder, IsWithinFiveAndOnePerCentOfTheBoundOnUnevenBalancedTrafficWithTwoAndThreeRoundsPerPort) {
  const std::uint64_t seed = 42;
  for (const auto& [rounds_per_gpu, largest_mean] : {std::pair{2, 1.05}, std::pair{3, 1.01}}) {
    std::mt19937_64 random(seed);
    double sum = 0;
    constexpr int kInstances = 100;
    for (int instance = 0; instance < kInstances; ++instance) {
      const TrafficMatrix traffic = test::random_traffic(Family::kBalancedUneven, kGpus, random);
      const TransmissionOrder order =
          plan_order(OrderPolicy::kAurora, traffic,
                     {.ports = kPorts, .round_cost_us = 0, .max_rounds = rounds_per_gpu * kGpus});
      EXPECT_LE(num_rounds(order), rounds_per_gpu * kGpus);
      EXPECT_EQ(carried_traffic(order, kGpus), traffic);
      sum += order_us(order) / test::naive_bound_us(traffic, kPorts);
    }
    std::printf("balanced uneven, at most %d rounds: %.5f of the bound on average (seed %llu)\n",
                rounds_per_gpu * kGpus, sum / kInstances, static_cast<unsigned long long>(seed));
    EXPECT_LE(sum / kInstances, largest_mean);
  }
}

}  // namespace
}  // namespace aurora
