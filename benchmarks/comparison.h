// Two runs of aurora-bench side by side, from their JSON lines.
#pragma once

#include <string>

namespace aurora::bench {

struct Comparison {
  std::string text;  // a line for each row and one for each complaint
  bool is_good = false;
};

/// Compares `median` row by row. Not good when a row of one side is missing on the other, has wrong results,
/// or takes longer after than `most_ratio` times before. Throws Error when a side has no rows, or naming the
/// line that is no row with a suite, a name, a median above zero and a count of wrong results.
Comparison compare_runs(const std::string& before, const std::string& after, double most_ratio);

}  // namespace aurora::bench
