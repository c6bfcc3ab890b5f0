// A comparison that passes on nothing is worse than none: missing, empty and wrong data fail it.
#include "benchmarks/comparison.h"

#include <gtest/gtest.h>

#include "kernels/error.h"

namespace aurora::bench {
namespace {

std::string line(const std::string& row, const std::string& median, int wrong = 0) {
  return R"({"suite": "s", "row": ")" + row + R"(", "median": )" + median + R"(, "wrong": )" +
         std::to_string(wrong) + "}\n";
}

TEST(Comparison, OfRunsWithinTheRatioIsGood) {
  EXPECT_TRUE(
      compare_runs(line("a", "2.0") + line("b", "4"), line("b", "4.3") + line("a", "1"), 1.1).is_good);
}

TEST(Comparison, FailsWhereARowTakesLonger) {
  const Comparison comparison =
      compare_runs(line("a", "2") + line("b", "4"), line("a", "2") + line("b", "5"), 1.1);
  EXPECT_FALSE(comparison.is_good);
  EXPECT_NE(comparison.text.find("FAILED: s b takes longer"), std::string::npos) << comparison.text;
}

TEST(Comparison, FailsWhenARowIsMissingOnEitherSide) {
  EXPECT_FALSE(compare_runs(line("a", "2") + line("b", "4"), line("a", "2"), 1.1).is_good);
  EXPECT_FALSE(compare_runs(line("a", "2"), line("a", "2") + line("b", "4"), 1.1).is_good);
}

TEST(Comparison, FailsOnWrongResults) {
  EXPECT_FALSE(compare_runs(line("a", "2"), line("a", "2", 1), 1.1).is_good);
}

TEST(Comparison, RefusesEmptyAndMalformedRuns) {
  const std::string good = line("a", "2");
  const std::vector<std::string> bad{"",
                                     "\n",
                                     "{}\n",
                                     "not json\n",
                                     line("a", "0"),
                                     line("a", "null"),
                                     good + good,
                                     R"({"suite": "s", "row": "a"})"};
  for (const std::string& text : bad) {
    SCOPED_TRACE(text);
    EXPECT_THROW(compare_runs(good, text, 1.1), Error);
    EXPECT_THROW(compare_runs(text, good, 1.1), Error);
  }
}

}  // namespace
}  // namespace aurora::bench
