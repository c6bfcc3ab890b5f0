#include "benchmarks/suite.h"

namespace aurora::bench {

std::span<const Suite> all_suites() {
  static constexpr Suite kSuites[] = {
      {"planning", "how long the planner takes, on one core", run_planning_suite},
      {"drift", "what re-planning makes of a workload that changes, by prediction", run_drift_suite},
  };
  return kSuites;
}

}  // namespace aurora::bench
