// The exact order meets the bound on every matrix, in the promised number of rounds. 10,000 matrices of every
// family.
#include <gtest/gtest.h>

#include "scheduler/makespan_bound.h"
#include "scheduler/order_policy.h"
#include "tests/scheduler/traffic_families.h"

namespace aurora {
namespace {

using test::Family;

/// Sum over rounds of the longest transfer: the makespan of one-to-one rounds on equal ports. Checks on the
/// way that nobody sends or receives twice in a round.
Bytes one_to_one_makespan(const TransmissionOrder& order, int n) {
  Bytes makespan = 0;
  for (const Round& round : order.rounds) {
    std::vector<bool> is_sending(static_cast<std::size_t>(n));
    std::vector<bool> is_receiving(static_cast<std::size_t>(n));
    Bytes longest = 0;
    for (const Transfer& transfer : round.transfers) {
      EXPECT_GT(transfer.bytes, 0);
      EXPECT_FALSE(is_sending[transfer.source.value]) << "GPU sends twice in a round";
      EXPECT_FALSE(is_receiving[transfer.destination.value]) << "GPU receives twice in a round";
      is_sending[transfer.source.value] = is_receiving[transfer.destination.value] = true;
      longest = std::max(longest, transfer.bytes);
    }
    makespan += longest;
  }
  return makespan;
}

/// Largest line sum by definition, without the planner.
Bytes naive_bound(const TrafficMatrix& traffic) {
  Bytes bound = 0;
  for (int i = 0; i < traffic.num_gpus(); ++i) {
    Bytes row = 0;
    Bytes column = 0;
    for (int j = 0; j < traffic.num_gpus(); ++j) {
      row += traffic.at(i, j);
      column += traffic.at(j, i);
    }
    bound = std::max({bound, row, column});
  }
  return bound;
}

void expect_exact(const TrafficMatrix& traffic) {
  const int n = traffic.num_gpus();
  const TransmissionOrder order = plan_order(OrderPolicy::kExact, traffic, {});
  ASSERT_EQ(one_to_one_makespan(order, n), naive_bound(traffic));
  ASSERT_EQ(carried_traffic(order, n), traffic);
  ASSERT_LE(order.rounds.size(), static_cast<std::size_t>(n * n - 2 * n + 2));
}

class ExactOrder : public testing::TestWithParam<Family> {};

TEST_P(ExactOrder, MeetsTheBoundOnTenThousandMatrices) {
  const std::uint64_t seed = 20240 + static_cast<std::uint64_t>(GetParam());
  std::mt19937_64 random(seed);
  for (int instance = 0; instance < 10000; ++instance) {
    // Sizes 1 to 64, small ones as often as large ones.
    const int n = 1 + static_cast<int>(std::pow(64.0, static_cast<double>(random() % 1000) / 1000));
    SCOPED_TRACE("seed " + std::to_string(seed) + ", instance " + std::to_string(instance) + ", n " +
                 std::to_string(n));
    const double scale = std::pow(10.0, static_cast<double>(random() % 15));
    expect_exact(test::random_traffic(GetParam(), std::min(n, 64), random, scale));
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ExactOrder, testing::ValuesIn(test::all_families()),
                         [](const auto& family) { return test::family_name(family.param); });

TEST(ExactOrder, MeetsTheBoundOnEverySizeUpTo64) {
  std::mt19937_64 random(7);
  for (int n = 1; n <= 64; ++n) {
    for (const Family family : test::all_families()) expect_exact(test::random_traffic(family, n, random));
  }
}

/// Sizes at and beyond which rows of bits take another number of words.
TEST(ExactOrder, MeetsTheBoundOnLargeSizes) {
  std::mt19937_64 random(8);
  for (const int n : {65, 128, 129, 320, 321, 1025}) {
    for (const Family family : {Family::kZipfBoth, Family::kSparse, Family::kOneHotPair}) {
      SCOPED_TRACE("seed 8, n " + std::to_string(n) + ", " + test::family_name(family));
      expect_exact(test::random_traffic(family, n, random));
      if (n > 1000) break;
    }
  }
}

TEST(ExactOrder, MeetsTheBoundAtTheLargestSums) {
  const Bytes huge = Bytes{1} << 61;
  const std::vector<Bytes> entries{0, huge, huge, huge, 0, huge - 1, huge, huge - 1, 0};
  expect_exact(TrafficMatrix(3, entries));
}

/// Whatever the padding: a permutation can be carried at once, and few messages need few rounds.
TEST(ExactOrder, TakesOneRoundForAPermutation) {
  std::mt19937_64 random(9);
  for (int n = 2; n <= 64; ++n) {
    TrafficMatrix traffic = test::random_traffic(Family::kPermutation, n, random);
    if (traffic.total() == 0) continue;
    EXPECT_EQ(plan_order(OrderPolicy::kExact, traffic, {}).rounds.size(), 1U) << "seed 9, n " << n;
  }
}

TEST(ExactOrder, TakesAtMostOneRoundMoreThanThereAreMessagesWhenTheyAreFew) {
  std::mt19937_64 random(10);
  for (int instance = 0; instance < 200; ++instance) {
    const int n = 4 + instance % 61;
    TrafficMatrix traffic(n);
    for (int message = 0; message < 2 * n; ++message) {
      traffic.set(static_cast<int>(random() % n), static_cast<int>(random() % n),
                  static_cast<Bytes>(random() % 1'000'000));
    }
    std::size_t num_messages = 0;
    for (int source = 0; source < n; ++source) {
      for (const Bytes bytes : traffic.row(source)) num_messages += bytes > 0;
    }
    SCOPED_TRACE("seed 10, instance " + std::to_string(instance));
    expect_exact(traffic);
    EXPECT_LE(plan_order(OrderPolicy::kExact, traffic, {}).rounds.size(), num_messages + 1);
  }
}

TEST(ExactOrder, OfNoTrafficHasNoRounds) {
  EXPECT_TRUE(plan_order(OrderPolicy::kExact, TrafficMatrix(0), {}).rounds.empty());
  EXPECT_TRUE(plan_order(OrderPolicy::kExact, TrafficMatrix(5), {}).rounds.empty());
}

}  // namespace
}  // namespace aurora
