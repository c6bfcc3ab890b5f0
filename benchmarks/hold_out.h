// Whether a policy that chooses keeps up with the best fixed one, without choosing that with hindsight.
//
// The best of several by the medians of what they are compared by is better than any of them, by luck alone.
// So the best fixed policy is chosen on one half of the repetitions and compared on the other, and the other
// way round. Repetitions are taken in turns, so that ratios within one count.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace aurora::bench {

struct HoldOut {
  std::size_t best = 0;  // by the median of all repetitions
  double ratio = 1;      // of the chooser over the best fixed policy of the other half, median of repetitions
  double low = 1,
         high = 1;  // interval that covers the true median in at least 95 % of cases, by order statistics
};

/// `chooser` and each of `fixed`, not empty, have one time for each repetition, at least two.
HoldOut compare_by_halves(std::span<const double> chooser, const std::vector<std::vector<double>>& fixed);

/// Largest rank r, from 0, so that the interval from the r-th smallest to the r-th largest of `count` samples
/// covers their distribution's median in at least 95 % of cases; 0, the whole range, also when none does.
std::size_t rank_of_median_interval(std::size_t count);

}  // namespace aurora::bench
