#include "benchmarks/suite.h"

namespace aurora::bench {

std::span<const Suite> all_suites() {
  static constexpr Suite kSuites[] = {
      {"planning", "how long the planner takes, on one core", run_planning_suite},
  };
  return kSuites;
}

}  // namespace aurora::bench
