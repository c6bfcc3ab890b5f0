#include "benchmarks/coded_payload.h"

#include <algorithm>
#include <cstring>

namespace aurora::bench {
namespace {

constexpr std::size_t kWordBytes = sizeof(std::uint64_t);

/// 12 bits each for the ends, counted from 1 so that memory that was never written is no word of rank 0; 40
/// for the position.
std::uint64_t word_of(const MessageEnds& ends, std::size_t position) {
  return (static_cast<std::uint64_t>(ends.source + 1) << 52) ^
         (static_cast<std::uint64_t>(ends.destination + 1) << 40) ^ static_cast<std::uint64_t>(position);
}

}  // namespace

void write_payload(const MessageEnds& ends, std::span<std::byte> message) {
  for (std::size_t offset = 0; offset < message.size(); offset += kWordBytes) {
    const std::uint64_t word = word_of(ends, offset / kWordBytes);
    std::memcpy(message.data() + offset, &word, std::min(kWordBytes, message.size() - offset));
  }
}

std::int64_t count_wrong_words(const MessageEnds& ends, std::span<const std::byte> message) {
  std::int64_t wrong = 0;
  for (std::size_t offset = 0; offset < message.size(); offset += kWordBytes) {
    const std::uint64_t word = word_of(ends, offset / kWordBytes);
    wrong += std::memcmp(message.data() + offset, &word, std::min(kWordBytes, message.size() - offset)) != 0;
  }
  return wrong;
}

}  // namespace aurora::bench
