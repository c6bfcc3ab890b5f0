// Families of random traffic matrices on which orders are proven: from evenly spread to the shapes that are
// known to be hard for schedulers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "scheduler/traffic_matrix.h"

namespace aurora::test {

enum class Family {
  kUniform,
  kZipfRows,
  kZipfColumns,
  kZipfBoth,
  kSparse,
  kBalancedMild,
  kBalancedUneven,
  kOneHotPair,
  kPermutation,
  kZero,
};

inline const std::vector<Family>& all_families() {
  static const std::vector<Family> families{
      Family::kUniform,     Family::kZipfRows,     Family::kZipfColumns,    Family::kZipfBoth,
      Family::kSparse,      Family::kBalancedMild, Family::kBalancedUneven, Family::kOneHotPair,
      Family::kPermutation, Family::kZero};
  return families;
}

inline std::string family_name(Family family) {
  static const std::vector<std::string> names{"Uniform",     "ZipfRows",     "ZipfColumns",    "ZipfBoth",
                                              "Sparse",      "BalancedMild", "BalancedUneven", "OneHotPair",
                                              "Permutation", "Zero"};
  return names[static_cast<std::size_t>(family)];
}

/// Scales rows and columns in turn until all sum to nearly the same (Sinkhorn); the diagonal stays zero.
inline void balance(std::vector<double>& weights, int n) {
  for (int pass = 0; pass < 100; ++pass) {
    for (const bool by_rows : {true, false}) {
      for (int line = 0; line < n; ++line) {
        const auto at = [&](int i) -> double& {
          return weights[static_cast<std::size_t>(by_rows ? line * n + i : i * n + line)];
        };
        double sum = 0;
        for (int i = 0; i < n; ++i) sum += at(i);
        for (int i = 0; i < n && sum > 0; ++i) at(i) /= sum;
      }
    }
  }
}

inline TrafficMatrix random_traffic(Family family, int n, std::mt19937_64& random, double scale = 1e7) {
  std::uniform_real_distribution<double> unit(0, 1);
  std::vector<int> rank(static_cast<std::size_t>(n));
  std::iota(rank.begin(), rank.end(), 0);
  std::shuffle(rank.begin(), rank.end(), random);
  std::vector<double> weights(static_cast<std::size_t>(n) * static_cast<std::size_t>(n));
  const int hot_row = static_cast<int>(random() % static_cast<std::uint64_t>(n));
  const int hot_column = static_cast<int>(random() % static_cast<std::uint64_t>(n));
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      double& weight = weights[static_cast<std::size_t>(i * n + j)];
      if (i == j) continue;
      weight = unit(random);
      if (family == Family::kZipfRows || family == Family::kZipfBoth) weight /= 1 + rank[i];
      if (family == Family::kZipfColumns || family == Family::kZipfBoth) weight /= 1 + rank[j];
      if (family == Family::kSparse && unit(random) > 0.2) weight = 0;
      if (family == Family::kBalancedMild) weight = 1 + 0.3 * weight;
      if (family == Family::kBalancedUneven) weight = std::pow(weight, 4) + 1e-3;
      if (family == Family::kOneHotPair) weight = i == hot_row && j == hot_column ? n : 0.1 * weight;
      if (family == Family::kPermutation) weight = rank[i] == j ? weight : 0;
      if (family == Family::kZero) weight = 0;
    }
  }
  if (family == Family::kBalancedMild || family == Family::kBalancedUneven) balance(weights, n);
  TrafficMatrix traffic(n);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      traffic.set(i, j,
                  static_cast<Bytes>(std::llround(weights[static_cast<std::size_t>(i * n + j)] * scale)));
    }
  }
  return traffic;
}

}  // namespace aurora::test
