#include "launch/exit_deadline.h"

#include <gtest/gtest.h>

#include <thread>

namespace aurora {
namespace {

using std::chrono::milliseconds;

constexpr int kExitCode = 23;

TEST(ExitDeadlineDeathTest, AProcessThatDoesNotEndIsEnded) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const ExitDeadline deadline(milliseconds(20), kExitCode);
        while (true) std::this_thread::sleep_for(milliseconds(1));
      },
      testing::ExitedWithCode(kExitCode), "");
}

TEST(ExitDeadlineDeathTest, OneThatEndsInTimeEndsAsItWants) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        { const ExitDeadline deadline(std::chrono::hours(1), kExitCode); }
        { const ExitDeadline deadline(milliseconds(300), kExitCode); }
        std::this_thread::sleep_for(milliseconds(600));
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace aurora
