#include "benchmarks/hold_out.h"

#include <gtest/gtest.h>

namespace aurora::bench {
namespace {

// Tables of the sign test: the 95 % interval of a median of 20 runs from the 6th to the 15th smallest.
TEST(HoldOut, IntervalsOfMediansAreThoseOfTheTables) {
  EXPECT_EQ(rank_of_median_interval(5), 0U);
  EXPECT_EQ(rank_of_median_interval(6), 0U);
  EXPECT_EQ(rank_of_median_interval(9), 1U);
  EXPECT_EQ(rank_of_median_interval(10), 1U);
  EXPECT_EQ(rank_of_median_interval(20), 5U);
  EXPECT_EQ(rank_of_median_interval(50), 17U);
}

TEST(HoldOut, TheBestIsNotChosenOnWhatItIsComparedBy) {
  // The first policy is lucky on even repetitions, the second on odd ones; the chooser takes always 10.
  // Chosen by halves the first is compared where it is unlucky, and so is the second.
  const std::vector<double> chooser(8, 10);
  const std::vector<std::vector<double>> fixed{{8, 12.5, 8, 12.5, 8, 12.5, 8, 12.5},
                                               {12.5, 8, 12.5, 8, 12.5, 8, 12.5, 8}};
  const HoldOut result = compare_by_halves(chooser, fixed);
  EXPECT_DOUBLE_EQ(result.ratio, 0.8);
  EXPECT_DOUBLE_EQ(result.low, 0.8);
  EXPECT_DOUBLE_EQ(result.high, 0.8);
}

TEST(HoldOut, ComparesWithTheBestOfSeveral) {
  const std::vector<double> chooser{11, 11, 11, 11};
  const std::vector<std::vector<double>> fixed{{20, 21, 22, 23}, {10, 10, 10, 10}, {12, 12, 12, 12}};
  const HoldOut result = compare_by_halves(chooser, fixed);
  EXPECT_EQ(result.best, 1U);
  EXPECT_DOUBLE_EQ(result.ratio, 1.1);
}

}  // namespace
}  // namespace aurora::bench
