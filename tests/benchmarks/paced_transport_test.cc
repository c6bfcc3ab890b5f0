// Ends of messages through emulated ports, compared with each other: no clock is waited for.
#include "benchmarks/paced_transport.h"

#include <gtest/gtest.h>

#include "kernels/error.h"

namespace aurora::bench {
namespace {

using std::chrono::seconds;

constexpr std::size_t kGigabit = 125'000'000;  // bytes that a port of 1 Gbit/s carries in a second

Message message(Direction direction, int peer, std::uint32_t tag, std::size_t size_bytes) {
  static std::byte nothing;
  return {direction, peer, tag, &nothing, size_bytes};
}

/// Posts both ends and returns the message's.
PacedPorts::End post_both(PacedPorts& ports, int source, int destination, std::uint32_t tag,
                          std::size_t size_bytes) {
  const PacedPorts::End first = ports.post(source, message(Direction::kSend, destination, tag, size_bytes));
  EXPECT_FALSE(first->has_value()) << "the other end is not there";
  EXPECT_FALSE(ports.is_over(first));
  const PacedPorts::End second =
      ports.post(destination, message(Direction::kReceive, source, tag, size_bytes));
  EXPECT_EQ(first, second) << "both ends are one message's";
  return first;
}

TEST(PacedPorts, AReceiverTakesOneMessageAfterTheOther) {
  PacedPorts ports({1, 1, 1});
  const auto first = post_both(ports, 0, 2, 7, 10 * kGigabit);
  const auto second = post_both(ports, 1, 2, 7, 20 * kGigabit);
  EXPECT_EQ(**second - **first, seconds(20));
  EXPECT_FALSE(ports.is_over(first));
}

TEST(PacedPorts, PairsWithoutACommonSideDoNotWaitForEachOther) {
  PacedPorts ports({1, 1, 1, 1});
  const auto first = post_both(ports, 0, 1, 7, 100 * kGigabit);
  const auto other = post_both(ports, 2, 3, 7, 50 * kGigabit);
  const auto back = post_both(ports, 1, 0, 7, 60 * kGigabit);
  EXPECT_LT(**other, **first);
  EXPECT_LT(**back, **first) << "a port carries both ways at once";
}

TEST(PacedPorts, TheSlowerPortDecidesAndTheFasterIsFreeEarlier) {
  PacedPorts ports({4, 1, 1});
  const auto to_slow = post_both(ports, 0, 1, 7, 40 * kGigabit);   // 40 s, of which 0 sends for 10 s
  const auto after_it = post_both(ports, 0, 2, 7, 40 * kGigabit);  // from 10 s on
  EXPECT_EQ(**after_it - **to_slow, seconds(10));
}

TEST(PacedPorts, MessagesOfOnePairAndTagAreMatchedInOrder) {
  PacedPorts ports({1, 1});
  const auto small = ports.post(0, message(Direction::kSend, 1, 3, kGigabit));
  const auto large = ports.post(0, message(Direction::kSend, 1, 3, 9 * kGigabit));
  const auto other = ports.post(1, message(Direction::kReceive, 0, 4, kGigabit));
  EXPECT_EQ(ports.post(1, message(Direction::kReceive, 0, 3, kGigabit)), small);
  EXPECT_EQ(ports.post(1, message(Direction::kReceive, 0, 3, 9 * kGigabit)), large);
  EXPECT_FALSE(other->has_value()) << "another tag is another conversation";
}

TEST(PacedPorts, RefuseAPortThatCarriesNothing) { EXPECT_THROW(PacedPorts({1, 0}), Error); }

}  // namespace
}  // namespace aurora::bench
