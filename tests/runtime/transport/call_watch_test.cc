#include "runtime/transport/call_watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <latch>
#include <thread>

namespace aurora {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

TEST(CallWatch, LeavesCallsAloneThatAreOverInTime) {
  std::atomic<int> num_ended = 0;
  {
    CallWatch watch([&] { ++num_ended; });
    for (int call = 0; call < 3; ++call) {
      watch.enter(Clock::now() + std::chrono::seconds(60));
      EXPECT_TRUE(watch.leave());
    }
    // Between calls nothing is due, however long that is.
    watch.enter(Clock::now() + milliseconds(1));
    EXPECT_TRUE(watch.leave());
    std::this_thread::sleep_for(milliseconds(250));
  }
  EXPECT_EQ(num_ended, 0);
}

TEST(CallWatch, EndsACallThatOverstays) {
  std::latch ended(1);
  CallWatch watch([&] { ended.count_down(); });
  watch.enter(Clock::now() + milliseconds(1));
  ended.wait();  // the call: blocks until it is ended
  EXPECT_FALSE(watch.leave());
}

TEST(CallWatch, SaysOfACallThatReturnsWhileItIsEndedThatItWas) {
  std::latch begun(1);
  std::atomic<bool> has_returned = false;
  CallWatch watch([&] {
    begun.count_down();
    std::this_thread::sleep_for(milliseconds(100));
    has_returned = true;
  });
  watch.enter(Clock::now() + milliseconds(1));
  begun.wait();
  EXPECT_FALSE(watch.leave());
  EXPECT_TRUE(has_returned) << "what ends the call may still use what the caller is about to free";
}

TEST(CallWatchDeathTest, EndsTheProcessWhenACallCannotBeEnded) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto never_return = [] {
    CallWatch watch([] {}, milliseconds(50));
    watch.enter(Clock::now() + milliseconds(1));
    std::this_thread::sleep_for(std::chrono::seconds(60));
    (void)watch.leave();
  };
  EXPECT_DEATH(never_return(), "did not return when it was ended");
}

}  // namespace
}  // namespace aurora
