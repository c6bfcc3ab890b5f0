// The table of suites: aurora-bench makes a command of each.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "benchmarks/row.h"

namespace aurora::bench {

struct SuiteOptions {
  std::string only;      // rows whose name contains this
  double seconds = 0.5;  // of warm calls, at least, for each row
  std::uint64_t seed = 1;
  std::string routing = "benchmarks/routing/law.json";  // routing record of the rows on real routing

  std::string later_routing = "benchmarks/routing/summary.json";  // what suite drift changes to

  bool wants(const std::string& row_name) const { return row_name.find(only) != std::string::npos; }
};

/// Rows are handed over as they are measured.
using RowVisitor = std::function<void(const Row& row)>;

struct Suite {
  const char* name;
  const char* description;
  void (*run)(const SuiteOptions& options, const RowVisitor& visit);
};

void run_planning_suite(const SuiteOptions& options, const RowVisitor& visit);
void run_drift_suite(const SuiteOptions& options, const RowVisitor& visit);

/// Every row has the columns `median` (what is compared; smaller is better) and `wrong` (wrong results; 0).
std::span<const Suite> all_suites();

}  // namespace aurora::bench
