#include "scheduler/aurora_order.h"

#include <algorithm>
#include <limits>

#include "scheduler/baseline_orders.h"
#include "scheduler/exact_order.h"
#include "scheduler/fair_sharing.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/rate_shared_order.h"

namespace aurora {
namespace {

/// The search for the best order: what it judges by, and the best seen.
class OrderSearch {
 public:
  OrderSearch(const TrafficMatrix& traffic, const OrderOptions& options)
      : traffic_(traffic),
        options_(options),
        bound_us_(makespan_bound_us(traffic, options)),
        max_rounds_(options.max_rounds > 0 ? options.max_rounds : std::numeric_limits<int>::max()) {}

  bool group_is_certainly_best() const {
    // Any other order has at least two rounds.
    return max_rounds_ == 1 ||
           2 * bound_us_ + options_.round_cost_us <= bound_us_ + 2 * options_.round_cost_us;
  }

  /// Whether an order of `num_rounds` rounds can beat the best.
  bool can_win(int num_rounds) const {
    return num_rounds <= max_rounds_ && bound_us_ + num_rounds * options_.round_cost_us < best_us_;
  }

  void consider(TransmissionOrder order) {
    if (!can_win(static_cast<int>(order.rounds.size()))) return;
    const double time_us = predicted_makespan_us(order, options_.ports, options_.round_cost_us);
    if (time_us >= best_us_) return;
    best_us_ = time_us;
    best_ = std::move(order);
  }

  using RoundSource = void (*)(const TrafficMatrix&, std::span<const double>, const RoundVisitor&);
  void consider_prefixes(RoundSource visit_rounds);

  TransmissionOrder take_best() { return std::move(best_); }

 private:
  /// Prefixes of 1 to 4 rounds are tried, longer ones at steps of a quarter to a half of their length.
  static bool is_tried(int length) {
    int step = 1;
    while (step * 4 <= length) step *= 2;
    return length % step == 0;
  }

  const TrafficMatrix& traffic_;
  const OrderOptions& options_;
  double bound_us_;
  int max_rounds_;
  double best_us_ = std::numeric_limits<double>::infinity();
  TransmissionOrder best_;
};

void OrderSearch::consider_prefixes(RoundSource visit_rounds) {
  TransmissionOrder prefix;
  TrafficMatrix left = traffic_;
  double prefix_us = 0;
  int best_length = 0;
  bool is_whole = true;
  visit_rounds(traffic_, options_.ports, [&](Round&& round) {
    prefix_us += options_.round_cost_us + fair_share_makespan_us(round.transfers, options_.ports);
    for (const Transfer& transfer : round.transfers) {
      left.add(transfer.source.value, transfer.destination.value, -transfer.bytes);
    }
    prefix.rounds.push_back(std::move(round));
    const int length = static_cast<int>(prefix.rounds.size());
    if (!can_win(length)) {
      is_whole = false;
      return false;
    }
    if (!is_tried(length) || !can_win(length + 1)) return true;
    const double rest_bound_us = makespan_bound_us(left, options_);
    if (rest_bound_us == 0 || prefix_us + rest_bound_us + options_.round_cost_us >= best_us_) return true;
    const double time_us =
        prefix_us + options_.round_cost_us +
        fair_share_makespan_us(concurrent_group(left).rounds.front().transfers, options_.ports);
    if (time_us < best_us_) {
      best_us_ = time_us;
      best_length = length;
    }
    return true;
  });
  if (is_whole && prefix_us < best_us_) {
    best_us_ = prefix_us;
    best_ = std::move(prefix);
    return;
  }
  if (best_length == 0) return;
  prefix.rounds.resize(static_cast<std::size_t>(best_length));
  left = traffic_;
  for (const Round& round : prefix.rounds) {
    for (const Transfer& transfer : round.transfers) {
      left.add(transfer.source.value, transfer.destination.value, -transfer.bytes);
    }
  }
  prefix.rounds.push_back(std::move(concurrent_group(left).rounds.front()));
  best_ = std::move(prefix);
}

}  // namespace

TransmissionOrder aurora_order(const TrafficMatrix& traffic, const OrderOptions& options) {
  OrderSearch search(traffic, options);
  if (search.group_is_certainly_best()) return concurrent_group(traffic);
  search.consider(concurrent_group(traffic));
  if (!search.can_win(2)) return search.take_best();
  search.consider(rotation_order(traffic));
  search.consider(longest_first_order(traffic));
  search.consider(shortest_first_order(traffic));
  search.consider(random_order(traffic, options.seed));
  search.consider(algorithm1_order(traffic));
  search.consider_prefixes(visit_exact_rounds);
  if (!has_equal_ports(options.ports)) search.consider_prefixes(visit_rate_shared_rounds);
  return search.take_best();
}

}  // namespace aurora
