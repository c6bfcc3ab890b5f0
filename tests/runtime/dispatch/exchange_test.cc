// The exchange over threads, under every order and pacing: address-coded bytes arrive where they belong,
// whether the host moves them or the device does.
#include "runtime/dispatch/exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <iostream>
#include <random>
#include <set>
#include <string>

#include "kernels/backend_registry.h"
#include "runtime/dispatch/exchange_plan.h"
#include "runtime/transport/submission_order.h"
#include "runtime/transport/wait.h"
#include "scheduler/pace.h"
#include "scheduler/port_order.h"
#include "tests/support/device_thread_transport.h"
#include "tests/support/rank_threads.h"

namespace aurora {
namespace {

/// Byte `index` of the message from `source` to `destination`: a misroute explains itself.
std::byte coded(int source, int destination, std::size_t index) {
  return static_cast<std::byte>((static_cast<std::size_t>(source) * 131 +
                                 static_cast<std::size_t>(destination) * 17 + index * 7 + index / 256) &
                                0xff);
}

/// One rank's buffers of one exchange.
struct RankBuffers {
  std::vector<std::size_t> send_offsets, receive_offsets;
  std::vector<std::byte> send, expected, received;

  RankBuffers(const TrafficMatrix& traffic, int rank) {
    for (int peer = 0; peer < traffic.num_gpus(); ++peer) {
      send_offsets.push_back(send.size());
      receive_offsets.push_back(expected.size());
      for (std::int64_t i = 0; i < traffic.at(rank, peer); ++i)
        send.push_back(coded(rank, peer, static_cast<std::size_t>(i)));
      for (std::int64_t i = 0; i < traffic.at(peer, rank); ++i)
        expected.push_back(coded(peer, rank, static_cast<std::size_t>(i)));
    }
    received.resize(expected.size());
  }

