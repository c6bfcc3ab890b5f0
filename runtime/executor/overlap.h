// How much of a rank's time its device computed, and how much of its exchanges was hidden under compute.
//
// From intervals: the compute of a rank never overlaps itself, its exchanges do. An exchange is exposed while
// nothing computes on the rank, no matter whose compute it is that would hide it. Intervals are of one turn:
// between two turns nothing is under way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/moe/phase.h"

namespace aurora {

struct Interval {
  std::int64_t start_ns = 0;
  std::int64_t end_ns = 0;  // not before the start
};

/// Sorted, and joined where they overlap or touch.
std::vector<Interval> joined(std::vector<Interval> intervals);
/// Nanoseconds covered by joined intervals.
std::int64_t covered_ns(const std::vector<Interval>& joined_intervals);
/// Nanoseconds in both of two joined sets.
std::int64_t common_ns(const std::vector<Interval>& a, const std::vector<Interval>& b);

struct OverlapTotal {
  double compute_seconds = 0;   // in which something of it computed
  double exchange_seconds = 0;  // in which at least one of its exchanges was under way
  double exposed_seconds = 0;   // of these, in which the rank computed nothing at all

  friend bool operator==(const OverlapTotal&, const OverlapTotal&) = default;
};

/// Sums over turns, by model and for all models together.
class OverlapMeter {
 public:
  explicit OverlapMeter(std::size_t num_models);

  void add(std::size_t model_index, Phase phase, const Interval& interval);
  /// Nothing of what was added so far is under way any more.
  void end_turn();

  /// [num_models], then that of all models.
  const std::vector<OverlapTotal>& totals() const { return totals_; }

 private:
  struct Pending {
    std::vector<Interval> compute, exchanges;
  };

  std::vector<Pending> pending_;      // [model]
  std::vector<OverlapTotal> totals_;  // [model + 1]
};

}  // namespace aurora
