// What exchanges carry while they are measured: every 8-byte word says which message it belongs to and where
// in it it stands, so a byte that went astray, came twice or never came is a wrong word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace aurora::bench {

/// The ends of a message; ranks below 4096.
struct MessageEnds {
  int source = 0;
  int destination = 0;
};

/// A last word that does not fit is cut.
void write_payload(const MessageEnds& ends, std::span<std::byte> message);
/// Words of `message`, a cut one included, that are not as written.
std::int64_t count_wrong_words(const MessageEnds& ends, std::span<const std::byte> message);

}  // namespace aurora::bench
