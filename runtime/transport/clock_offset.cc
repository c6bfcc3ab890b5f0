#include "runtime/transport/clock_offset.h"

#include <string>

#include "kernels/error.h"
#include "runtime/transport/wait.h"

namespace aurora {

namespace {

// The best of so many round trips; with more ranks than cores most of them contain a change of context.
constexpr int kNumRoundTrips = 16;

std::int64_t read_clock_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void exchange_word(Transport& transport, Direction direction, int peer, std::uint32_t tag, std::int64_t& word,
                   Deadline deadline) {
  const Message message{direction, peer, tag, reinterpret_cast<std::byte*>(&word), sizeof(word)};
  wait(transport, transport.post({&message, 1}), deadline, "clock offset");
}

void answer_rank(Transport& transport, int peer, std::uint32_t tag, Deadline deadline, std::int64_t& word) {
  for (int trip = 0; trip < kNumRoundTrips; ++trip) {
    exchange_word(transport, Direction::kReceive, peer, tag, word, deadline);
    word = read_clock_ns();
    exchange_word(transport, Direction::kSend, peer, tag, word, deadline);
  }
}

ClockOffset ask_root(Transport& transport, int root, std::uint32_t tag, Deadline deadline,
                     std::int64_t& word) {
  ClockOffset best{std::chrono::nanoseconds(0), std::chrono::nanoseconds::max()};
  for (int trip = 0; trip < kNumRoundTrips; ++trip) {
    const std::int64_t asked_ns = read_clock_ns();
    word = asked_ns;
    exchange_word(transport, Direction::kSend, root, tag, word, deadline);
    exchange_word(transport, Direction::kReceive, root, tag, word, deadline);
    const std::int64_t answered_ns = read_clock_ns();
    const std::chrono::nanoseconds uncertainty((answered_ns - asked_ns + 1) / 2);
    if (uncertainty < best.uncertainty) {
      best = {std::chrono::nanoseconds(word - asked_ns - (answered_ns - asked_ns) / 2), uncertainty};
    }
  }
  return best;
}

}  // namespace

ClockOffset estimate_clock_offset(Transport& transport, int root, std::uint32_t tag, Deadline deadline) {
  if (root < 0 || root >= transport.num_ranks()) {
    throw Error(ErrorKind::kInvalidArgument, "root " + std::to_string(root) +
                                                 " of the clock offset is not one of the " +
                                                 std::to_string(transport.num_ranks()) + " ranks");
  }
  std::int64_t word = 0;
  try {
    if (transport.rank() != root) return ask_root(transport, root, tag, deadline, word);
    for (int peer = 0; peer < transport.num_ranks(); ++peer) {
      if (peer != root) answer_rank(transport, peer, tag, deadline, word);
    }
    return {};
  } catch (const std::exception& error) {
    transport.abort(error.what());  // `word` goes with this frame, so the transport must let go of it
    throw;
  }
}

}  // namespace aurora
