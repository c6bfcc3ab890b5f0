// Perfect matchings that minimise the largest weight, and the sum of two largest weights.
//
// Bottleneck matching: the answer is one of the weights; whether the edges up to a threshold hold a perfect
// matching is decided by augmenting paths (Hopcroft and Karp 1973 is asymptotically better; n is small here),
// the threshold by binary search. O(n^3 log n).
#pragma once

#include <span>
#include <vector>

namespace aurora {

struct Matching {
  std::vector<int> column_of_row;
  double value = 0;  // what was minimised
};

/// Minimises max_i weights[i][match(i)]. `weights` is [size][size], row-major; infinite weights are not used
/// unless nothing else is left.
Matching bottleneck_matching(int size, std::span<const double> weights);

/// Minimises max_i first[i][match(i)] + max_i second[i][match(i)]: for every threshold of the first, the
/// bottleneck of the second among the edges within it. The thresholds are swept upwards while the second
/// bottleneck, warm-started, only falls. O(n^2) steps of O(n^2) each.
Matching bottleneck_sum_matching(int size, std::span<const double> first, std::span<const double> second);

}  // namespace aurora
