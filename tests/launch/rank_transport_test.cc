#include "launch/rank_transport.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
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
  EXPECT_EQ(std::count(heard.begin(), heard.end(), std::nullopt), 1);
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

enum class Moment { kBeforeOwnAbort, kAfterOwnAbort };

// A rank that has a notice of another rank's abort in its memory, which comes to light at the third look
// before or after its own abort: MPI brings in other messages first.
class HearsAtTheThirdLook final : public Transport {
 public:
  HearsAtTheThirdLook(int rank, Moment moment) : rank_(rank), moment_(moment) {}

  std::string_view name() const override { return "mpi"; }
  int rank() const override { return rank_; }
  int num_ranks() const override { return 3; }
  Ticket post(std::span<const Message>) override { return {}; }
  bool test(Ticket) override { return true; }
  void progress() override {
    if (has_aborted_ == (moment_ == Moment::kAfterOwnAbort)) ++num_looks_;
    if (num_looks_ == 3) throw Error(ErrorKind::kAborted, "rank 0 failed: rank 2 is stuck");
    if (has_aborted_) throw Error(ErrorKind::kAborted, "rank " + std::to_string(rank_) + " failed: a stall");
  }
  void abort(std::string_view) noexcept override { has_aborted_ = true; }

  bool has_aborted() const { return has_aborted_; }

 private:
  int rank_;
  Moment moment_;
  int num_looks_ = 0;
  bool has_aborted_ = false;
};

TEST(RankTransport, ARankThatWasStoppedAndGoesOnHearsWhatTheOthersSaidOfIt) {
  HearsAtTheThirdLook inner(0, Moment::kBeforeOwnAbort);
  RankTransport transport(inner);
  transport.abort("a stall");
  EXPECT_EQ(transport.earlier_abort(), "rank 0 failed: rank 2 is stuck");
  EXPECT_FALSE(inner.has_aborted());
}

TEST(RankTransport, OfTwoRanksThatAbortAtTheSameMomentTheHigherLearnsThatItsReasonDoesNotCount) {
  HearsAtTheThirdLook inner(1, Moment::kAfterOwnAbort);
  RankTransport transport(inner);
  transport.abort("a stall");
  EXPECT_TRUE(inner.has_aborted());
  EXPECT_EQ(transport.earlier_abort(), "rank 0 failed: rank 2 is stuck");
}

// As over NCCL when a peer's connection is gone: every look says so, until the transfers are given up.
class HasLostAConnection final : public Transport {
 public:
  std::string_view name() const override { return "nccl"; }
  int rank() const override { return 1; }
  int num_ranks() const override { return 3; }
  Ticket post(std::span<const Message>) override { return {}; }
  bool test(Ticket) override { return true; }
  void progress() override {
    ++num_looks_;
    if (!reason_) throw Error(ErrorKind::kDevice, "connection closed by remote peer");
    throw Error(ErrorKind::kAborted, "rank 1 failed: " + *reason_);
  }
  void abort(std::string_view reason) noexcept override { reason_ = reason; }

  const std::optional<std::string>& reason() const { return reason_; }
  int num_looks() const { return num_looks_; }

 private:
  std::optional<std::string> reason_;
  int num_looks_ = 0;
};

TEST(RankTransport, ARanksOwnLossOfItsTransfersIsNoWordOfAnotherRank) {
  HasLostAConnection inner;
  RankTransport transport(inner);
  transport.abort("connection closed by remote peer");
  EXPECT_EQ(inner.reason(), "connection closed by remote peer");
  EXPECT_EQ(transport.earlier_abort(), std::nullopt);
  EXPECT_GT(inner.num_looks(), 2) << "it should have listened for its turn";
}

}  // namespace
}  // namespace aurora
