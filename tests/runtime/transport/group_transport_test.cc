// The conformance cases within two groups of one job at the same time: its even and its odd ranks.
#include "runtime/transport/group_transport.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

#include "kernels/error.h"
#include "tests/runtime/transport/transport_conformance.h"
#include "tests/support/rank_threads.h"

namespace aurora {
namespace {

class GroupTransportConformance : public testing::TestWithParam<ConformanceCase> {};

TEST_P(GroupTransportConformance, HoldsInTwoGroupsAtOnce) {
  constexpr int kRanksOfGroup = 3;
  const ConformanceCase conformance_case = GetParam();
  test::run_ranks(2 * kRanksOfGroup, [&](Transport& job) {
    std::vector<int> members;
    for (int rank = job.rank() % 2; rank < job.num_ranks(); rank += 2) members.push_back(rank);
    GroupTransport group(job, members);
    EXPECT_EQ(group.rank(), job.rank() / 2);
    EXPECT_EQ(group.num_ranks(), kRanksOfGroup);
    EXPECT_EQ(group.name(), job.name());
    conformance_case.run(group);
  });
}

/// Failures are the whole job's and name its ranks: those cases are for jobs.
std::vector<ConformanceCase> cases_without_failures() {
  std::vector<ConformanceCase> cases;
  for (const ConformanceCase& each : conformance_cases()) {
    const std::string_view name = each.name;
    if (name.find("Abort") == name.npos && name.find("IsAnError") == name.npos) cases.push_back(each);
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Groups, GroupTransportConformance, testing::ValuesIn(cases_without_failures()),
                         [](const testing::TestParamInfo<ConformanceCase>& parameter) {
                           return std::string(parameter.param.name);
                         });

TEST(GroupTransport, AnAbortOfAMemberEndsTheOtherGroupToo) {
  test::run_ranks(4, [](Transport& job) {
    GroupTransport group(job, job.rank() < 2 ? std::vector<int>{0, 1} : std::vector<int>{2, 3});
    if (job.rank() == 3) group.abort("out of paper");
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    try {
      while (std::chrono::steady_clock::now() < deadline) group.progress();
      ADD_FAILURE() << "rank " << job.rank() << " was not told";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kAborted);
      EXPECT_NE(std::string(error.what()).find("rank 3"), std::string::npos) << error.what();
    }
  });
}

TEST(GroupTransport, RefusesMembersThatAreNoneAndGroupsWithoutThisRank) {
  test::run_ranks(3, [](Transport& job) {
    EXPECT_THROW(GroupTransport(job, {(job.rank() + 1) % 3}), Error);
    EXPECT_THROW(GroupTransport(job, {0, 1, 2, 3}), Error);
    EXPECT_THROW(GroupTransport(job, {0, 2, 1}), Error);
    EXPECT_THROW(GroupTransport(job, {-1, 0, 1, 2}), Error);
    EXPECT_NO_THROW(GroupTransport(job, {0, 1, 2}));
  });
}

}  // namespace
}  // namespace aurora
