#include "scheduler/round_mix.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>

#include "scheduler/random.h"

namespace aurora {
namespace {

/// A set improves the mix when it is worth more than 1 by this much; less is rounding.
constexpr double kLeastGain = 1e-9;
/// The same for sets that are looked for: smaller gains are not worth a set.
constexpr double kLeastNewGain = 1e-7;
/// Smallest pivot element relative to the rates, which are of the order of the durations' inverse.
constexpr double kSmallestPivot = 1e-9;
/// A filling takes about as long as a pivot on this many times n^2 elements of the inverse. Measured.
constexpr std::size_t kFillingInPivots = 5;
/// Random sets to climb from, times the number of pairs: with 4, one optimum in 80 was missed by 0.1 %.
constexpr std::size_t kRandomStarts = 16;

}  // namespace

RoundMix::RoundMix(const FairDemand& demand, std::int64_t max_fillings)
    : demand_(demand),
      row_of_pair_(demand.bytes.size(), -1),
      filling_(demand.ports),
      fillings_left_(max_fillings),
      num_rows_(0) {
  for (std::size_t pair = 0; pair < demand.bytes.size(); ++pair) {
    if (demand.bytes[pair] <= 0) continue;
    row_of_pair_[pair] = static_cast<int>(pair_of_row_.size());
    pair_of_row_.push_back(pair);
  }
  num_rows_ = pair_of_row_.size();
  const auto n = static_cast<std::size_t>(demand.num_gpus);
  fillings_of_pivot_ = static_cast<std::int64_t>(1 + num_rows_ * num_rows_ / (kFillingInPivots * n * n));
  inverse_.resize(num_rows_ * num_rows_);
  direction_.resize(num_rows_);
  for (std::size_t row = 0; row < num_rows_; ++row) {
    PairSet alone(demand.num_gpus);
    alone.add(static_cast<int>(pair_of_row_[row]) / demand.num_gpus,
              static_cast<int>(pair_of_row_[row]) % demand.num_gpus);
    basis_.push_back(add_column(alone));
    const double rate = columns_.back().entries.front().rate;
    inverse_[row * num_rows_ + row] = 1 / rate;
    price_.push_back(1 / rate);
    duration_us_.push_back(demand.bytes[pair_of_row_[row]] / rate);
    total_us_ += duration_us_.back();
  }
}

std::size_t RoundMix::add_column(const PairSet& pairs) {
  filling_.fill(pairs);
  Column column{pairs, {}};
  for (int source = 0; source < demand_.num_gpus; ++source) {
    for (std::uint64_t left = pairs.peers(source); left != 0; left &= left - 1) {
      const int destination = std::countr_zero(left);
      const int row = row_of_pair_[static_cast<std::size_t>(source * demand_.num_gpus + destination)];
      column.entries.push_back({static_cast<std::size_t>(row), filling_.rate(source, destination)});
    }
  }
  columns_.push_back(std::move(column));
  return columns_.size() - 1;
}

double RoundMix::worth(const Column& column) const {
  double sum = 0;
  for (const Entry& entry : column.entries) sum += price_[entry.row] * entry.rate;
  return sum;
}

double RoundMix::worth(const PairSet& pairs) {
  filling_.fill(pairs);
  --fillings_left_;
  double sum = 0;
  for (int source = 0; source < demand_.num_gpus; ++source) {
    for (std::uint64_t left = pairs.peers(source); left != 0; left &= left - 1) {
      const int destination = std::countr_zero(left);
      const int row = row_of_pair_[static_cast<std::size_t>(source * demand_.num_gpus + destination)];
      sum += price_[static_cast<std::size_t>(row)] * filling_.rate(source, destination);
    }
  }
  return sum;
}

void RoundMix::offer(const std::vector<FairRound>& rounds) {
  for (const FairRound& round : rounds) add_column(round.pairs);
}

void RoundMix::start_from(const std::vector<FairRound>& rounds) {
  for (const FairRound& round : rounds) {
    if (fillings_left_ > 0) enter(add_column(round.pairs));
  }
}

/// One step of the simplex method; false when numbers are too bad to pivot.
bool RoundMix::enter(std::size_t column) {
  fillings_left_ -= fillings_of_pivot_;
  for (std::size_t row = 0; row < num_rows_; ++row) {
    double sum = 0;
    for (const Entry& entry : columns_[column].entries) {
      sum += inverse_[row * num_rows_ + entry.row] * entry.rate;
    }
    direction_[row] = sum;
  }
  std::size_t leaving = num_rows_;
  double step = std::numeric_limits<double>::infinity();
  for (std::size_t row = 0; row < num_rows_; ++row) {
    if (direction_[row] <= kSmallestPivot) continue;
    const double ratio = duration_us_[row] / direction_[row];
    // Among equals the larger pivot, for the sake of the numbers.
    if (ratio < step || (ratio == step && direction_[row] > direction_[leaving])) {
      step = ratio;
      leaving = row;
    }
  }
  if (leaving == num_rows_) return false;
  const double reduced_cost = 1 - worth(columns_[column]);
  for (std::size_t row = 0; row < num_rows_; ++row) {
    duration_us_[row] = std::max(0.0, duration_us_[row] - step * direction_[row]);
  }
  duration_us_[leaving] = step;
  total_us_ += step * reduced_cost;
  pivot(column, leaving, reduced_cost);
  return true;
}

void RoundMix::pivot(std::size_t column, std::size_t leaving, double reduced_cost) {
  double* pivot_row = &inverse_[leaving * num_rows_];
  const double scale = 1 / direction_[leaving];
  for (std::size_t k = 0; k < num_rows_; ++k) pivot_row[k] *= scale;
  for (std::size_t row = 0; row < num_rows_; ++row) {
    const double factor = direction_[row];
    if (row == leaving || factor == 0) continue;
    double* target = &inverse_[row * num_rows_];
    for (std::size_t k = 0; k < num_rows_; ++k) target[k] -= factor * pivot_row[k];
  }
  for (std::size_t k = 0; k < num_rows_; ++k) price_[k] += reduced_cost * pivot_row[k];
  basis_[leaving] = column;
}

/// Dantzig's rule. The number of pivots is limited, so that cycling on equal durations ends.
void RoundMix::optimise_over_known_sets() {
  const auto n = static_cast<std::size_t>(demand_.num_gpus);
  for (std::size_t pivots_left = 20 * num_rows_ + 100; pivots_left > 0 && fillings_left_ > 0; --pivots_left) {
    fillings_left_ -= static_cast<std::int64_t>(columns_.size() / n);  // a column has about 2 n entries
    double best = 1 + kLeastGain;
    std::size_t entering = columns_.size();
    for (std::size_t column = 0; column < columns_.size(); ++column) {
      const double value = worth(columns_[column]);
      if (value > best) {
        best = value;
        entering = column;
      }
    }
    if (entering == columns_.size() || !enter(entering)) return;
  }
}

bool RoundMix::has_room(const PairSet& pairs, int source, int destination) const {
  return pairs.num_flows(source) < demand_.max_flows &&
         pairs.num_flows(demand_.num_gpus + destination) < demand_.max_flows;
}

PairSet RoundMix::greedy_set() {
  const auto ports = demand_.ports;
  const auto n = static_cast<std::size_t>(demand_.num_gpus);
  std::vector<std::pair<double, std::size_t>> candidates;
  for (std::size_t row = 0; row < num_rows_; ++row) {
    const std::size_t pair = pair_of_row_[row];
    if (price_[row] <= 0) continue;
    candidates.emplace_back(-price_[row] * std::min(ports[pair / n], ports[pair % n]), pair);
  }
  std::sort(candidates.begin(), candidates.end());
  PairSet pairs(demand_.num_gpus);
  double best = 0;
  for (const auto& [key, pair] : candidates) {
    const int source = static_cast<int>(pair / n);
    const int destination = static_cast<int>(pair % n);
    if (!has_room(pairs, source, destination)) continue;
    pairs.add(source, destination);
    const double value = worth(pairs);
    if (value > best) {
      best = value;
    } else {
      pairs.remove(source, destination);
    }
  }
  return pairs;
}

/// Makes each move with the pair of `row` in turn, visits the set, and takes the move back: drop it, add it,
/// or add it in place of another pair of one of its sides.
template <class Visit>
void RoundMix::visit_moves(PairSet& pairs, std::size_t row, Visit visit) const {
  const int n = demand_.num_gpus;
  const int source = static_cast<int>(pair_of_row_[row]) / n;
  const int destination = static_cast<int>(pair_of_row_[row]) % n;
  if (pairs.contains(source, destination)) {
    pairs.remove(source, destination);
    visit();
    pairs.add(source, destination);
    return;
  }
  if (price_[row] <= 0) return;
  const auto add = [&] {
    if (!has_room(pairs, source, destination)) return;
    pairs.add(source, destination);
    visit();
    pairs.remove(source, destination);
  };
  add();
  for (std::uint64_t left = pairs.peers(source); left != 0; left &= left - 1) {
    pairs.remove(source, std::countr_zero(left));
    add();
    pairs.add(source, std::countr_zero(left));
  }
  for (std::uint64_t left = pairs.peers(n + destination); left != 0; left &= left - 1) {
    pairs.remove(std::countr_zero(left), destination);
    add();
    pairs.add(std::countr_zero(left), destination);
  }
}

/// Takes the move that gains most; false when none gains.
bool RoundMix::take_best_move(PairSet& pairs, double& best_worth) {
  PairSet best = pairs;
  bool has_gained = false;
  for (std::size_t row = 0; row < num_rows_; ++row) {
    visit_moves(pairs, row, [&] {
      const double value = worth(pairs);
      if (value <= best_worth + kLeastGain) return;
      best_worth = value;
      best = pairs;
      has_gained = true;
    });
  }
  pairs = best;
  return has_gained;
}

/// Climbs to a local optimum and makes every improving set on the way known.
bool RoundMix::climb(PairSet pairs) {
  bool has_found = false;
  double value = worth(pairs);
  while (fillings_left_ > 0 && take_best_move(pairs, value)) {
    if (value <= 1 + kLeastNewGain) continue;
    add_column(pairs);
    has_found = true;
  }
  return has_found;
}

bool RoundMix::climb_from_random_sets() {
  Random random(1);
  std::vector<std::size_t> rows(num_rows_);
  std::iota(rows.begin(), rows.end(), std::size_t{0});
  for (std::size_t start = 0; start < kRandomStarts * num_rows_ && fillings_left_ > 0; ++start) {
    random.shuffle(rows);
    PairSet pairs(demand_.num_gpus);
    const std::size_t size = 1 + start % (2 * static_cast<std::size_t>(demand_.num_gpus));
    for (std::size_t index = 0; index < std::min(size, num_rows_); ++index) {
      const int source = static_cast<int>(pair_of_row_[rows[index]]) / demand_.num_gpus;
      const int destination = static_cast<int>(pair_of_row_[rows[index]]) % demand_.num_gpus;
      if (has_room(pairs, source, destination)) pairs.add(source, destination);
    }
    if (climb(pairs)) return true;
  }
  return false;
}

/// From a greedy set, from the sets in use, the longest first, and from random sets.
bool RoundMix::find_better_sets() {
  if (climb(greedy_set())) return true;
  std::vector<std::size_t> rows(num_rows_);
  std::iota(rows.begin(), rows.end(), std::size_t{0});
  std::sort(rows.begin(), rows.end(), [&](std::size_t a, std::size_t b) {
    return duration_us_[a] != duration_us_[b] ? duration_us_[a] > duration_us_[b] : a < b;
  });
  const auto climb_from = [&](std::size_t column) {
    return fillings_left_ > 0 && climb(columns_[column].pairs);
  };
  return std::any_of(rows.begin(), rows.end(), [&](std::size_t row) { return climb_from(basis_[row]); }) ||
         climb_from_random_sets();
}

void RoundMix::improve(double target_us) {
  optimise_over_known_sets();
  while (total_us_ > target_us && fillings_left_ > 0 && find_better_sets()) optimise_over_known_sets();
}

std::vector<FairRound> RoundMix::rounds() const {
  std::vector<std::size_t> rows(num_rows_);
  std::iota(rows.begin(), rows.end(), std::size_t{0});
  std::stable_sort(rows.begin(), rows.end(),
                   [&](std::size_t a, std::size_t b) { return duration_us_[a] > duration_us_[b]; });
  std::vector<FairRound> rounds;
  for (const std::size_t row : rows) {
    if (duration_us_[row] > 0) rounds.push_back({columns_[basis_[row]].pairs, duration_us_[row]});
  }
  return rounds;
}

}  // namespace aurora
