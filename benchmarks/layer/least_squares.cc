#include "benchmarks/layer/least_squares.h"

#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "kernels/error.h"

namespace aurora::bench {
namespace {

using Matrix = std::vector<std::vector<double>>;  // [row][column]

constexpr std::size_t kMostFeatures = 6;
/// Columns are scaled to length 1; a pivot below this says that one is a combination of the others.
constexpr double kSmallestPivot = 1e-9;

/// Solves a symmetric system by Gaussian elimination with pivots; none when it is singular.
std::optional<std::vector<double>> solved(Matrix a, std::vector<double> b) {
  const std::size_t n = b.size();
  for (std::size_t column = 0; column < n; ++column) {
    std::size_t pivot = column;
    for (std::size_t row = column; row < n; ++row) {
      if (std::fabs(a[row][column]) > std::fabs(a[pivot][column])) pivot = row;
    }
    if (std::fabs(a[pivot][column]) < kSmallestPivot) return std::nullopt;
    std::swap(a[column], a[pivot]);
    std::swap(b[column], b[pivot]);
    for (std::size_t row = column + 1; row < n; ++row) {
      const double factor = a[row][column] / a[column][column];
      for (std::size_t at = column; at < n; ++at) a[row][at] -= factor * a[column][at];
      b[row] -= factor * b[column];
    }
  }
  for (std::size_t row = n; row-- > 0;) {
    for (std::size_t at = row + 1; at < n; ++at) b[row] -= a[row][at] * b[at];
    b[row] /= a[row][row];
  }
  return b;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Coefficients of `columns` whose sum is nearest to 1 in every row; none when they depend on each other or
/// one is below 0.
std::optional<std::vector<double>> nearest_to_one(const Matrix& columns) {
  Matrix products(columns.size(), std::vector<double>(columns.size()));
  std::vector<double> lengths;
  std::vector<double> right;
  const std::vector<double> ones(columns.front().size(), 1);
  for (const auto& column : columns) lengths.push_back(std::sqrt(dot(column, column)));
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (lengths[i] == 0) return std::nullopt;
    for (std::size_t j = 0; j < columns.size(); ++j) {
      products[i][j] = dot(columns[i], columns[j]) / lengths[i] / lengths[j];
    }
    right.push_back(dot(columns[i], ones) / lengths[i]);
  }
  std::optional<std::vector<double>> coefficients = solved(std::move(products), std::move(right));
  if (!coefficients) return std::nullopt;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    (*coefficients)[i] /= lengths[i];
    if (!((*coefficients)[i] >= 0)) return std::nullopt;
  }
  return coefficients;
}

std::vector<double> off_of(const Matrix& columns, const std::vector<double>& coefficients) {
  std::vector<double> off(columns.front().size(), -1);
  for (std::size_t feature = 0; feature < columns.size(); ++feature) {
    for (std::size_t row = 0; row < off.size(); ++row) {
      off[row] += coefficients[feature] * columns[feature][row];
    }
  }
  return off;
}

}  // namespace

Fit fit_costs(const std::vector<std::vector<double>>& features, std::span<const double> values) {
  if (values.empty() || features.size() != values.size()) {
    throw Error(ErrorKind::kInvalidArgument, "a fit needs samples, each with its features");
  }
  const std::size_t num_features = features.front().size();
  check(num_features >= 1 && num_features <= kMostFeatures, "a fit has one to six features");
  Matrix columns(num_features);
  for (std::size_t row = 0; row < values.size(); ++row) {
    if (!(values[row] > 0)) {
      throw Error(ErrorKind::kInvalidArgument, "sample " + std::to_string(row) + " of a fit is " +
                                                   std::to_string(values[row]) + "; it must be above 0");
    }
    check(features[row].size() == num_features, "the samples of a fit have the same features");
    for (std::size_t feature = 0; feature < num_features; ++feature) {
      columns[feature].push_back(features[row][feature] / values[row]);
    }
  }
  Fit best;
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t chosen = 0; chosen < std::size_t{1} << num_features; ++chosen) {
    Matrix used;
    for (std::size_t feature = 0; feature < num_features; ++feature) {
      if ((chosen >> feature & 1) != 0) used.push_back(columns[feature]);
    }
    const auto nearest = used.empty() ? std::vector<double>{} : nearest_to_one(used);
    if (!nearest) continue;
    std::vector<double> coefficients(num_features, 0);
    std::size_t next = 0;
    for (std::size_t feature = 0; feature < num_features; ++feature) {
      if ((chosen >> feature & 1) != 0) coefficients[feature] = (*nearest)[next++];
    }
    std::vector<double> off = off_of(columns, coefficients);
    const double distance = dot(off, off);
    if (!(distance < least)) continue;
    least = distance;
    best = {std::move(coefficients), std::move(off)};
  }
  return best;
}

}  // namespace aurora::bench
