#include "scheduler/aurora_order.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

#include "scheduler/baseline_orders.h"
#include "scheduler/exact_order.h"
#include "scheduler/fair_sharing.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/port_order.h"
#include "scheduler/port_search.h"
#include "scheduler/rate_shared_order.h"

namespace aurora {
namespace {

// Nominal prices of the steps of planning, measured at 8 GPUs on a current core and rounded: they decide how
// long it is worth to search, not what is right.
constexpr double kExtensionUs = 0.1;        // PortSearch: one extension weighed
constexpr double kFlowOfFillingUs = 0.004;  // fair sharing: one flow in one change of the rates
constexpr double kFlowOfCrowdUs = 0.02;     // the same at hundreds of GPUs, out of the nearest caches
constexpr double kEntryOfExactUs = 0.1;     // exact order: one entry of the matrix

/// Above this many GPUs only the group and the exact order's prefixes are weighed, and even these only where
/// they may gain what they cost: the other policies take seconds to plan there.
constexpr int kMostSearchedGpus = 64;

/// Of a fair filling among the searches for rate-shared rounds.
double filling_price_us(int num_gpus) { return 0.25 + 0.0015 * num_gpus * num_gpus; }

double simulation_price_us(std::size_t num_flows) {
  constexpr std::size_t kCoarseSteps = 128;  // see kExactFlows
  const std::size_t num_changes = num_flows > kExactFlows ? kCoarseSteps : num_flows;
  const double flow_us =
      num_flows > kMostSearchedGpus * kMostSearchedGpus ? kFlowOfCrowdUs : kFlowOfFillingUs;
  return flow_us * static_cast<double>(num_flows * num_changes);
}

/// Searches end here whatever may be gained: some tens of milliseconds.
constexpr std::int64_t kMostExtensions = 1 << 18;
/// The same for rate-shared rounds. Balanced traffic needs it when rounds are free: 0.7 s at 8 GPUs, 13 s
/// at 64.
constexpr std::int64_t kMostFillings = 1 << 21;
/// Beams, each four times as wide as the one before: up to here before the prefixes, the wider ones after
/// them.
constexpr int kNarrowBeam = 4;
/// The search ends when a beam of this width finds nothing better than the best.
constexpr int kHopelessBeam = 256;
constexpr int kHopelessBeamOfParts = 4;
constexpr int kWidestBeam = 1024;
/// Rate-shared rounds this close to the bound are good enough when rounds are free.
constexpr double kFreeRoundsTolerance = 1e-6;

/// Loads of all port sides in bytes, to be reduced as rounds go.
class LineSums {
 public:
  LineSums(const TrafficMatrix& traffic, std::span<const double> ports) : ports_(ports) {
    for (int gpu = 0; gpu < traffic.num_gpus(); ++gpu) {
      sent_.push_back(traffic.row_sum(gpu));
      received_.push_back(traffic.column_sum(gpu));
    }
  }
  void remove(const Round& round) {
    for (const Transfer& transfer : round.transfers) {
      sent_[static_cast<std::size_t>(transfer.source.value)] -= transfer.bytes;
      received_[static_cast<std::size_t>(transfer.destination.value)] -= transfer.bytes;
    }
  }
  double bound_us() const {
    double bound = 0;
    for (std::size_t gpu = 0; gpu < sent_.size(); ++gpu) {
      bound = std::max(bound, static_cast<double>(std::max(sent_[gpu], received_[gpu])) / ports_[gpu]);
    }
    return bound;
  }

 private:
  std::span<const double> ports_;
  std::vector<Bytes> sent_;
  std::vector<Bytes> received_;
};

/// What a round takes, its start-up apart.
using RoundTime = double (*)(const Round& round, std::span<const double> ports);

/// Of a round in which nobody sends or receives twice.
double one_to_one_us(const Round& round, std::span<const double> ports) {
  double longest = 0;
  for (const Transfer& transfer : round.transfers) {
    const double rate = std::min(ports[static_cast<std::size_t>(transfer.source.value)],
                                 ports[static_cast<std::size_t>(transfer.destination.value)]);
    longest = std::max(longest, static_cast<double>(transfer.bytes) / rate);
  }
  return longest;
}

double shared_us(const Round& round, std::span<const double> ports) {
  return fair_share_makespan_us(round.transfers, ports);
}

/// The first rounds of an order with what is known of them before the rest is simulated.
struct Prefix {
  std::size_t length;
  double us;
  double least_us;     // with the rest at its bound
  double expected_us;  // with the rest as far above its bound as the whole is as one group
};

/// The search for the best order: what it judges by, and the best seen.
class OrderSearch {
 public:
  OrderSearch(const TrafficMatrix& traffic, const OrderOptions& options)
      : traffic_(traffic),
        options_(options),
        cost_us_(options.round_cost_us),
        bound_us_(makespan_bound_us(traffic, options)),
        max_rounds_(options.max_rounds > 0 ? options.max_rounds : std::numeric_limits<int>::max()) {}

