// Address-coded payloads: every 8 bytes say where they come from and go to, so that a misroute explains
// itself.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace aurora {

using Bytes = std::vector<std::byte>;

struct Address {
  int source = 0;
  int destination = 0;
  std::uint32_t tag = 0;
  std::uint32_t sequence = 0;  // position among the messages of this source, destination and tag
};

inline std::uint64_t word_at(const Address& address, std::size_t position) {
  return (std::uint64_t(address.source) << 58) ^ (std::uint64_t(address.destination) << 52) ^
         (std::uint64_t(address.tag) << 32) ^ (std::uint64_t(address.sequence) << 20) ^ position;
}

inline std::string describe_word(std::uint64_t word) {
  return "rank " + std::to_string(word >> 58) + " -> rank " + std::to_string((word >> 52) & 63) + ", tag " +
         std::to_string((word >> 32) & 0xfffff) + ", sequence " + std::to_string((word >> 20) & 0xfff) +
         ", position " + std::to_string(word & 0xfffff);
}

inline Bytes coded_payload(const Address& address, std::size_t size_bytes) {
  Bytes bytes(size_bytes);
  for (std::size_t offset = 0; offset < size_bytes; offset += sizeof(std::uint64_t)) {
    const std::uint64_t word = word_at(address, offset / sizeof(std::uint64_t));
    std::memcpy(bytes.data() + offset, &word, std::min(sizeof(word), size_bytes - offset));
  }
  return bytes;
}

inline void expect_payload(const Bytes& actual, const Address& address) {
  const Bytes expected = coded_payload(address, actual.size());
  if (actual == expected) return;
  const auto difference = std::mismatch(actual.begin(), actual.end(), expected.begin());
  const auto index = static_cast<std::size_t>(difference.first - actual.begin());
  std::uint64_t word = 0;
  const std::size_t start = index / sizeof(word) * sizeof(word);
  std::memcpy(&word, actual.data() + start, std::min(sizeof(word), actual.size() - start));
  ADD_FAILURE() << "byte " << index << " of " << actual.size() << " differs: expected "
                << describe_word(word_at(address, start / sizeof(word))) << "; found what would be "
                << describe_word(word);
}

}  // namespace aurora
