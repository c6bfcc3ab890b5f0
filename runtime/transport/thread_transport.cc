#include "runtime/transport/thread_transport.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "runtime/transport/message_check.h"
#include "runtime/transport/ticket_table.h"

namespace aurora {

namespace {

// The lanes grow with the square of the ranks; a process with more threads than this is a mistyped number.
constexpr int kMaxThreadRanks = 256;
constexpr std::size_t kCacheLineBytes = 64;

// The messages of one `post` that are not complete. The owner is the posting rank; peers touch a batch only
// through an end that waits in a lane, under the lane's lock, and last by the decrement that completes the
// end.
struct Batch {
  std::atomic<std::size_t> num_remaining{0};
  std::atomic<bool> has_failed{false};
  std::mutex failure_mutex;
  std::string failure;

  void complete_one() { num_remaining.fetch_sub(1, std::memory_order_release); }

  void fail(const std::string& why) {
    const std::lock_guard lock(failure_mutex);
    if (failure.empty()) failure = why;
    has_failed.store(true, std::memory_order_release);
  }

  void reset() {
    num_remaining.store(0, std::memory_order_relaxed);
    has_failed.store(false, std::memory_order_relaxed);
    failure.clear();
  }
};

// One end of a message that waits for the other.
struct WaitingEnd {
  Direction direction;
  std::uint32_t tag;
  std::byte* data;
  std::size_t size_bytes;
  Batch* batch;
};

// From one rank to one other. For each tag the waiting ends are all sends or all receives, in the order of
// posting.
struct alignas(kCacheLineBytes) Lane {
  std::mutex mutex;
  std::vector<WaitingEnd> waiting;
};

// Copies from the send to the receive and completes both, or fails both. The lane's lock is held, so that a
// rank that withdraws its ends knows that nobody touches its memory afterwards.
void join_ends(const WaitingEnd& first, const WaitingEnd& second, int source, int destination) {
  const WaitingEnd& send = first.direction == Direction::kSend ? first : second;
  const WaitingEnd& receive = first.direction == Direction::kSend ? second : first;
  if (send.size_bytes != receive.size_bytes) {
    const std::string why = "sizes of a message disagree: rank " + std::to_string(source) + " -> rank " +
                            std::to_string(destination) + ", tag " + std::to_string(send.tag) + ": sent " +
                            std::to_string(send.size_bytes) + " bytes, expected " +
                            std::to_string(receive.size_bytes) + " bytes";
    send.batch->fail(why);
    receive.batch->fail(why);
    return;
  }
  std::memcpy(receive.data, send.data, send.size_bytes);
  send.batch->complete_one();
  receive.batch->complete_one();
}

void post_end(Lane& lane, const WaitingEnd& end, int source, int destination) {
  const std::lock_guard lock(lane.mutex);
  const auto oldest = std::find_if(lane.waiting.begin(), lane.waiting.end(),
                                   [&](const WaitingEnd& other) { return other.tag == end.tag; });
  if (oldest == lane.waiting.end() || oldest->direction == end.direction) {
    lane.waiting.push_back(end);
    return;
  }
  const WaitingEnd match = *oldest;
  lane.waiting.erase(oldest);
  join_ends(match, end, source, destination);
}

}  // namespace

struct ThreadFabric::State {
  explicit State(int num_ranks_in)
      : num_ranks(num_ranks_in),
        lanes(static_cast<std::size_t>(num_ranks_in) * static_cast<std::size_t>(num_ranks_in)),
        is_connected(static_cast<std::size_t>(num_ranks_in), false) {}

  Lane& lane(int source, int destination) {
    return lanes[static_cast<std::size_t>(source) * static_cast<std::size_t>(num_ranks) +
                 static_cast<std::size_t>(destination)];
  }

  // The first abort wins; later ones are consequences of it.
  void abort(int rank, std::string_view reason) {
    const std::lock_guard lock(abort_mutex);
    if (has_aborted.load(std::memory_order_relaxed)) return;
    abort_text = "rank " + std::to_string(rank) + " failed: " + std::string(reason);
    has_aborted.store(true, std::memory_order_release);
  }

  const int num_ranks;
  std::vector<Lane> lanes;  // [source][destination]
  std::atomic<bool> has_aborted{false};
  std::mutex abort_mutex;
  std::string abort_text;  // constant once has_aborted is set
  std::mutex connect_mutex;
  std::vector<bool> is_connected;
};

namespace {

class ThreadTransport final : public Transport {
 public:
  ThreadTransport(std::shared_ptr<ThreadFabric::State> fabric, int rank)
      : fabric_(std::move(fabric)), rank_(rank) {}
  ~ThreadTransport() override { withdraw(); }

