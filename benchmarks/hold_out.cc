#include "benchmarks/hold_out.h"

#include <algorithm>
#include <cmath>

#include "benchmarks/sampling.h"
#include "kernels/error.h"

namespace aurora::bench {
namespace {

constexpr double kUncovered = 0.05;

/// Index of the smallest median over the repetitions that `is_counted` names by their index.
template <class IsCounted>
std::size_t best_of(const std::vector<std::vector<double>>& fixed, const IsCounted& is_counted) {
  std::size_t best = 0;
  double least = INFINITY;
  for (std::size_t index = 0; index < fixed.size(); ++index) {
    std::vector<double> times;
    for (std::size_t repeat = 0; repeat < fixed[index].size(); ++repeat) {
      if (is_counted(repeat)) times.push_back(fixed[index][repeat]);
    }
    const double median = quantiles_of(times).median;
    if (median >= least) continue;
    least = median;
    best = index;
  }
  return best;
}

}  // namespace

std::size_t rank_of_median_interval(std::size_t count) {
  // Fewer than r + 1 of `count` samples lie below the median with probability P[Binomial(count, 1/2) <= r].
  double probability = std::pow(0.5, static_cast<double>(count));
  double below = probability;
  std::size_t rank = 0;
  for (std::size_t next = 1; next < count; ++next) {
    probability *= static_cast<double>(count - next + 1) / static_cast<double>(next);
    below += probability;
    if (2 * below > kUncovered) break;
    rank = next;
  }
  return rank;
}

HoldOut compare_by_halves(std::span<const double> chooser, const std::vector<std::vector<double>>& fixed) {
  check(chooser.size() >= 2 && !fixed.empty(), "two repetitions and one fixed policy at least");
  HoldOut result;
  result.best = best_of(fixed, [](std::size_t) { return true; });
  std::vector<double> ratios(chooser.size());
  for (const std::size_t half : {0, 1}) {
    const std::size_t best = best_of(fixed, [&](std::size_t repeat) { return repeat % 2 != half; });
    for (std::size_t repeat = half; repeat < chooser.size(); repeat += 2) {
      ratios[repeat] = chooser[repeat] / fixed[best][repeat];
    }
  }
  result.ratio = quantiles_of(ratios).median;
  std::ranges::sort(ratios);
  const std::size_t rank = rank_of_median_interval(ratios.size());
  result.low = ratios[rank];
  result.high = ratios[ratios.size() - 1 - rank];
  return result;
}

}  // namespace aurora::bench