  bool group_is_certainly_best() const {
    // Any other order has at least two rounds, or two messages at the busiest port.
    return max_rounds_ == 1 || 2 * bound_us_ + cost_us_ <= bound_us_ + 2 * cost_us_;
  }
  /// Whether an order of at least `num_rounds` rounds can beat the best.
  bool can_win(int num_rounds) const {
    return num_rounds <= max_rounds_ && bound_us_ + num_rounds * cost_us_ < best_us_;
  }

  /// Whether any order can gain enough on the group, which takes at most twice the bound, to pay for
  /// `planning_us`.
  bool may_pay_for(double planning_us) const { return cost_us_ == 0 || 2 * planning_us < bound_us_; }
  /// The same when the group has been weighed.
  bool may_still_pay_for(double planning_us) const { return is_worth(planning_us, bound_us_ + 2 * cost_us_); }

  void consider_group();
  void consider_narrow_beams();
  void consider_baselines();
  template <class VisitRounds>
  void consider_prefixes(VisitRounds visit_rounds, RoundTime round_us);
  void consider_rate_shared_rounds();
  void consider_wide_beams();
  void consider_parts();

  TransmissionOrder take_best() { return std::move(best_); }

 private:
  struct Widths {
    int first;
    int last;
    int hopeless;  // nothing better found with this width or more: the end
  };
  void consider_beams(PortSearch& search, const Widths& widths);
  void consider_without_barriers(const TransmissionOrder& rounds);
  void consider_rest_as_group(std::vector<Prefix> prefixes, std::vector<Round>& rounds);
  bool is_worth(double spent_us, double least_us) const;

