// The fit behind `aurora-bench calibrate`, on times whose costs are known.
#include "benchmarks/layer/least_squares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <random>
#include <vector>

#include "kernels/error.h"

namespace aurora::bench {
namespace {

/// Start-up, experts hit, rows: a grid as calibrate takes it.
std::vector<std::vector<double>> grid() {
  std::vector<std::vector<double>> features;
  for (const double hit : {16.0, 32.0, 64.0, 128.0}) {
    for (const double rows : {1.0, 4.0, 16.0, 64.0, 256.0}) features.push_back({1, hit, hit * rows});
  }
  return features;
}

std::vector<double> times(const std::vector<std::vector<double>>& features,
                          const std::vector<double>& costs) {
  std::vector<double> values;
  for (const auto& sample : features) {
    double value = 0;
    for (std::size_t i = 0; i < costs.size(); ++i) value += costs[i] * sample[i];
    values.push_back(value);
  }
  return values;
}

/// Sum of squares of relative errors.
double distance(const std::vector<std::vector<double>>& features, const std::vector<double>& values,
                const std::vector<double>& costs) {
  const std::vector<double> predicted = times(features, costs);
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) sum += std::pow(predicted[i] / values[i] - 1, 2);
  return sum;
}

TEST(FitCosts, RecoversTheCostsThatTimesAreMadeOf) {
  for (const std::vector<double>& costs :
       std::vector<std::vector<double>>{{12, 2.2, 0.007}, {0, 2.2, 0.007}, {12, 0, 1e-4}, {1e-3, 50, 0}}) {
    const Fit fit = fit_costs(grid(), times(grid(), costs));
    ASSERT_EQ(fit.coefficients.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(fit.coefficients[i], costs[i], 1e-6 * (costs[i] + 1e-3));
    for (const double off : fit.off) EXPECT_NEAR(off, 0, 1e-6);
  }
}

TEST(FitCosts, IsTheBestAmongNeighboursWhenTimesAreNoisy) {
  std::cout << "seed 4\n";
  std::mt19937 random(4);
  std::normal_distribution<double> noise(1, 0.05);
  std::vector<double> values = times(grid(), {12, 2.2, 0.007});
  for (double& value : values) value *= noise(random);
  const Fit fit = fit_costs(grid(), values);
  const double least = distance(grid(), values, fit.coefficients);
  for (std::size_t i = 0; i < 3; ++i) {
    for (const double factor : {0.99, 1.01}) {
      std::vector<double> other = fit.coefficients;
      other[i] *= factor;
      EXPECT_GT(distance(grid(), values, other), least) << "coefficient " << i << " times " << factor;
    }
  }
  // Five standard errors of a fit to twenty samples with 5 % noise each.
  EXPECT_NEAR(fit.coefficients[1], 2.2, 0.2 * 2.2);
  EXPECT_NEAR(fit.coefficients[2], 0.007, 0.1 * 0.007);
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_NEAR(fit.off[i], times(grid(), fit.coefficients)[i] / values[i] - 1, 1e-12);
  }
}

TEST(FitCosts, NeverGivesACostBelowZero) {
  // Less the more rows there are.
  std::vector<double> values;
  for (const auto& sample : grid()) values.push_back(1000 - 0.01 * sample[2]);
  const Fit fit = fit_costs(grid(), values);
  EXPECT_GT(fit.coefficients[0], 0);
  EXPECT_EQ(fit.coefficients[2], 0);
  EXPECT_GE(fit.coefficients[1], 0);
}

TEST(FitCosts, LeavesOutWhatCannotBeToldApart) {
  const std::vector<std::vector<double>> features{{1, 4, 8}, {1, 4, 16}, {1, 4, 32}};  // 4 times the first
  const Fit fit = fit_costs(features, times(features, {1, 2, 3}));
  EXPECT_NEAR(fit.coefficients[2], 3, 1e-6);
  EXPECT_NEAR(fit.coefficients[0] + 4 * fit.coefficients[1], 9, 1e-6);
}

TEST(FitCosts, RefusesWhatIsNoMeasurement) {
  EXPECT_THROW(fit_costs({}, {}), Error);
  EXPECT_THROW(fit_costs({{1, 2}}, std::vector<double>{0}), Error);
  EXPECT_THROW(fit_costs({{1, 2}}, std::vector<double>{std::nan("")}), Error);
  EXPECT_THROW(fit_costs({{1, 2}, {1}}, std::vector<double>{1, 1}), Error);
}

}  // namespace
}  // namespace aurora::bench
