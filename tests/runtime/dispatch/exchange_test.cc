// The exchange over threads, under every order: address-coded bytes arrive where they belong, whatever the
// rounds.
#include "runtime/dispatch/exchange.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "runtime/dispatch/exchange_plan.h"
#include "runtime/transport/submission_order.h"
#include "runtime/transport/thread_transport.h"
#include "runtime/transport/wait.h"

namespace aurora {
namespace {

/// Byte `index` of the message from `source` to `destination`: a misroute explains itself.
std::byte coded(int source, int destination, std::size_t index) {
  return static_cast<std::byte>((static_cast<std::size_t>(source) * 131 +
                                 static_cast<std::size_t>(destination) * 17 + index * 7 + index / 256) &
                                0xff);
}

void run_rank(ThreadFabric& fabric, int rank, const PlannedExchange& planned, int& num_wrong) {
  const auto transport = fabric.connect(rank);
  const int num_ranks = planned.traffic.num_gpus();
  std::vector<std::size_t> send_offsets(static_cast<std::size_t>(num_ranks)),
      receive_offsets(send_offsets.size());
  std::vector<std::byte> send, expected;
  for (int peer = 0; peer < num_ranks; ++peer) {
    send_offsets[peer] = send.size();
    receive_offsets[peer] = expected.size();
    for (std::int64_t i = 0; i < planned.traffic.at(rank, peer); ++i)
      send.push_back(coded(rank, peer, static_cast<std::size_t>(i)));
    for (std::int64_t i = 0; i < planned.traffic.at(peer, rank); ++i)
      expected.push_back(coded(peer, rank, static_cast<std::size_t>(i)));
  }
  std::vector<std::byte> received(expected.size());
  Exchange exchange(*transport, 20);
  exchange.start(planned.order, {send.data(), send_offsets, received.data(), receive_offsets});
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  IdleBackoff backoff;
  while (!exchange.advance()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "rank " << rank << " is stuck";
    backoff.pause();
  }
  for (std::size_t i = 0; i < received.size(); ++i) num_wrong += received[i] != expected[i];
}

TEST(Exchange, DeliversEveryByteUnderEveryOrder) {
  std::mt19937 random(4711);
  for (const OrderPolicy policy : all_order_policies()) {
    for (const int num_ranks : {1, 2, 3, 5, 8}) {
      TrafficMatrix traffic(num_ranks);
      for (int source = 0; source < num_ranks; ++source) {
        for (int destination = 0; destination < num_ranks; ++destination) {
          const int size = std::uniform_int_distribution<int>(0, 5000)(random);
          if (source != destination) traffic.set(source, destination, size < 1500 ? 0 : size);
        }
      }
      const PlannedExchange planned = plan_exchange(traffic, {policy, {}});
      EXPECT_EQ(carried_traffic(planned.order, num_ranks), traffic) << order_policy_name(policy);
      ThreadFabric fabric(num_ranks);
      std::vector<int> num_wrong(static_cast<std::size_t>(num_ranks), 0);
      std::vector<std::thread> ranks;
      for (int rank = 0; rank < num_ranks; ++rank) {
        ranks.emplace_back([&, rank] { run_rank(fabric, rank, planned, num_wrong[rank]); });
      }
      for (std::thread& thread : ranks) thread.join();
      for (const int wrong : num_wrong)
        EXPECT_EQ(wrong, 0) << order_policy_name(policy) << ", " << num_ranks << " ranks";
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
