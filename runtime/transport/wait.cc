#include "runtime/transport/wait.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <thread>

#include "kernels/error.h"

namespace aurora {

namespace {

// Measured on two busy cores. Eight ranks that exchange small messages take the same time with any bound from
// 10 to 300 us; eight ranks that compute for a millisecond in between lose up to a quarter when those that
// are done yield a thousand times instead; two ranks on two cores should still not sleep over a message that
// is 20 us away.
constexpr int kNumSpins = 16;
constexpr int kMaxSleepDoublings = 20;

// The first message from one rank to another: the size of the contents and as many of their bytes as fit. Its
// own size is fixed, so that the receiver can post before it knows.
struct Opening {
  std::uint64_t size_bytes = 0;
  std::array<std::byte, 248> head{};
};

Opening make_opening(std::span<const std::byte> contents) {
  Opening opening;
  opening.size_bytes = contents.size();
  const std::size_t head_bytes = std::min(contents.size(), opening.head.size());
  if (head_bytes > 0) std::memcpy(opening.head.data(), contents.data(), head_bytes);
  return opening;
}

// Contents sent to some peers. The memory of `opening` and `contents` must outlive the ticket.
Ticket post_contents(Transport& transport, const Opening& opening, std::span<const std::byte> contents,
                     std::span<const int> peers, std::uint32_t tag) {
  // Messages are not modified by sends; one struct for both directions costs these casts.
  auto* opening_bytes = reinterpret_cast<std::byte*>(const_cast<Opening*>(&opening));
  auto* contents_bytes = const_cast<std::byte*>(contents.data());
  std::vector<Message> messages;
  for (const int peer : peers) {
    messages.push_back({Direction::kSend, peer, tag, opening_bytes, sizeof(Opening)});
    if (contents.size() > opening.head.size()) {
      messages.push_back({Direction::kSend, peer, tag, contents_bytes + opening.head.size(),
                          contents.size() - opening.head.size()});
    }
  }
  return transport.post(messages);
}

struct Incoming {
  Opening opening;
  Ticket ticket;
  std::vector<std::byte> contents;
};

// Receives from several peers at once, one ticket each, so that a timeout can name who is missing.
class Reception {
 public:
  Reception(Transport& transport, std::vector<int> peers, std::uint32_t tag)
      : transport_(transport), peers_(std::move(peers)), tag_(tag), incoming_(peers_.size()) {
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      auto* bytes = reinterpret_cast<std::byte*>(&incoming_[i].opening);
      incoming_[i].ticket = post_one(peers_[i], bytes, sizeof(Opening));
    }
  }

  void finish(Deadline deadline, std::string_view what, std::chrono::microseconds longest_sleep) {
    wait_for_all(deadline, what, longest_sleep);
    for (std::size_t i = 0; i < peers_.size(); ++i) post_rest(peers_[i], incoming_[i]);
    wait_for_all(deadline, what, longest_sleep);
  }

  std::vector<std::byte> take(std::size_t index) { return std::move(incoming_[index].contents); }

 private:
  Ticket post_one(int peer, std::byte* data, std::size_t size_bytes) {
    const Message message{Direction::kReceive, peer, tag_, data, size_bytes};
    return transport_.post({&message, 1});
  }

  void post_rest(int peer, Incoming& incoming) {
    incoming.contents.resize(incoming.opening.size_bytes);
    const std::size_t head_bytes = std::min(incoming.contents.size(), incoming.opening.head.size());
    if (head_bytes > 0) std::memcpy(incoming.contents.data(), incoming.opening.head.data(), head_bytes);
    const std::size_t rest_bytes = incoming.contents.size() - head_bytes;
    incoming.ticket = {};
    if (rest_bytes > 0) incoming.ticket = post_one(peer, incoming.contents.data() + head_bytes, rest_bytes);
  }

  void wait_for_all(Deadline deadline, std::string_view what, std::chrono::microseconds longest_sleep) {
    for (Incoming& incoming : incoming_) {
      try {
        wait(transport_, incoming.ticket, deadline, what, longest_sleep);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kTimeout) throw;
        throw Error(ErrorKind::kTimeout, std::string(error.what()) + "; still missing: " + list_missing());
      }
    }
  }

  std::string list_missing() {
    std::string missing;
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      if (transport_.test(incoming_[i].ticket)) continue;
      missing += (missing.empty() ? "rank " : ", rank ") + std::to_string(peers_[i]);
    }
    return missing.empty() ? "nobody, by now" : missing;
  }

  Transport& transport_;
  std::vector<int> peers_;
  std::uint32_t tag_;
  std::vector<Incoming> incoming_;
};

std::vector<int> all_but(int rank, int num_ranks) {
  std::vector<int> ranks;
  // From the next rank upwards, so that not everybody talks to rank 0 first.
  for (int step = 1; step < num_ranks; ++step) ranks.push_back((rank + step) % num_ranks);
  return ranks;
}

