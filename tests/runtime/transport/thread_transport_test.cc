// The conformance cases over threads of one process, and what only this transport has.
#include "runtime/transport/thread_transport.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "kernels/error.h"
#include "tests/runtime/transport/transport_conformance.h"

namespace aurora {
namespace {

using CaseAndRanks = std::tuple<ConformanceCase, int>;

class ThreadTransportConformance : public testing::TestWithParam<CaseAndRanks> {};

TEST_P(ThreadTransportConformance, Holds) {
  const auto& [conformance_case, num_ranks] = GetParam();
  ThreadFabric fabric(num_ranks);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < num_ranks; ++rank) {
    ranks.emplace_back([&fabric, rank, run = conformance_case.run] {
      const std::unique_ptr<Transport> transport = fabric.connect(rank);
      EXPECT_EQ(transport->name(), "threads");
      EXPECT_EQ(transport->rank(), rank);
      EXPECT_EQ(transport->num_ranks(), fabric.num_ranks());
      try {
        run(*transport);
      } catch (const std::exception& error) {
        ADD_FAILURE() << "rank " << rank << ": " << error.what();
        transport->abort(error.what());
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadTransportConformance,
                         testing::Combine(testing::ValuesIn(conformance_cases().begin(),
                                                            conformance_cases().end()),
                                          testing::Values(1, 2, 3, 5, 8)),
                         [](const testing::TestParamInfo<CaseAndRanks>& parameter) {
                           return std::string(std::get<0>(parameter.param).name) + "With" +
                                  std::to_string(std::get<1>(parameter.param)) + "Ranks";
                         });

TEST(ThreadFabric, RefusesRanksOutOfRangeAndConnectedTwice) {
  EXPECT_THROW(ThreadFabric(0), Error);
  EXPECT_THROW(ThreadFabric(257), Error);
  ThreadFabric fabric(2);
  EXPECT_THROW(fabric.connect(-1), Error);
  EXPECT_THROW(fabric.connect(2), Error);
  const auto transport = fabric.connect(1);
  EXPECT_THROW(fabric.connect(1), Error);
}

TEST(ThreadFabric, MayGoBeforeItsTransports) {
  auto fabric = std::make_unique<ThreadFabric>(2);
  const auto first = fabric->connect(0);
  const auto second = fabric->connect(1);
  fabric.reset();
  std::byte sent{42};
  std::byte received{0};
  const Message send{Direction::kSend, 1, 3, &sent, 1};
  const Message receive{Direction::kReceive, 0, 3, &received, 1};
  const Ticket send_ticket = first->post({&send, 1});
  EXPECT_FALSE(first->test(send_ticket));  // a rendezvous: nothing is buffered
  const Ticket receive_ticket = second->post({&receive, 1});
  EXPECT_TRUE(first->test(send_ticket));
  EXPECT_TRUE(second->test(receive_ticket));
  EXPECT_EQ(received, std::byte{42});
}

TEST(ThreadFabric, TouchesNoMemoryOfATransportThatIsGone) {
  ThreadFabric fabric(2);
  auto first = fabric.connect(0);
  const auto second = fabric.connect(1);
  std::byte received{0};
  std::byte sent{42};
  const Message receive{Direction::kReceive, 1, 3, &received, 1};
  const Message send{Direction::kSend, 0, 3, &sent, 1};
  first->post({&receive, 1});
  first.reset();
  const Ticket ticket = second->post({&send, 1});
  EXPECT_FALSE(second->test(ticket));
  EXPECT_EQ(received, std::byte{0});
}

TEST(ThreadFabric, TellsTheSenderOfAMismatchToo) {
  ThreadFabric fabric(2);
  const auto first = fabric.connect(0);
  const auto second = fabric.connect(1);
  std::byte memory[8] = {};
  const Message send{Direction::kSend, 1, 3, memory, 8};
  const Message receive{Direction::kReceive, 0, 3, memory, 4};
  const Ticket send_ticket = first->post({&send, 1});
  const Ticket receive_ticket = second->post({&receive, 1});
  EXPECT_THROW(first->test(send_ticket), Error);
  EXPECT_THROW(second->test(receive_ticket), Error);
}

}  // namespace
}  // namespace aurora
