// Fits a sum of a few known features to measured times, in relative terms: a time that is off by a tenth
// counts the same whether it is short or long. Coefficients are at least 0, as costs are.
#pragma once

#include <span>
#include <vector>

namespace aurora::bench {

struct Fit {
  std::vector<double> coefficients;  // one for each feature
  std::vector<double> off;           // of each sample: predicted over measured, less 1
};

/// Minimises the sum over samples of (sum_j coefficients[j] features[sample][j] / values[sample] - 1)^2 over
/// coefficients of at least 0, by trying every set of features that may be above 0 (at most six). Features
/// that depend on each other are not told apart: one of them is left out. Throws kInvalidArgument when there
/// are no samples or a value is not above 0.
Fit fit_costs(const std::vector<std::vector<double>>& features, std::span<const double> values);

}  // namespace aurora::bench
