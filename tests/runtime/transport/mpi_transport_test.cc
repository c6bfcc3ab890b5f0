// The conformance cases over MPI processes, and what only this transport has. Every rank runs every test in
// the same order; a failure on any rank makes its process, and with it mpirun, return non-zero.
#include "runtime/transport/mpi_transport.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <vector>

#include "kernels/error.h"
#include "runtime/transport/mpi_session.h"
#include "runtime/transport/wait.h"
#include "tests/runtime/transport/transport_conformance.h"
#include "tests/support/failures_only.h"

namespace aurora {
namespace {

MpiSession* session = nullptr;  // set by main before the tests run

Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(120); }

void run_case(const ConformanceCase& conformance_case, const MpiTransportOptions& options) {
  const std::unique_ptr<Transport> transport = create_mpi_transport(*session, options);
  EXPECT_EQ(transport->name(), "mpi");
  EXPECT_EQ(transport->rank(), session->rank());
  EXPECT_EQ(transport->num_ranks(), session->num_ranks());
  try {
    conformance_case.run(*transport);
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
    transport->abort(error.what());
  }
}

class MpiTransportConformance : public testing::TestWithParam<ConformanceCase> {};

TEST_P(MpiTransportConformance, Holds) { run_case(GetParam(), {}); }

// A small segment makes several parts of most messages, as a gibibyte does of a few.
TEST_P(MpiTransportConformance, HoldsForMessagesInSegments) { run_case(GetParam(), {.segment_bytes = 1000}); }

INSTANTIATE_TEST_SUITE_P(Mpi, MpiTransportConformance,
                         testing::ValuesIn(conformance_cases().begin(), conformance_cases().end()),
                         [](const testing::TestParamInfo<ConformanceCase>& parameter) {
                           return std::string(parameter.param.name);
                         });

TEST(MpiTransport, RefusesSegmentsOutOfRange) {
  EXPECT_THROW(create_mpi_transport(*session, {.segment_bytes = 0}), Error);
  EXPECT_THROW(create_mpi_transport(*session, {.segment_bytes = std::size_t{1} << 31}), Error);
}

TEST(MpiTransport, KeepsTwoTransportsApart) {
  const auto first = create_mpi_transport(*session);
  const auto second = create_mpi_transport(*session);
  const std::byte one{1};
  const std::byte two{2};
  // Rank 0 speaks on the first and then on the second, the others listen the other way round.
  if (session->rank() == 0) {
    broadcast(*first, 0, {&one, 1}, 1, soon(), "a mark");
    broadcast(*second, 0, {&two, 1}, 1, soon(), "a mark");
    return;
  }
  EXPECT_EQ(broadcast(*second, 0, {}, 1, soon(), "a mark"), std::vector<std::byte>{two});
  EXPECT_EQ(broadcast(*first, 0, {}, 1, soon(), "a mark"), std::vector<std::byte>{one});
}

TEST(MpiTransport, OfRanksThatAbortTogetherAllComeToNameTheLowest) {
  const auto transport = create_mpi_transport(*session);
  transport->abort("a drill");
  const Deadline deadline = soon();
  std::string named;
  while (named != "rank 0 failed: a drill" && std::chrono::steady_clock::now() < deadline) {
    try {
      transport->progress();
    } catch (const Error& error) {
      named = error.what();
    }
  }
  EXPECT_EQ(named, "rank 0 failed: a drill");
}

TEST(MpiSession, KnowsItsPlace) {
  EXPECT_GE(session->rank(), 0);
  EXPECT_LT(session->rank(), session->num_ranks());
  EXPECT_LT(session->local_rank(), session->num_local_ranks());
  EXPECT_LE(session->num_local_ranks(), session->num_ranks());
  EXPECT_FALSE(session->processor_name().empty());
}

}  // namespace
}  // namespace aurora

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  aurora::MpiSession session;
  aurora::session = &session;
  aurora::test::print_failures_only_above_rank_0(session.rank());
  return RUN_ALL_TESTS();
}
