#include "scheduler/fair_peeling.h"

#include <algorithm>
#include <cstddef>
#include <limits>

namespace aurora {
namespace {

/// A side is full, or tight, when no more than this part of its bandwidth, or time, is missing.
constexpr double kFull = 1e-9;
constexpr double kTight = 1e-6;
/// A pair with no more than this part of its bytes left has ended; all pairs thus appear in a round.
constexpr double kEnded = 1e-9;
/// A round that is cut where a side becomes tight lasts at least this part of what is left.
constexpr double kShortestCut = 0.02;

class FairPeeler {
 public:
  FairPeeler(const FairDemand& demand, const PeelingStyle& style)
      : demand_(demand),
        style_(style),
        num_gpus_(demand.num_gpus),
        left_(demand.bytes),
        load_(2 * demand.ports.size()),
        weight_(2 * demand.ports.size()),
        spare_(2 * demand.ports.size()),
        filling_(demand.ports),
        pairs_(demand.num_gpus) {
    for (std::size_t pair = 0; pair < left_.size(); ++pair) {
      if (left_[pair] > 0) open_pairs_.push_back({pair, 0});
    }
  }

  FairPeeling peel(std::int64_t max_fillings);

 private:
  struct OpenPair {
    std::size_t index;  // source * n + destination
    double key;
  };

  int source_of(std::size_t pair) const { return static_cast<int>(pair) / num_gpus_; }
  int receiver_of(std::size_t pair) const { return num_gpus_ + static_cast<int>(pair) % num_gpus_; }
  double port_of(int side) const { return demand_.ports[static_cast<std::size_t>(side % num_gpus_)]; }
  bool is_full(int side) const { return spare_[static_cast<std::size_t>(side)] <= kFull * port_of(side); }

  void weigh_sides();
  void sort_open_pairs();
  void choose_pairs();
  void fill();
  bool may_add(std::size_t pair) const;
  double weighted_use() const;
  double time_to_next_event() const;
  void run(double duration_us);

