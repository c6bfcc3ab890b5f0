#include "launch/rank_transport.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "kernels/error.h"
#include "runtime/transport/thread_transport.h"
#include "tests/launch/thrown_text.h"

namespace aurora {
namespace {

using Clock = std::chrono::steady_clock;

TEST(RankTransport, OfRanksThatFailTogetherWhoIsSilentHasHeardOneThatSpoke) {
  constexpr int kRanks = 6;
  ThreadFabric fabric(kRanks);
  std::atomic<int> num_ready = 0;
  std::vector<std::optional<std::string>> heard(kRanks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      const std::unique_ptr<Transport> inner = fabric.connect(rank);
      RankTransport transport(*inner);
      ++num_ready;
      while (num_ready < kRanks) std::this_thread::yield();
      transport.abort("deadline");
      heard[static_cast<std::size_t>(rank)] = transport.earlier_abort();
    });
  }
  for (std::thread& thread : threads) thread.join();
  // One in practice; two when neither had time to hear the other.
  EXPECT_GE(std::count(heard.begin(), heard.end(), std::nullopt), 1);
  for (const std::optional<std::string>& text : heard) {
    EXPECT_NE(text.value_or("rank 0 failed: deadline").find("failed: deadline"), std::string::npos) << *text;
  }
}

TEST(RankTransport, AFailureReachesTheOthersOnce) {
  ThreadFabric fabric(2);
  const std::unique_ptr<Transport> first = fabric.connect(0);
  const std::unique_ptr<Transport> second = fabric.connect(1);
  RankTransport failing(*first);
  RankTransport listening(*second);
  EXPECT_EQ(thrown_text([&] { listening.progress(); }), "");
  failing.abort("no such file");
  failing.abort("something else");
  EXPECT_EQ(failing.earlier_abort(), std::nullopt);
  EXPECT_EQ(thrown_text([&] { listening.progress(); }),
            "aborted by another rank: rank 0 failed: no such file");
  listening.abort("late");
  EXPECT_EQ(listening.earlier_abort(), "rank 0 failed: no such file");
}

TEST(RankTransport, MessagesPassThrough) {
  ThreadFabric fabric(2);
  const std::unique_ptr<Transport> first = fabric.connect(0);
  const std::unique_ptr<Transport> second = fabric.connect(1);
  RankTransport sender(*first);
  RankTransport receiver(*second);
  EXPECT_EQ(sender.name(), "threads");
  EXPECT_EQ(receiver.rank(), 1);
  EXPECT_EQ(receiver.num_ranks(), 2);
  std::byte sent{42};
  std::byte received{0};
  const Message send{Direction::kSend, 1, 5, &sent, 1};
  const Message receive{Direction::kReceive, 0, 5, &received, 1};
  const Ticket sending = sender.post({&send, 1});
  const Ticket receiving = receiver.post({&receive, 1});
  const Clock::time_point deadline = Clock::now() + std::chrono::seconds(60);
  bool is_sent = false;
  bool is_received = false;
  while (!(is_sent && is_received) && Clock::now() < deadline) {
    is_sent = is_sent || sender.test(sending);
    is_received = is_received || receiver.test(receiving);
  }
  EXPECT_EQ(received, std::byte{42});
}

// Rank 0, in whose memory an abort lies that comes to light at the third look, as MPI brings in other
// messages first.
class HeardAtTheThirdLook final : public Transport {
 public:
  std::string_view name() const override { return "mpi"; }
  int rank() const override { return 0; }
  int num_ranks() const override { return 2; }
  Ticket post(std::span<const Message>) override { return {}; }
  bool test(Ticket) override { return true; }
  void progress() override {
    if (++num_looks_ == 3) throw Error(ErrorKind::kAborted, "rank 1 failed: rank 0 is stuck");
  }
  void abort(std::string_view) noexcept override { has_aborted_ = true; }

  bool has_aborted() const { return has_aborted_; }

 private:
  int num_looks_ = 0;
  bool has_aborted_ = false;
};

TEST(RankTransport, ARankThatWasStoppedAndGoesOnHearsWhatTheOthersSaidOfIt) {
  HeardAtTheThirdLook inner;
  RankTransport transport(inner);
  transport.abort("nothing moved for 2 s");
  EXPECT_EQ(transport.earlier_abort(), "rank 1 failed: rank 0 is stuck");
  EXPECT_FALSE(inner.has_aborted());
}

}  // namespace
}  // namespace aurora
