#include "benchmarks/sampling.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <numeric>
#include <stdexcept>

#include "kernels/error.h"

namespace aurora::bench {
namespace {

TEST(Quantiles, AreThoseOfTheSortedSamples) {
  std::vector<double> samples(101);
  std::iota(samples.rbegin(), samples.rend(), 0);  // 100, 99, ..., 0
  const Quantiles quantiles = quantiles_of(samples);
  EXPECT_EQ(quantiles.p10, 10);
  EXPECT_EQ(quantiles.median, 50);
  EXPECT_EQ(quantiles.p90, 90);
  EXPECT_EQ(quantiles_of({3}).p90, 3);
}

TEST(Quantiles, OfNothingAreRefused) { EXPECT_THROW(quantiles_of({}), std::invalid_argument); }

TEST(TimeRepeatedly, UsesEveryInputAtLeastTwice) {
  std::vector<int> calls(7);
  const auto samples = time_repeatedly([&](std::size_t input) { ++calls[input]; }, calls.size(), 1e-6);
  EXPECT_FALSE(samples.empty());
  for (const int count : calls) EXPECT_GE(count, 2);
}

TEST(InOwnProcess, ReturnsAllBytesAndLeavesThisProcessAsItWas) {
  int value = 1;
  const std::string bytes = in_own_process([&] {
    value = 2;
    return std::string(100000, '\0') + std::to_string(getpid());
  });
  EXPECT_EQ(value, 1);
  EXPECT_EQ(bytes.substr(0, 100000), std::string(100000, '\0'));
  EXPECT_NE(bytes.substr(100000), std::to_string(getpid()));
}

TEST(InOwnProcess, PassesOnWhatWentWrong) {
  try {
    in_own_process([]() -> std::string { throw std::runtime_error("broken on purpose"); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "broken on purpose");
  }
  EXPECT_THROW(in_own_process([]() -> std::string {
                 raise(SIGKILL);
                 return "";
               }),
               Error);
}

}  // namespace
}  // namespace aurora::bench