  const FairDemand& demand_;
  PeelingStyle style_;
  int num_gpus_;
  std::vector<double> left_;  // [source][destination] bytes
  std::vector<double> load_;  // [side] bytes left
  std::vector<double> weight_;
  std::vector<double> spare_;  // [side] of the chosen pairs
  double bound_us_ = 0;        // of what is left
  FairFilling filling_;
  PairSet pairs_;
  std::vector<OpenPair> open_pairs_;
  std::int64_t num_fillings_ = 0;
};

void FairPeeler::weigh_sides() {
  std::fill(load_.begin(), load_.end(), 0.0);
  for (const OpenPair& pair : open_pairs_) {
    load_[static_cast<std::size_t>(source_of(pair.index))] += left_[pair.index];
    load_[static_cast<std::size_t>(receiver_of(pair.index))] += left_[pair.index];
  }
  bound_us_ = 0;
  for (int side = 0; side < 2 * num_gpus_; ++side) {
    bound_us_ = std::max(bound_us_, load_[static_cast<std::size_t>(side)] / port_of(side));
  }
  for (int side = 0; side < 2 * num_gpus_; ++side) {
    double tightness = load_[static_cast<std::size_t>(side)] / port_of(side) / bound_us_;
    for (int doubling = 0; doubling < style_.tightness_doublings; ++doubling) tightness *= tightness;
    weight_[static_cast<std::size_t>(side)] = tightness / port_of(side);
  }
}

/// Large pairs of heavy sides first: large pairs meet large ones, which makes long rounds.
void FairPeeler::sort_open_pairs() {
  for (OpenPair& pair : open_pairs_) {
    pair.key = left_[pair.index] * (weight_[static_cast<std::size_t>(source_of(pair.index))] +
                                    weight_[static_cast<std::size_t>(receiver_of(pair.index))]);
  }
  std::sort(open_pairs_.begin(), open_pairs_.end(), [](const OpenPair& a, const OpenPair& b) {
    return a.key != b.key ? a.key > b.key : a.index < b.index;
  });
}

bool FairPeeler::may_add(std::size_t pair) const {
  const int source = source_of(pair);
  const int receiver = receiver_of(pair);
  if (pairs_.num_flows(source) >= demand_.max_flows || pairs_.num_flows(receiver) >= demand_.max_flows) {
    return false;
  }
  return style_.tries_half_full_pairs ? !is_full(source) || !is_full(receiver)
                                      : !is_full(source) && !is_full(receiver);
}

double FairPeeler::weighted_use() const {
  double use = 0;
  for (int side = 0; side < 2 * num_gpus_; ++side) {
    use += weight_[static_cast<std::size_t>(side)] * (port_of(side) - filling_.spare(side));
  }
  return use;
}

void FairPeeler::fill() {
  filling_.fill(pairs_);
  ++num_fillings_;
}

/// Invariant: `spare_` is what the pairs chosen so far leave.
void FairPeeler::choose_pairs() {
  pairs_.clear();
  for (int side = 0; side < 2 * num_gpus_; ++side) spare_[static_cast<std::size_t>(side)] = port_of(side);
  double best_use = 0;
  for (const OpenPair& pair : open_pairs_) {
    if (!may_add(pair.index)) continue;
    const int source = source_of(pair.index);
    const int destination = receiver_of(pair.index) - num_gpus_;
    pairs_.add(source, destination);
    fill();
    const double use = weighted_use();
    if (use > best_use + kFull * best_use) {
      best_use = use;
      for (int side = 0; side < 2 * num_gpus_; ++side) {
        spare_[static_cast<std::size_t>(side)] = filling_.spare(side);
      }
    } else {
      pairs_.remove(source, destination);
    }
  }
  fill();
}

/// Until a pair ends or a side that is not full becomes tight.
double FairPeeler::time_to_next_event() const {
  double first_us = std::numeric_limits<double>::infinity();
  for (const OpenPair& pair : open_pairs_) {
    const int source = source_of(pair.index);
    const int destination = receiver_of(pair.index) - num_gpus_;
    if (!pairs_.contains(source, destination)) continue;
    first_us = std::min(first_us, left_[pair.index] / filling_.rate(source, destination));
  }
  for (int side = 0; side < 2 * num_gpus_; ++side) {
    if (is_full(side)) continue;
    const double capacity = bound_us_ * port_of(side);
    const double slack = capacity - load_[static_cast<std::size_t>(side)];
    if (slack <= kTight * capacity) continue;
    const double cut_us = slack / filling_.spare(side);
    first_us = std::min(first_us, std::max(cut_us, kShortestCut * bound_us_));
  }
  return first_us;
}

void FairPeeler::run(double duration_us) {
  std::erase_if(open_pairs_, [&](const OpenPair& pair) {
    const int source = source_of(pair.index);
    const int destination = receiver_of(pair.index) - num_gpus_;
    if (!pairs_.contains(source, destination)) return false;
    double& left = left_[pair.index];
    left -= filling_.rate(source, destination) * duration_us;
    return left <= kEnded * demand_.bytes[pair.index];
  });
}

FairPeeling FairPeeler::peel(std::int64_t max_fillings) {
  FairPeeling peeling;
  while (!open_pairs_.empty() && num_fillings_ < max_fillings) {
    weigh_sides();
    sort_open_pairs();
    choose_pairs();
    const double duration_us = time_to_next_event();
    peeling.rounds.push_back({pairs_, duration_us});
    peeling.total_us += duration_us;
    run(duration_us);
  }
  peeling.num_fillings = num_fillings_;
  peeling.is_complete = open_pairs_.empty();
  return peeling;
}

}  // namespace

FairDemand fair_demand(const TrafficMatrix& traffic, std::span<const double> ports, int max_flows) {
  FairDemand demand{.num_gpus = traffic.num_gpus(), .bytes = {}, .ports = ports, .max_flows = max_flows};
  for (int source = 0; source < traffic.num_gpus(); ++source) {
    for (const Bytes bytes : traffic.row(source)) demand.bytes.push_back(static_cast<double>(bytes));
  }
  return demand;
}

double bound_us(const FairDemand& demand) {
  const auto n = static_cast<std::size_t>(demand.num_gpus);
  std::vector<double> load(2 * n);
  for (std::size_t pair = 0; pair < demand.bytes.size(); ++pair) {
    load[pair / n] += demand.bytes[pair];
    load[n + pair % n] += demand.bytes[pair];
  }
  double bound = 0;
  for (std::size_t side = 0; side < load.size(); ++side) {
    bound = std::max(bound, load[side] / demand.ports[side % n]);
  }
  return bound;
}

FairPeeling peel_fair_rounds(const FairDemand& demand, const PeelingStyle& style, std::int64_t max_fillings) {
  return FairPeeler(demand, style).peel(max_fillings);
}

}  // namespace aurora