  std::string_view name() const override { return "threads"; }
  int rank() const override { return rank_; }
  int num_ranks() const override { return fabric_->num_ranks; }

  Ticket post(std::span<const Message> messages) override {
    throw_if_aborted();
    check_messages(messages, rank_, num_ranks());
    if (messages.empty()) return {};
    auto [ticket, batch] = batches_.open();
    batch.num_remaining.store(messages.size(), std::memory_order_relaxed);
    for (const Message& message : messages) {
      const bool sends = message.direction == Direction::kSend;
      const int source = sends ? rank_ : message.peer;
      const int destination = sends ? message.peer : rank_;
      post_end(fabric_->lane(source, destination),
               {message.direction, message.tag, message.data, message.size_bytes, &batch}, source,
               destination);
    }
    return ticket;
  }

  bool test(Ticket ticket) override {
    throw_if_aborted();
    Batch* batch = batches_.find(ticket);
    if (batch == nullptr) return true;
    if (batch->has_failed.load(std::memory_order_acquire)) {
      const std::lock_guard lock(batch->failure_mutex);
      throw Error(ErrorKind::kInvalidArgument, batch->failure);
    }
    if (batch->num_remaining.load(std::memory_order_acquire) != 0) return false;
    batches_.close(ticket);
    return true;
  }

  void progress() override { throw_if_aborted(); }

  void abort(std::string_view reason) noexcept override {
    try {
      fabric_->abort(rank_, reason);
      withdraw();
    } catch (...) {
      // Out of memory or a broken lock while failing already: the first error is the one to report.
      fabric_->has_aborted.store(true, std::memory_order_release);
    }
  }

 private:
  void throw_if_aborted() {
    if (!fabric_->has_aborted.load(std::memory_order_acquire)) return;
    withdraw();
    throw Error(ErrorKind::kAborted, fabric_->abort_text);
  }

  // Takes back every end of ours that waits; afterwards no peer touches our memory.
  void withdraw() {
    bool has_waiting_ends = false;
    batches_.for_each_open([&](Batch& batch) {
      has_waiting_ends = has_waiting_ends || batch.num_remaining.load(std::memory_order_acquire) != 0;
    });
    if (!has_waiting_ends || is_withdrawn_) return;
    for (int peer = 0; peer < num_ranks(); ++peer) {
      if (peer == rank_) continue;
      take_back(fabric_->lane(rank_, peer), Direction::kSend);
      take_back(fabric_->lane(peer, rank_), Direction::kReceive);
    }
    is_withdrawn_ = true;
  }

  static void take_back(Lane& lane, Direction direction) {
    const std::lock_guard lock(lane.mutex);
    std::erase_if(lane.waiting, [&](const WaitingEnd& end) { return end.direction == direction; });
  }

  std::shared_ptr<ThreadFabric::State> fabric_;
  const int rank_;
  TicketTable<Batch> batches_;
  bool is_withdrawn_ = false;
};

}  // namespace

ThreadFabric::ThreadFabric(int num_ranks) {
  if (num_ranks < 1 || num_ranks > kMaxThreadRanks) {
    throw Error(ErrorKind::kInvalidArgument, "cannot run " + std::to_string(num_ranks) +
                                                 " ranks as threads: choose 1 to " +
                                                 std::to_string(kMaxThreadRanks));
  }
  state_ = std::make_shared<State>(num_ranks);
}

ThreadFabric::~ThreadFabric() = default;

int ThreadFabric::num_ranks() const { return state_->num_ranks; }

std::unique_ptr<Transport> ThreadFabric::connect(int rank) {
  if (rank < 0 || rank >= state_->num_ranks) {
    throw Error(ErrorKind::kInvalidArgument, "rank " + std::to_string(rank) + " is not one of the " +
                                                 std::to_string(state_->num_ranks) +
                                                 " ranks of this process");
  }
  const std::lock_guard lock(state_->connect_mutex);
  if (state_->is_connected[static_cast<std::size_t>(rank)]) {
    throw Error(ErrorKind::kInvalidArgument,
                "rank " + std::to_string(rank) + " is connected already: one transport per rank");
  }
  state_->is_connected[static_cast<std::size_t>(rank)] = true;
  return std::make_unique<ThreadTransport>(state_, rank);
}

}  // namespace aurora
