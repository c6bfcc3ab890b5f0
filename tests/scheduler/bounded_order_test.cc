// The bounded order keeps its promise on every family: all bytes, and a makespan, computed by max-min fair
// sharing round by round, within the tolerance of the bound.
#include "scheduler/bounded_order.h"

#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "scheduler/exact_order.h"
#include "scheduler/fair_sharing.h"
#include "scheduler/makespan_bound.h"
#include "tests/scheduler/traffic_families.h"

namespace aurora {
namespace {

double fair_time_us(const TransmissionOrder& order, const std::vector<double>& ports) {
  double time_us = 0;
  for (const Round& round : order.rounds) time_us += fair_share_makespan_us(round.transfers, ports);
  return time_us;
}

TEST(BoundedOrder, StaysWithinItsToleranceOnEveryFamily) {
  constexpr double kRounding = 1e-9;  // sums of a few hundred doubles
  std::mt19937_64 random(11);
  for (const test::Family family : test::all_families()) {
    for (const int n : {1, 2, 8, 24}) {
      for (const double tolerance : {0.0, 0.01, 0.2}) {
        SCOPED_TRACE("seed 11, " + test::family_name(family) + ", n " + std::to_string(n) + ", tolerance " +
                     std::to_string(tolerance));
        const TrafficMatrix traffic = test::random_traffic(family, n, random);
        const std::vector<double> ports(static_cast<std::size_t>(n), 1250.0);
        const TransmissionOrder order = bounded_order(traffic, ports, tolerance);
        ASSERT_EQ(carried_traffic(order, n), traffic);
        const double bound_us = makespan_bound_us(traffic, {.ports = ports});
        EXPECT_LE(fair_time_us(order, ports), bound_us * (1 + tolerance + kRounding));
        std::size_t num_exact_rounds = 0;
        visit_exact_rounds(traffic, ports, [&](Round&&) { return ++num_exact_rounds > 0; });
        EXPECT_LE(order.rounds.size(), num_exact_rounds + 1);
      }
    }
  }
}

TEST(BoundedOrder, HoldsTheOneToOneBoundOnUnequalPorts) {
  std::mt19937_64 random(12);
  const std::vector<double> ports{12500, 10000, 6250, 5000, 12500, 10000, 6250, 5000};
  for (const test::Family family : test::all_families()) {
    SCOPED_TRACE("seed 12, " + test::family_name(family));
    const TrafficMatrix traffic = test::random_traffic(family, 8, random);
    const TransmissionOrder order = bounded_order(traffic, ports, 0.05);
    ASSERT_EQ(carried_traffic(order, 8), traffic);
    EXPECT_LE(fair_time_us(order, ports), one_to_one_bound_us(traffic, {.ports = ports}) * 1.0500001);
  }
}

TEST(BoundedOrder, TakesFewerRoundsThanTheExactOrder) {
  std::mt19937_64 random(13);
  const TrafficMatrix traffic = test::random_traffic(test::Family::kUniform, 64, random);
  const std::vector<double> ports(64, 1250.0);
  EXPECT_LT(3 * bounded_order(traffic, ports, 0.02).rounds.size(),
            2 * exact_order(traffic, ports).rounds.size());
}

TEST(BoundedOrder, RefusesTolerancesThatAreNone) {
  const TrafficMatrix traffic(2);
  const std::vector<double> ports(2, 1.0);
  EXPECT_THROW(bounded_order(traffic, ports, -0.1), std::invalid_argument);
  EXPECT_THROW(bounded_order(traffic, ports, std::numeric_limits<double>::quiet_NaN()),
               std::invalid_argument);
}

}  // namespace
}  // namespace aurora