  std::size_t num_wrong() const {
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < received.size(); ++i) wrong += received[i] != expected[i];
    return wrong;
  }
};

void wait_until(const std::function<bool()>& is_done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  IdleBackoff backoff;
  while (!is_done()) {
    check(std::chrono::steady_clock::now() < deadline, "the exchange ends");
    backoff.pause();
  }
}

/// Sends what `compute` copies into the send buffer, and has it copy what was received, three times over.
void run_rank(Transport& transport, const TransmissionOrder& order, const TrafficMatrix& traffic) {
  const auto backend = create_backend("cpu", {.worker_streams = true});
  const auto compute = backend->create_stream();
  Exchange exchange(transport, *backend, *compute, 20);
  RankBuffers buffers(traffic, transport.rank());
  std::vector<std::byte> send(buffers.send.size()), receive(buffers.expected.size());
  for (int turn = 0; turn < 3; ++turn) {
    backend->copy(*compute, send.data(), buffers.send.data(), send.size());
    exchange.mark_ready();
    wait_until([&] { return exchange.can_start(); });
    exchange.start(order, {send.data(), buffers.send_offsets, receive.data(), buffers.receive_offsets});
    wait_until([&] { return exchange.advance(); });
    backend->copy(*compute, buffers.received.data(), receive.data(), receive.size());
    compute->synchronize(std::chrono::steady_clock::now() + std::chrono::seconds(60));
    EXPECT_EQ(buffers.num_wrong(), 0U) << "rank " << transport.rank() << ", turn " << turn;
    std::ranges::fill(buffers.received, std::byte{0});
  }
  wait_until([&] { return exchange.is_settled(); });
  EXPECT_GE(exchange.take_seconds(), 0);
  EXPECT_EQ(exchange.take_seconds(), 0) << "the time was taken";
}

/// On host-driven ranks and on stream-ordered ones.
void run_everywhere(const TransmissionOrder& order, const TrafficMatrix& traffic) {
  const int num_ranks = traffic.num_gpus();
  test::run_ranks(num_ranks, [&](Transport& transport) { run_rank(transport, order, traffic); });
  ThreadFabric device_fabric(num_ranks);
  test::run_ranks(num_ranks, [&](Transport& host) {
    test::DeviceThreadTransport transport(host, device_fabric);
    run_rank(transport, order, traffic);
  });
}

TrafficMatrix random_traffic(int num_ranks, std::mt19937& random) {
  TrafficMatrix traffic(num_ranks);
  for (int source = 0; source < num_ranks; ++source) {
    for (int destination = 0; destination < num_ranks; ++destination) {
      const int size = std::uniform_int_distribution<int>(0, 5000)(random);
      if (source != destination) traffic.set(source, destination, size < 1500 ? 0 : size);
    }
  }
  return traffic;
}

TEST(Exchange, DeliversEveryByteUnderEveryOrderAndPacing) {
  std::cout << "seed 4711\n";
  std::mt19937 random(4711);
  for (const OrderPolicy policy : all_order_policies()) {
    for (const int num_ranks : {1, 2, 3, 5, 8}) {
      SCOPED_TRACE(std::string(order_policy_name(policy)) + ", " + std::to_string(num_ranks) + " ranks");
      const TrafficMatrix traffic = random_traffic(num_ranks, random);
      const PlannedExchange planned = plan_exchange(traffic, {policy, {}});
      EXPECT_EQ(carried_traffic(planned.order, num_ranks), traffic);
      run_everywhere(planned.order, traffic);
      if (planned.order.pacing == Pacing::kRounds) run_everywhere(without_barriers(planned.order), traffic);
    }
  }
}

TEST(Exchange, DeliversEveryByteByTheClock) {
  constexpr int kNumRanks = 4;
  TrafficMatrix traffic(kNumRanks);
  for (int source = 0; source < kNumRanks; ++source) {
    for (int shift = 1; shift < kNumRanks; ++shift) {
      traffic.set(source, (source + shift) % kNumRanks, static_cast<Bytes>(kChunkBytes) * shift + source - 2);
    }
  }
  const std::vector<double> ports{1000, 800, 500, 400};  // bytes per microsecond
  for (const OrderPolicy policy : {OrderPolicy::kPaced, OrderPolicy::kExact, OrderPolicy::kRotation}) {
    SCOPED_TRACE(std::string(order_policy_name(policy)));
    TransmissionOrder order = plan_order(policy, traffic, {.ports = ports});
    pace(order, ports);
    run_everywhere(order, traffic);
    if (order.pacing == Pacing::kPorts) continue;
    order = without_barriers(order);
    pace(order, ports);
    run_everywhere(order, traffic);
  }
}

/// Notes when sends are posted.
class ClockedTransport final : public Transport {
 public:
  explicit ClockedTransport(Transport& used) : used_(&used) {}
  std::string_view name() const override { return used_->name(); }
  int rank() const override { return used_->rank(); }
  int num_ranks() const override { return used_->num_ranks(); }
  Ticket post(std::span<const Message> messages) override {
    const auto now = std::chrono::steady_clock::now();
    for (const Message& message : messages) {
      if (message.direction == Direction::kSend) sends_.emplace_back(now, message.size_bytes);
    }
    return used_->post(messages);
  }
  bool test(Ticket ticket) override { return used_->test(ticket); }
  void progress() override { used_->progress(); }
  void abort(std::string_view reason) noexcept override { used_->abort(reason); }
  const auto& sends() const { return sends_; }

