#include "benchmarks/coded_payload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace aurora::bench {
namespace {

std::vector<std::byte> payload(const MessageEnds& ends, std::size_t size_bytes) {
  std::vector<std::byte> bytes(size_bytes);
  write_payload(ends, bytes);
  return bytes;
}

TEST(CodedPayload, AMessageThatArrivedHasNoWrongWordAtAnyLength) {
  for (const std::size_t size : {0, 1, 7, 8, 9, 4096, 4101}) {
    EXPECT_EQ(count_wrong_words({2, 5}, payload({2, 5}, size)), 0) << size;
  }
}

TEST(CodedPayload, EveryWordOfAnotherMessageIsWrong) {
  const auto bytes = payload({2, 5}, 128);
  EXPECT_EQ(count_wrong_words({5, 2}, bytes), 16);
  EXPECT_EQ(count_wrong_words({2, 4}, bytes), 16);
  EXPECT_EQ(count_wrong_words({3, 5}, bytes), 16);
}

TEST(CodedPayload, SwappedPiecesAndOneFlippedBitAreFound) {
  auto bytes = payload({1, 0}, 68);
  std::swap_ranges(bytes.begin(), bytes.begin() + 16, bytes.begin() + 32);
  EXPECT_EQ(count_wrong_words({1, 0}, bytes), 4);
  bytes[67] ^= std::byte{1};
  EXPECT_EQ(count_wrong_words({1, 0}, bytes), 5);
}

TEST(CodedPayload, MemoryThatWasNeverWrittenIsWrong) {
  EXPECT_EQ(count_wrong_words({0, 0}, std::vector<std::byte>(64)), 8);
}

}  // namespace
}  // namespace aurora::bench
