#include "scheduler/bottleneck_matching.h"

#include <algorithm>
#include <cstddef>
#include <limits>

namespace aurora {
namespace {

/// A matching among edges that `allows(row, column)` admits, grown by augmenting paths (Kuhn).
class GrowingMatching {
 public:
  explicit GrowingMatching(int size)
      : size_(size),
        column_of_row_(static_cast<std::size_t>(size), -1),
        row_of_column_(static_cast<std::size_t>(size), -1),
        is_seen_(static_cast<std::size_t>(size)) {}

  /// Extends what is there to a perfect matching; false when there is none.
  template <class Allows>
  bool complete(const Allows& allows) {
    for (int row = 0; row < size_; ++row) {
      if (column_of_row_[row] >= 0) continue;
      std::fill(is_seen_.begin(), is_seen_.end(), false);
      if (!augment(row, allows)) return false;
    }
    return true;
  }

  /// Drops the pairs that `allows` no longer admits.
  template <class Allows>
  void drop_unless(const Allows& allows) {
    for (int row = 0; row < size_; ++row) {
      const int column = column_of_row_[row];
      if (column < 0 || allows(row, column)) continue;
      column_of_row_[row] = -1;
      row_of_column_[column] = -1;
    }
  }

  const std::vector<int>& column_of_row() const { return column_of_row_; }

 private:
  template <class Allows>
  bool augment(int row, const Allows& allows) {
    for (int column = 0; column < size_; ++column) {
      if (is_seen_[column] || !allows(row, column)) continue;
      is_seen_[column] = true;
      if (row_of_column_[column] >= 0 && !augment(row_of_column_[column], allows)) continue;
      column_of_row_[row] = column;
      row_of_column_[column] = row;
      return true;
    }
    return false;
  }

  int size_;
  std::vector<int> column_of_row_;
  std::vector<int> row_of_column_;
  std::vector<bool> is_seen_;
};

std::vector<double> sorted_distinct(std::span<const double> weights) {
  std::vector<double> values(weights.begin(), weights.end());
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

double largest_matched(int size, std::span<const double> weights, const std::vector<int>& column_of_row) {
  double largest = -std::numeric_limits<double>::infinity();
  for (int row = 0; row < size; ++row) {
    largest = std::max(largest, weights[static_cast<std::size_t>(row * size + column_of_row[row])]);
  }
  return largest;
}

}  // namespace

Matching bottleneck_matching(int size, std::span<const double> weights) {
  if (size == 0) return {};
  const std::vector<double> values = sorted_distinct(weights);
  Matching best;
  std::size_t low = 0;
  std::size_t high = values.size() - 1;  // all edges: a perfect matching exists
  while (true) {
    const std::size_t middle = low + (high - low) / 2;
    GrowingMatching matching(size);
    const bool is_perfect = matching.complete([&](int row, int column) {
      return weights[static_cast<std::size_t>(row * size + column)] <= values[middle];
    });
    if (is_perfect) {
      best = {matching.column_of_row(), values[middle]};
      if (middle == low) return best;
      high = middle;
    } else {
      low = middle + 1;
    }
  }
}

Matching bottleneck_sum_matching(int size, std::span<const double> first, std::span<const double> second) {
  if (size == 0) return {};
  const std::vector<double> first_values = sorted_distinct(first);
  const std::vector<double> second_values = sorted_distinct(second);
  Matching best;
  best.value = std::numeric_limits<double>::infinity();
  GrowingMatching matching(size);
  std::size_t second_index = second_values.size() - 1;
  const double least_first = bottleneck_matching(size, first).value;
  // Invariant: within the first thresholds seen so far there is no matching with a second bottleneck below
  // second_values[second_index], unless it has been recorded.
  for (const double first_limit : first_values) {
    if (first_limit < least_first) continue;
    if (first_limit + second_values.front() >= best.value) break;
    for (;;) {
      const double second_limit = second_values[second_index];
      const auto allows = [&](int row, int column) {
        const auto index = static_cast<std::size_t>(row * size + column);
        return first[index] <= first_limit && second[index] <= second_limit;
      };
      matching.drop_unless(allows);
      if (!matching.complete(allows)) break;
      const double value = largest_matched(size, first, matching.column_of_row()) +
                           largest_matched(size, second, matching.column_of_row());
      if (value < best.value) best = {matching.column_of_row(), value};
      if (second_index == 0) return best;
      --second_index;
    }
  }
  return best;
}

}  // namespace aurora