void check_root(int root, int num_ranks, std::string_view what) {
  if (root >= 0 && root < num_ranks) return;
  throw Error(ErrorKind::kInvalidArgument, "root " + std::to_string(root) + " of " + std::string(what) +
                                               " is not one of the " + std::to_string(num_ranks) + " ranks");
}

// Runs a collective whose messages use memory of `body`'s frame: whatever goes wrong, the transport must have
// let go of that memory before the frame does. `body` takes its buffers by reference from the caller's frame.
template <typename Body>
void run_collective(Transport& transport, Body body) {
  try {
    body();
  } catch (const std::exception& error) {
    transport.abort(error.what());
    throw;
  }
}

constexpr std::chrono::microseconds kDefaultSleep(50);

}  // namespace

void IdleBackoff::pause() {
  // Counts no further than it needs to: a server may idle for years.
  if (num_pauses_ <= kNumSpins + 2) ++num_pauses_;
  if (num_pauses_ <= kNumSpins) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (num_pauses_ == kNumSpins + 1) {
    first_yield_ = now;
    num_sleeps_ = 0;
  }
  if (now - first_yield_ < yield_time_) {
    sched_yield();
    return;
  }
  std::this_thread::sleep_for(std::min(longest_sleep_, std::chrono::microseconds(1LL << num_sleeps_)));
  if (num_sleeps_ < kMaxSleepDoublings) ++num_sleeps_;
}

void wait(Transport& transport, Ticket ticket, Deadline deadline, std::string_view what,
          std::chrono::microseconds longest_sleep) {
  const auto start = std::chrono::steady_clock::now();
  IdleBackoff backoff(longest_sleep);
  while (!transport.test(ticket)) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) {
      const auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(now - start);
      throw Error(ErrorKind::kTimeout, "rank " + std::to_string(transport.rank()) + " of " +
                                           std::to_string(transport.num_ranks()) + " waited " +
                                           std::to_string(waited.count()) + " ms for " + std::string(what) +
                                           ", then its deadline passed");
    }
    backoff.pause();
  }
}

std::vector<std::vector<std::byte>> all_gather(Transport& transport, std::span<const std::byte> mine,
                                               std::uint32_t tag, Deadline deadline, std::string_view what) {
  const std::vector<int> peers = all_but(transport.rank(), transport.num_ranks());
  const Opening opening = make_opening(mine);
  std::vector<std::vector<std::byte>> gathered(static_cast<std::size_t>(transport.num_ranks()));
  gathered[static_cast<std::size_t>(transport.rank())].assign(mine.begin(), mine.end());
  std::optional<Reception> reception;
  run_collective(transport, [&] {
    reception.emplace(transport, peers, tag);
    const Ticket sent = post_contents(transport, opening, mine, peers, tag);
    reception->finish(deadline, what, kDefaultSleep);
    wait(transport, sent, deadline, what);
  });
  for (std::size_t i = 0; i < peers.size(); ++i)
    gathered[static_cast<std::size_t>(peers[i])] = reception->take(i);
  return gathered;
}

std::vector<std::vector<std::byte>> gather(Transport& transport, int root, std::span<const std::byte> mine,
                                           std::uint32_t tag, Deadline deadline, std::string_view what) {
  check_root(root, transport.num_ranks(), what);
  if (transport.rank() != root) {
    const Opening opening = make_opening(mine);
    run_collective(transport, [&] {
      wait(transport, post_contents(transport, opening, mine, {&root, 1}, tag), deadline, what);
    });
    return {};
  }
  const std::vector<int> peers = all_but(root, transport.num_ranks());
  std::vector<std::vector<std::byte>> gathered(static_cast<std::size_t>(transport.num_ranks()));
  gathered[static_cast<std::size_t>(root)].assign(mine.begin(), mine.end());
  std::optional<Reception> reception;
  run_collective(transport, [&] {
    reception.emplace(transport, peers, tag);
    reception->finish(deadline, what, kDefaultSleep);
  });
  for (std::size_t i = 0; i < peers.size(); ++i)
    gathered[static_cast<std::size_t>(peers[i])] = reception->take(i);
  return gathered;
}

std::vector<std::byte> broadcast(Transport& transport, int root, std::span<const std::byte> mine,
                                 std::uint32_t tag, Deadline deadline, std::string_view what,
                                 std::chrono::microseconds longest_sleep) {
  check_root(root, transport.num_ranks(), what);
  if (transport.rank() == root) {
    const std::vector<int> peers = all_but(root, transport.num_ranks());
    const Opening opening = make_opening(mine);
    run_collective(transport, [&] {
      wait(transport, post_contents(transport, opening, mine, peers, tag), deadline, what);
    });
    return {mine.begin(), mine.end()};
  }
  std::optional<Reception> reception;
  run_collective(transport, [&] {
    reception.emplace(transport, std::vector<int>{root}, tag);
    reception->finish(deadline, what, longest_sleep);
  });
  return reception->take(0);
}

}  // namespace aurora