  const TrafficMatrix& traffic_;
  const OrderOptions& options_;
  double cost_us_;
  double bound_us_;
  int max_rounds_;
  double group_us_ = 0;
  double best_us_ = std::numeric_limits<double>::infinity();
  TransmissionOrder best_;
  std::vector<Transfer> messages_;            // all, whole
  std::optional<PortSearch> whole_messages_;  // when they fit into max_rounds
};

/// Whether it is worth going on with a search that has spent `spent_us` and cannot find less than `least_us`.
bool OrderSearch::is_worth(double spent_us, double least_us) const {
  const double gain_us = best_us_ - least_us;
  if (cost_us_ == 0) return gain_us > 1e-9 * best_us_;
  return gain_us > cost_us_ && 2 * spent_us < gain_us;
}

void OrderSearch::consider_group() {
  best_ = concurrent_group(traffic_);
  if (best_.rounds.empty()) return;
  messages_ = best_.rounds.front().transfers;
  best_us_ = group_us_ = cost_us_ + fair_share_makespan_us(messages_, options_.ports);
}

void OrderSearch::consider_beams(PortSearch& search, const Widths& widths) {
  std::int64_t extensions =
      0;  // of the last beam: the next one, four times as wide, takes four times as many
  for (int width = widths.first; width <= widths.last; width *= 4) {
    const double least_us = search.lower_bound_us();
    const std::int64_t expected = search.num_evaluations() + 4 * extensions;
    if (least_us >= best_us_ || expected > kMostExtensions) return;
    if (width > 1 && !is_worth(kExtensionUs * static_cast<double>(expected), least_us)) return;
    const std::int64_t before = search.num_evaluations();
    PortSearch::Found found = search.find(width, best_us_);
    extensions = search.num_evaluations() - before;
    if (found.starts.empty()) {
      if (width >= widths.hopeless) return;
    } else {
      best_us_ = found.makespan_us;
      best_ = {.rounds = {{std::move(found.starts)}}, .pacing = Pacing::kPorts};
    }
    if (traffic_.num_gpus() > kMaxBeamGpus) return;  // one list schedule, whatever the width
  }
}

void OrderSearch::consider_narrow_beams() {
  if (most_messages_of_a_side(messages_) > max_rounds_) return;
  whole_messages_.emplace(messages_, options_.ports, cost_us_);
  consider_beams(*whole_messages_, {.first = 1, .last = kNarrowBeam, .hopeless = kHopelessBeam});
}

void OrderSearch::consider_wide_beams() {
  if (whole_messages_ && traffic_.num_gpus() <= kMaxBeamGpus) {
    consider_beams(*whole_messages_,
                   {.first = 4 * kNarrowBeam, .last = kWidestBeam, .hopeless = kHopelessBeam});
  }
}

/// Parts of at most a quarter, an eighth and a sixteenth of the bound, as far as the rounds allow.
void OrderSearch::consider_parts() {
  const int most = most_messages_of_a_side(messages_);
  if (most > max_rounds_) return;
  for (const double share : {0.25, 0.125, 0.0625}) {
    std::vector<Transfer> parts =
        cut_messages(messages_, options_.ports, share * bound_us_, std::min(max_rounds_, 4 * most));
    if (parts.size() == messages_.size()) continue;
    PortSearch search(std::move(parts), options_.ports, cost_us_);
    if (is_worth(0, search.lower_bound_us()))
      consider_beams(search, {.first = 1, .last = kHopelessBeam, .hopeless = kHopelessBeamOfParts});
  }
}

void OrderSearch::consider_without_barriers(const TransmissionOrder& rounds) {
  TransmissionOrder order = without_barriers(rounds);
  if (order.rounds.empty() || num_rounds(order) > max_rounds_) return;
  const double time_us = port_order_makespan_us(order.rounds.front().transfers, options_.ports, cost_us_);
  if (time_us >= best_us_) return;
  best_us_ = time_us;
  best_ = std::move(order);
}

void OrderSearch::consider_baselines() {
  // Whole messages have the least load of all one-to-one orders.
  const PortSearch least(messages_, options_.ports, cost_us_);
  using Plan = TransmissionOrder (*)(const TrafficMatrix&, const OrderOptions&);
  constexpr Plan kPlans[] = {
      [](const TrafficMatrix& traffic, const OrderOptions&) { return rotation_order(traffic); },
      [](const TrafficMatrix& traffic, const OrderOptions&) { return longest_first_order(traffic); },
      [](const TrafficMatrix& traffic, const OrderOptions&) { return shortest_first_order(traffic); },
      [](const TrafficMatrix& traffic, const OrderOptions& options) {
        return random_order(traffic, options.seed);
      },
      [](const TrafficMatrix& traffic, const OrderOptions&) { return algorithm1_order(traffic); },
  };
  for (const Plan plan : kPlans) {
    if (least.most_messages() > max_rounds_ || least.lower_bound_us() >= best_us_) return;
    consider_without_barriers(plan(traffic_, options_));
  }
}

/// Prefixes of 1 to 4 rounds are tried, longer ones at steps of a quarter to a half of their length.
bool is_tried(std::size_t length) {
  std::size_t step = 1;
  while (step * 4 <= length) step *= 2;
  return length % step == 0;
}

template <class VisitRounds>
void OrderSearch::consider_prefixes(VisitRounds visit_rounds, RoundTime round_us) {
  std::vector<Round> rounds;
  std::vector<Prefix> prefixes;
  LineSums left(traffic_, options_.ports);
  const double group_over_bound = (group_us_ - cost_us_) / bound_us_;
  double prefix_us = 0;
  bool is_whole = true;
  visit_rounds([&](Round&& round) {
    prefix_us += cost_us_ + round_us(round, options_.ports);
    left.remove(round);
    rounds.push_back(std::move(round));
    const std::size_t length = rounds.size();
    is_whole = can_win(static_cast<int>(length));
    if (is_whole && is_tried(length) && can_win(static_cast<int>(length) + 1)) {
      const double rest_us = left.bound_us();
      const double least_us = prefix_us + cost_us_ + rest_us;
      if (rest_us > 0 && least_us < best_us_) {
        prefixes.push_back({length, prefix_us, least_us, prefix_us + cost_us_ + rest_us * group_over_bound});
      }
    }
    return is_whole;
  });
  if (is_whole && prefix_us < best_us_) {
    best_us_ = prefix_us;
    best_ = {.rounds = rounds};
  }
  if (is_whole && cost_us_ > 0) consider_without_barriers({.rounds = rounds});
  consider_rest_as_group(std::move(prefixes), rounds);
}

void OrderSearch::consider_rate_shared_rounds() {
  RateSharedEffort effort{.target_us = bound_us_ * (1 + kFreeRoundsTolerance), .max_fillings = kMostFillings};
  if (cost_us_ > 0) {
    effort.target_us = std::max(effort.target_us, bound_us_ + cost_us_);
    const double gain_us = best_us_ - bound_us_ - 2 * cost_us_;
    const double worth_fillings = gain_us / 2 / filling_price_us(traffic_.num_gpus());
    effort.max_fillings = std::min(kMostFillings, static_cast<std::int64_t>(worth_fillings));
  }
  if (effort.max_fillings == 0) return;
  consider_prefixes(
      [&](const auto& visit) { visit_rate_shared_rounds(traffic_, options_.ports, effort, visit); },
      shared_us);
}

/// Simulates the prefixes with all that is left as one group, the most promising first.
void OrderSearch::consider_rest_as_group(std::vector<Prefix> prefixes, std::vector<Round>& rounds) {
  std::stable_sort(prefixes.begin(), prefixes.end(),
                   [](const Prefix& a, const Prefix& b) { return a.expected_us < b.expected_us; });
  double spent_us = 0;
  std::vector<Transfer> best_rest;
  std::size_t best_length = 0;
  for (const Prefix& prefix : prefixes) {
    if (prefix.least_us >= best_us_) continue;
    TrafficMatrix left = traffic_;
    for (std::size_t index = 0; index < prefix.length; ++index) {
      for (const Transfer& transfer : rounds[index].transfers) {
        left.add(transfer.source.value, transfer.destination.value, -transfer.bytes);
      }
    }
    std::vector<Transfer> rest = std::move(concurrent_group(left).rounds.front().transfers);
    spent_us += simulation_price_us(rest.size());
    if (!is_worth(spent_us, prefix.least_us)) break;
    const double time_us = prefix.us + cost_us_ + fair_share_makespan_us(rest, options_.ports);
    if (time_us >= best_us_) continue;
    best_us_ = time_us;
    best_rest = std::move(rest);
    best_length = prefix.length;
  }
  if (best_length == 0) return;
  rounds.resize(best_length);
  rounds.push_back({std::move(best_rest)});
  best_ = {.rounds = std::move(rounds)};
}

TransmissionOrder order_of_many(const TrafficMatrix& traffic, const OrderOptions& options) {
  OrderSearch search(traffic, options);
  const auto n = static_cast<std::size_t>(traffic.num_gpus());
  if (search.group_is_certainly_best() || !search.may_pay_for(simulation_price_us(n * n))) {
    return concurrent_group(traffic);
  }
  search.consider_group();
  if (search.can_win(2) && search.may_still_pay_for(kEntryOfExactUs * static_cast<double>(n * n))) {
    search.consider_prefixes([&](const auto& visit) { visit_exact_rounds(traffic, options.ports, visit); },
                             one_to_one_us);
    if (search.can_win(2) && !has_equal_ports(options.ports)) search.consider_rate_shared_rounds();
  }
  return search.take_best();
}

}  // namespace

TransmissionOrder aurora_order(const TrafficMatrix& traffic, const OrderOptions& options) {
  if (traffic.num_gpus() > kMostSearchedGpus) return order_of_many(traffic, options);
  OrderSearch search(traffic, options);
  if (search.group_is_certainly_best()) return concurrent_group(traffic);
  search.consider_group();
  if (!search.can_win(2)) return search.take_best();
  search.consider_narrow_beams();
  if (search.can_win(2)) {
    search.consider_prefixes([&](const auto& visit) { visit_exact_rounds(traffic, options.ports, visit); },
                             one_to_one_us);
  }
  if (search.can_win(2) && !has_equal_ports(options.ports)) {
    search.consider_rate_shared_rounds();
  }
  search.consider_wide_beams();
  search.consider_parts();
  search.consider_baselines();
  return search.take_best();
}

}  // namespace aurora
