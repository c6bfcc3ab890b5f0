// What GoogleTest prints when all ranks of an MPI job run the same tests: rank 0 prints as usual, the others
// only what fails, with their rank.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>

namespace aurora::test {

class FailuresOnly : public testing::EmptyTestEventListener {
 public:
  explicit FailuresOnly(int rank) : rank_(rank) {}

 private:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    std::fprintf(stderr, "rank %d: %s.%s: %s:%d: %s\n", rank_, info == nullptr ? "" : info->test_suite_name(),
                 info == nullptr ? "" : info->name(), result.file_name() == nullptr ? "" : result.file_name(),
                 result.line_number(), result.message());
  }

  int rank_;
};

/// Call before RUN_ALL_TESTS.
inline void print_failures_only_above_rank_0(int rank) {
  if (rank == 0) return;
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new FailuresOnly(rank));
}

}  // namespace aurora::test