 private:
  Transport* used_;
  std::vector<std::pair<std::chrono::steady_clock::time_point, std::size_t>> sends_;
};

TEST(Exchange, ByTheClockNoMoreThanTwoChunksAreAheadOfThePlan) {
  constexpr int kNumRanks = 2;
  constexpr int kNumChunks = 8;
  TrafficMatrix traffic(kNumRanks);
  traffic.set(0, 1, static_cast<Bytes>(kChunkBytes) * kNumChunks);
  const double port = static_cast<double>(kChunkBytes) / 10000;  // a chunk takes 10 ms
  const TransmissionOrder order = plan_order(OrderPolicy::kPaced, traffic, {.ports = {port, port}});
  test::run_ranks(kNumRanks, [&](Transport& inner) {
    ClockedTransport transport(inner);
    const auto start = std::chrono::steady_clock::now();
    const auto backend = create_backend("cpu", {});
    const auto compute = backend->create_stream();
    Exchange exchange(transport, *backend, *compute, 20);
    RankBuffers buffers(traffic, transport.rank());
    exchange.mark_ready();
    exchange.start(
        order, {buffers.send.data(), buffers.send_offsets, buffers.received.data(), buffers.receive_offsets});
    wait_until([&] { return exchange.advance(); });
    EXPECT_EQ(buffers.num_wrong(), 0U);
    ASSERT_EQ(transport.sends().size(), transport.rank() == 0 ? kNumChunks : 0U);
    for (int chunk = 1; chunk < static_cast<int>(transport.sends().size()); ++chunk) {
      const auto& [time, size_bytes] = transport.sends()[static_cast<std::size_t>(chunk)];
      EXPECT_EQ(size_bytes, kChunkBytes);
      EXPECT_GE(time - start, std::chrono::milliseconds(10) * (chunk - 1)) << "chunk " << chunk;
    }
  });
}

/// A transport that counts what is under way to and from its rank.
class CountingTransport final : public Transport {
 public:
  explicit CountingTransport(Transport& used) : used_(&used) {}
  std::string_view name() const override { return used_->name(); }
  int rank() const override { return used_->rank(); }
  int num_ranks() const override { return used_->num_ranks(); }
  Ticket post(std::span<const Message> messages) override {
    const Ticket ticket = used_->post(messages);
    for (const Message& message : messages) {
      const std::size_t side = message.direction == Direction::kSend ? 0 : 1;
      under_way_.push_back({ticket, side});
      most_[side] = std::max(most_[side], ++now_[side]);
    }
    return ticket;
  }
  bool test(Ticket ticket) override {
    if (!used_->test(ticket)) return false;
    std::erase_if(under_way_, [&](const auto& posted) {
      if (posted.ticket.id != ticket.id) return false;
      --now_[posted.side];
      return true;
    });
    return true;
  }
  void progress() override { used_->progress(); }
  void abort(std::string_view reason) noexcept override { used_->abort(reason); }
  /// Sends, receives.
  const std::array<int, 2>& most_under_way() const { return most_; }

 private:
  struct Posted {
    Ticket ticket;
    std::size_t side;
  };
  Transport* used_;
  std::vector<Posted> under_way_;
  std::array<int, 2> now_{}, most_{};
};

TEST(Exchange, HasNoMoreChunksUnderWayThanItSaysWhenPacedByPorts) {
  std::cout << "seed 4712\n";
  std::mt19937 random(4712);
  TrafficMatrix traffic = random_traffic(6, random);
  traffic.set(0, 1, 20 * static_cast<Bytes>(kChunkBytes) + 7);
  traffic.set(2, 0, 40 * static_cast<Bytes>(kChunkBytes));
  const TransmissionOrder ports = without_barriers(plan_order(OrderPolicy::kRotation, traffic, {}));
  test::run_ranks(6, [&](Transport& host) {
    CountingTransport transport(host);
    run_rank(transport, ports, traffic);
    EXPECT_LE(transport.most_under_way()[0], static_cast<int>(kMostSendsUnderWay));
    EXPECT_LE(transport.most_under_way()[1], static_cast<int>(kMostReceivesUnderWay));
  });
}

/// Rank 0 of three, whose messages end when the test says so.
class ScriptedTransport final : public Transport {
 public:
  std::string_view name() const override { return "scripted"; }
  int rank() const override { return 0; }
  int num_ranks() const override { return 3; }
  Ticket post(std::span<const Message> messages) override {
    for (const Message& message : messages) {
      posted.push_back((message.direction == Direction::kSend ? "to " : "from ") +
                       std::to_string(message.peer) + ", " + std::to_string(message.size_bytes));
    }
    return {posted.size()};
  }
  bool test(Ticket ticket) override { return ended.count(ticket.id) > 0; }
  void progress() override {}
  void abort(std::string_view) noexcept override {}

