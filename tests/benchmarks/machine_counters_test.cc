#include "benchmarks/machine_counters.h"

#include <gtest/gtest.h>

namespace aurora::bench {
namespace {

TEST(MachineCounters, IdleTicksIncludeWaitingForDisksAndTheTotalLeavesGuestsOut) {
  const auto ticks = parse_processor_ticks("cpu  10 20 30 400 50 6 7 8 100 200\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
  ASSERT_TRUE(ticks);
  EXPECT_EQ(ticks->idle, 450);
  EXPECT_EQ(ticks->total, 531);
}

TEST(MachineCounters, RetransmittedSegmentsAreFoundByNameWhereverTheyStand) {
  EXPECT_EQ(
      parse_retransmitted_segments("Ip: A B\nIp: 1 2\nTcp: A RetransSegs B\nTcp: 3 42 5\nUdp: A\nUdp: 6\n"),
      42);
}

TEST(MachineCounters, TextsWithoutTheCounterGiveNone) {
  EXPECT_FALSE(parse_processor_ticks(""));
  EXPECT_FALSE(parse_processor_ticks("intr 1 2 3 4 5 6 7 8"));
  EXPECT_FALSE(parse_retransmitted_segments(""));
  EXPECT_FALSE(parse_retransmitted_segments("Tcp: A B\nTcp: 1 2\n"));
}

}  // namespace
}  // namespace aurora::bench
