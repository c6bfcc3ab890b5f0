// The best mix of fair rounds: a linear program over sets of pairs.
//
// Whatever runs unpaced, at every moment some set S of pairs is active and has its max-min fair rates r(S);
// so every unpaced execution is a mix of such sets, and the least time of any is
//     minimise sum of t(S)  subject to  sum of t(S) r(S) = bytes,  t >= 0.
// Playing each S for t(S) as a round of its own attains it. A basic solution has at most as many rounds as
// there are pairs. The minimum is never below max(row / B, column / B) and not always equal to it: where
// ports of several speeds are tight at once, no set of fair rates may fill them all (rate_shared_order.h).
//
// There are 2^pairs sets. Column generation (Gilmore and Gomory 1961): the revised simplex method on the sets
// known so far, whose dual prices value a byte of each pair; a set whose rates are worth more than 1 per
// microsecond improves the mix. The most valuable set is looked for by local search (add, drop or replace a
// pair) from a greedy set, from the sets in use and from random sets. So the result is the optimum of the
// sets seen, usually of all: of 442 instances with at most 12 pairs whose optimum is above the bound, it was
// missed on none. Meeting the bound proves it optimal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "scheduler/fair_peeling.h"

namespace aurora {

class RoundMix {
 public:
  /// Starts with each pair alone. The caller keeps `demand`. O(pairs^2) memory. `max_fillings` limits the
  /// work of all that follows: fillings, and pivots of the simplex method in fillings that take as long.
  RoundMix(const FairDemand& demand, std::int64_t max_fillings);

  /// Makes the sets known, and enters them into the mix in their order: peeled rounds reproduce the peeling
  /// where each of them ends a pair.
  void start_from(const std::vector<FairRound>& rounds);
  /// Makes the sets known.
  void offer(const std::vector<FairRound>& rounds);

  /// Improves the mix until its time is at most `target_us`, no better set is found, or the effort ends.
  /// Deterministic. A pivot is O(pairs^2).
  void improve(double target_us);

  double total_us() const { return total_us_; }
  /// Longest first.
  std::vector<FairRound> rounds() const;

 private:
  struct Entry {
    std::size_t row;
    double rate;
  };
  struct Column {
    PairSet pairs;
    std::vector<Entry> entries;
  };

  std::size_t add_column(const PairSet& pairs);
  double worth(const Column& column) const;
  double worth(const PairSet& pairs);
  void optimise_over_known_sets();
  bool enter(std::size_t column);
  void pivot(std::size_t column, std::size_t leaving, double reduced_cost);
  bool find_better_sets();
  bool climb(PairSet pairs);
  bool climb_from_random_sets();
  bool take_best_move(PairSet& pairs, double& best_worth);
  template <class Visit>
  void visit_moves(PairSet& pairs, std::size_t row, Visit visit) const;
  PairSet greedy_set();
  bool has_room(const PairSet& pairs, int source, int destination) const;

  const FairDemand& demand_;
  std::vector<std::size_t> pair_of_row_;
  std::vector<int> row_of_pair_;  // -1: nothing to carry
  FairFilling filling_;
  std::int64_t fillings_left_;
  std::int64_t fillings_of_pivot_ = 0;
  std::vector<Column> columns_;
  std::size_t num_rows_;
  std::vector<double> inverse_;      // [row][row] of the basis
  std::vector<std::size_t> basis_;   // [row] column
  std::vector<double> duration_us_;  // [row] of the basic column
  std::vector<double> price_;        // [row] microseconds per byte
  std::vector<double> direction_;    // scratch: the entering column in terms of the basis
  double total_us_ = 0;
};

}  // namespace aurora
