// The checks that every transport makes on messages before it posts any of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "runtime/transport/transport.h"

namespace aurora {

/// Tags are below this bound on every transport; MPI promises 2^15 only, the implementations in use 2^20 and
/// more.
inline constexpr std::uint32_t kTagLimit = std::uint32_t{1} << 20;

/// Throws kInvalidArgument naming the message's index, the value and the limit when a peer, tag, size or
/// address cannot be used by `rank` of `num_ranks`.
void check_messages(std::span<const Message> messages, int rank, int num_ranks);

/// "rank 2 -> rank 5, tag 7": both ends of a message that `rank` posted, as errors name them.
std::string describe_ends(const Message& message, int rank);

}  // namespace aurora