  std::vector<std::string> posted;
  std::set<std::uint64_t> ended;  // a batch's ticket is the number of messages posted up to its last
};

Transfer transfer(int source, int destination, Bytes bytes) {
  return {GpuId{source}, GpuId{destination}, bytes};
}

constexpr auto kChunk = static_cast<Bytes>(kChunkBytes);

/// Rank 0's exchange over a ScriptedTransport, with memory for messages of 25 chunks to and from each peer.
struct ScriptedExchange {
  static constexpr std::size_t kPeerBytes = 25 * kChunkBytes;
  ScriptedTransport transport;
  std::unique_ptr<Backend> backend = create_backend("cpu", {});
  std::unique_ptr<Stream> compute = backend->create_stream();
  Exchange exchange{transport, *backend, *compute, 20};
  std::vector<std::byte> memory = std::vector<std::byte>(3 * kPeerBytes);
  std::array<std::size_t, 3> offsets{0, kPeerBytes, 2 * kPeerBytes};

  void start(const TransmissionOrder& order) {
    exchange.start(order, {memory.data(), offsets, memory.data(), offsets});
  }
};

TEST(Exchange, NeighbouringRoundsOverlapAndAWaitingReceiveHoldsUpNoSend) {
  TransmissionOrder order;
  // Sends: four chunks, one, then three; a receive of 24 chunks before one of one.
  order.rounds.push_back({{transfer(1, 0, 24 * kChunk), transfer(0, 2, 3 * kChunk + 20)}});
  order.rounds.push_back({{transfer(1, 2, 5)}});  // not this rank's business
  order.rounds.push_back({{transfer(2, 0, 11), transfer(0, 1, 21)}});
  order.rounds.push_back({{transfer(0, 2, 2 * kChunk + 22)}});
  ScriptedExchange scripted;
  scripted.start(order);
  std::vector<std::string>& posted = scripted.transport.posted;
  const std::string chunk = std::to_string(kChunk);
  std::vector<std::string> expected(24, "from 1, " + chunk);
  expected.insert(expected.end(), {"to 2, " + chunk, "to 2, " + chunk});
  EXPECT_EQ(posted, expected);
  scripted.transport.ended = {26};  // the second send: nothing has come yet, and the first has not ended
  EXPECT_FALSE(scripted.exchange.advance());
  expected.push_back("to 2, " + chunk);
  scripted.transport.ended.insert(24);  // a later receive is no reason to wait for the earlier
  EXPECT_FALSE(scripted.exchange.advance());
  expected.push_back("from 2, 11");
  EXPECT_EQ(posted, expected);
  // The rest of this round, the next and the one after it, one for one that ends.
  expected.insert(expected.end(), {"to 2, 20", "to 1, 21", "to 2, " + chunk, "to 2, " + chunk, "to 2, 22"});
  for (const std::uint64_t ticket : {25, 27, 29, 30, 31}) {
    scripted.transport.ended.insert(ticket);
    EXPECT_FALSE(scripted.exchange.advance());
  }
  EXPECT_EQ(posted, expected);
  for (std::uint64_t ticket = 1; ticket <= posted.size(); ++ticket) scripted.transport.ended.insert(ticket);
  EXPECT_TRUE(scripted.exchange.advance());
}

TEST(Exchange, MessagesOfOneRoundAreUnderWayTogetherChunkByChunkInTurns) {
  const TransmissionOrder order{.rounds = {{{transfer(0, 1, 2 * kChunk + 5), transfer(0, 2, kChunk)}}}};
  ScriptedExchange scripted;
  scripted.start(order);
  const std::string chunk = std::to_string(kChunk);
  EXPECT_EQ(scripted.transport.posted,
            (std::vector<std::string>{"to 1, " + chunk, "to 2, " + chunk, "to 1, " + chunk, "to 1, 5"}));
}

TEST(Exchange, RunsAheadOfAHostThatIsToBeAway) {
  const TransmissionOrder order{.rounds = {{{transfer(0, 1, 20 * kChunk)}}, {{transfer(1, 0, 25 * kChunk)}}}};
  for (const bool runs_ahead : {false, true}) {
    ScriptedExchange scripted;
    scripted.exchange.run_ahead(runs_ahead);
    scripted.start(order);
    const std::size_t expected = runs_ahead ? 20 + 25 : kMostSendsUnderWay + kMostReceivesUnderWay;
    EXPECT_EQ(scripted.transport.posted.size(), expected);
  }
}

TEST(OneToOneRounds, KeepEverySidesOrderAndNeedNoMoreRoundsThanTheList) {
  std::cout << "seed 4713\n";
  std::mt19937 random(4713);
  for (const int num_ranks : {2, 3, 5, 8}) {
    // Any list is a port order: the transfers of random traffic in random order.
    const TrafficMatrix traffic = random_traffic(num_ranks, random);
    TransmissionOrder ports = plan_order(OrderPolicy::kGroup, traffic, {});
    ports.pacing = Pacing::kPorts;
    std::vector<Transfer>& starts = ports.rounds.front().transfers;
    std::ranges::shuffle(starts, random);
    const TransmissionOrder rounds = one_to_one_rounds(ports);
    EXPECT_EQ(rounds.pacing, Pacing::kRounds);
    EXPECT_EQ(carried_traffic(rounds, num_ranks), traffic);
    EXPECT_GE(static_cast<int>(rounds.rounds.size()), most_messages_of_a_side(starts));
    EXPECT_LE(rounds.rounds.size(), starts.size());
    std::vector<Transfer> in_rounds;
    for (const Round& round : rounds.rounds) {
      EXPECT_EQ(most_messages_of_a_side(round.transfers), 1);
      in_rounds.insert(in_rounds.end(), round.transfers.begin(), round.transfers.end());
    }
    for (int rank = 0; rank < num_ranks; ++rank) {
      const auto side = [&](const std::vector<Transfer>& transfers, GpuId Transfer::*end) {
        std::vector<Transfer> own;
        std::ranges::copy_if(transfers, std::back_inserter(own),
                             [&](const Transfer& transfer) { return (transfer.*end).value == rank; });
        return own;
      };
      EXPECT_EQ(side(in_rounds, &Transfer::source), side(starts, &Transfer::source));
      EXPECT_EQ(side(in_rounds, &Transfer::destination), side(starts, &Transfer::destination));
    }
  }
}

TEST(ExchangePlan, TheCombineIsTheTransposeOfTheDispatch) {
  CountMatrix counts(3);
  counts.row(0)[1] = {5, 9};
  counts.row(1)[2] = {2, 2};
  counts.row(2)[0] = {7, 14};
  const TrafficMatrix dispatch = dispatch_traffic(counts, 10);
  EXPECT_EQ(dispatch.at(0, 1), 50);
  EXPECT_EQ(combine_traffic(counts, 10, false), dispatch.transposed());
  EXPECT_EQ(combine_traffic(counts, 10, true).at(1, 0), 90);
}

TEST(SubmissionOrder, MergesInProportionAndServesEveryExchange) {
  SubmissionOrder order({12, 4, 0});
  std::vector<int> sequence;
  for (int i = 0; i < 16; ++i) {
    const int model = order.is_turn_of(0) ? 0 : 1;
    ASSERT_TRUE(order.is_turn_of(static_cast<std::size_t>(model)));
    sequence.push_back(model);
    order.advance();
  }
  EXPECT_EQ(sequence, (std::vector<int>{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}));
  EXPECT_FALSE(order.is_turn_of(0));
  EXPECT_FALSE(order.is_turn_of(1));
  EXPECT_FALSE(order.is_turn_of(2));
}

}  // namespace
}  // namespace aurora
