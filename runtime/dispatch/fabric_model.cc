#include "runtime/dispatch/fabric_model.h"

#include <algorithm>
#include <array>
#include <utility>

#include "runtime/dispatch/batch_recurrence.h"
#include "runtime/dispatch/exchange_plan.h"
#include "runtime/dispatch/lane_simulation.h"
#include "scheduler/fair_sharing.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/pace.h"
#include "scheduler/port_order.h"

namespace aurora {
namespace {

// Planning and predicting all candidates took 1 to 3 ms of CPU time for eight GPUs, before those were left
// out that a bound rules out: to win less than this is not worth it.
constexpr double kPlanningUs = 500;
// Predictions are no better than this: an order that promises less over the concurrent group is as likely to
// lose, and takes planning.
constexpr double kLeastGain = 0.03;

double interpolate(double x, double x0, double x1, double y0, double y1) {
  return y0 + (y1 - y0) * (x - x0) / (x1 - x0);
}

/// The first two neighbours of a list by growing `key` between which `x` lies, or its ends.
template <class Entry>
std::pair<const Entry*, const Entry*> neighbours(const std::vector<Entry>& entries, double Entry::*key,
                                                 double x) {
  const auto above = std::ranges::lower_bound(entries, x, {}, key);
  if (above == entries.begin()) return {&entries.front(), &entries.front()};
  if (above == entries.end()) return {&entries.back(), &entries.back()};
  return {&*above - 1, &*above};
}

/// One side of a port, and how long it takes by its bytes.
struct PortSide {
  int gpu = 0;
  bool sends = true;
  double us = 0;
};

double side_us(const TrafficMatrix& traffic, std::span<const double> ports, int gpu, bool sends) {
  const Bytes bytes = sends ? traffic.row_sum(gpu) : traffic.column_sum(gpu);
  return static_cast<double>(bytes) / ports[static_cast<std::size_t>(gpu)];
}

PortSide busiest_side(const TrafficMatrix& traffic, std::span<const double> ports) {
  PortSide busiest;
  for (int gpu = 0; gpu < traffic.num_gpus(); ++gpu) {
    for (const bool sends : {true, false}) {
      const double us = side_us(traffic, ports, gpu, sends);
      if (us > busiest.us) busiest = {gpu, sends, us};
    }
  }
  return busiest;
}

double bytes_with(const TrafficMatrix& traffic, const PortSide& side, int peer) {
  return static_cast<double>(side.sends ? traffic.at(side.gpu, peer) : traffic.at(peer, side.gpu));
}

TrafficMatrix traffic_of(const Round& round, std::size_t num_gpus) {
  return carried_traffic({.rounds = {round}}, static_cast<int>(num_gpus));
}

double group_us(const Round& round, int peers, std::span<const double> ports, const FabricModel& fabric) {
  const FabricModel::GroupCost cost = fabric.group_cost(peers);
  const TrafficMatrix traffic = traffic_of(round, ports.size());
  const double busyness = peer_busyness(traffic, ports);
  const double stretch = 1 + (cost.stretch - 1) * busyness;
  const double uneven_stretch = 1 + (fabric.uneven_stretch - 1) * (unevenness(traffic, ports) - 1) * busyness;
  return cost.start_us + stretch * uneven_stretch * fair_share_makespan_us(round.transfers, ports);
}

/// What keeps to a plan that no port is too slow for meets nobody, so that nothing but the start takes
/// longer.
double paced_us(const TransmissionOrder& order, const FabricModel& fabric) {
  int peers = 0;
  for (const Round& round : order.rounds) peers = std::max(peers, most_messages_of_a_side(round.transfers));
  return fabric.group_cost(peers).start_us + paced_end_us(order);
}

/// Rounds of single messages overlap with their neighbours of that kind; before and after any other round
/// everything ends.
double lanes_us(const TransmissionOrder& order, std::span<const double> ports, const FabricModel& fabric) {
  if (!order.spans.empty()) return paced_us(order, fabric);
  const auto extra_us = [&](double bytes) { return fabric.message_extra_us(bytes); };
  double us = 0;
  std::vector<Transfer> chain;
  for (const Round& round : order.rounds) {
    const int peers = most_messages_of_a_side(round.transfers);
    if (order.pacing == Pacing::kPorts || peers <= 1) {
      chain.insert(chain.end(), round.transfers.begin(), round.transfers.end());
      continue;
    }
    us += overlapped_makespan_us(chain, ports, extra_us) + group_us(round, peers, ports, fabric);
    chain.clear();
  }
  return us + overlapped_makespan_us(chain, ports, extra_us);
}

double batches_us(const TransmissionOrder& order, std::span<const double> ports, const FabricModel& fabric) {
  BatchRecurrence ranks(ports);
  for (const Round& round : order.rounds) {
    const int peers = most_messages_of_a_side(round.transfers);
    if (peers <= 1) {
      ranks.add_messages(round.transfers, [&](double bytes) { return fabric.message_extra_us(bytes); });
    } else {
      ranks.add_group(round.transfers, group_us(round, peers, ports, fabric));
    }
  }
  return ranks.makespan_us();
}

// Candidates: the group, the paced group, then those that are weighed with barriers and without.
constexpr std::size_t kPacedIndex = 1;
constexpr std::size_t kFirstPair = 2;
constexpr auto kCandidates = [] {
  constexpr std::array kPolicies{
      OrderPolicy::kExact,         OrderPolicy::kAurora, OrderPolicy::kRotation,  OrderPolicy::kLongestFirst,
      OrderPolicy::kShortestFirst, OrderPolicy::kRandom, OrderPolicy::kAlgorithm1};
  // Without its barrier one group of everything is a list in no particular order.
  static_assert(kNumOrderCandidates == kFirstPair + 2 * kPolicies.size());
  std::array<OrderCandidate, kNumOrderCandidates> candidates{OrderCandidate{OrderPolicy::kGroup, false},
                                                             OrderCandidate{OrderPolicy::kPaced, false}};
  for (std::size_t index = 0; index < kPolicies.size(); ++index) {
    candidates[kFirstPair + 2 * index] = {kPolicies[index], false};
    candidates[kFirstPair + 2 * index + 1] = {kPolicies[index], true};
  }
  return candidates;
}();

/// Choosing among candidates, all planned with the same options.
class Choice {
 public:
  Choice(const TrafficMatrix& traffic, const OrderOptions& options, const FabricModel& fabric)
      : traffic_(traffic),
        options_(options),
        fabric_(fabric),
        busyness_(peer_busyness(traffic, options.ports)) {
    best_.order = plan_order(OrderPolicy::kGroup, traffic, options);
    best_.predicted_us = predicted_us(OrderPolicy::kGroup, best_.order);
    least_us_ = best_.predicted_us * (1 - kLeastGain);
  }

  /// Planned in no time. Without lanes it would be the group again.
  void weigh_paced() {
    if (fabric_.execution != ExchangeExecution::kLanes) return;
    take_if_better(kPacedIndex, plan_order(OrderPolicy::kPaced, traffic_, options_));
  }
  bool is_worth_planning() const {
    const double most_gain_us = best_.predicted_us - makespan_bound_us(traffic_, options_);
    return most_gain_us >= std::max(kPlanningUs, kLeastGain * best_.predicted_us);
  }
  /// `index` is of a candidate with barriers, the next that without.
  void weigh_both(std::size_t index) {
    const OrderPolicy policy = kCandidates[index].policy;
    TransmissionOrder order = plan_order(policy, traffic_, options_);
    if (order.pacing == Pacing::kRounds) weigh_without_barriers(index + 1, order);
    take_if_better(index, std::move(order));
  }
  ChosenOrder take() { return std::move(best_); }

 private:
  double predicted_us(OrderPolicy policy, const TransmissionOrder& order) const {
    return fabric_.order_cost(policy).total_us(predicted_exchange_us(order, options_.ports, fabric_),
                                               busyness_);
  }
  /// What the prediction, before its start and stretch, cannot be less than: cheap, and mostly enough to see
  /// that an order of many messages will not be taken.
  double least_us_of(const TransmissionOrder& order) const {
    if (fabric_.execution != ExchangeExecution::kLanes || !order.spans.empty()) return 0;
    std::vector<Transfer> chain;
    for (const Round& round : order.rounds) {
      const bool is_single = order.pacing == Pacing::kPorts || most_messages_of_a_side(round.transfers) <= 1;
      if (!is_single) return 0;  // its messages do not cost what a chain's do
      chain.insert(chain.end(), round.transfers.begin(), round.transfers.end());
    }
    return least_makespan_us(chain, options_.ports,
                             [&](double bytes) { return fabric_.message_extra_us(bytes); });
  }
  void weigh_without_barriers(std::size_t index, const TransmissionOrder& rounds) {
    // Of one round this would be a list in no particular order, in which all begin with the same receiver.
    if (rounds.rounds.size() == 1 && most_messages_of_a_side(rounds.rounds.front().transfers) > 1) return;
    TransmissionOrder ports = without_barriers(rounds);
    // Lanes have no barriers between single messages: without merged neighbours nothing has changed.
    const bool is_same =
        fabric_.execution == ExchangeExecution::kLanes && num_messages(ports) == num_messages(rounds) &&
        std::ranges::all_of(rounds.rounds,
                            [](const Round& round) { return most_messages_of_a_side(round.transfers) <= 1; });
    if (!is_same) take_if_better(index, std::move(ports));
  }
  static std::size_t num_messages(const TransmissionOrder& order) {
    std::size_t count = 0;
    for (const Round& round : order.rounds) count += round.transfers.size();
    return count;
  }
  void take_if_better(std::size_t index, TransmissionOrder order) {
    const OrderPolicy policy = kCandidates[index].policy;
    if (fabric_.start_us + least_us_of(order) >= least_us_ / fabric_.order_cost(policy).stretch_at(busyness_))
      return;
    const double us = predicted_us(policy, order);
    if (us >= least_us_) return;
    best_ = {index, std::move(order), us};
    least_us_ = us;
  }

  const TrafficMatrix& traffic_;
  const OrderOptions& options_;
  const FabricModel& fabric_;
  double busyness_;
  ChosenOrder best_;
  double least_us_ = 0;  // what the next has to be below to be taken
};

}  // namespace

double FabricModel::message_extra_us(double bytes) const {
  if (messages.empty()) return 0;
  if (bytes > messages.back().bytes) return messages.back().extra_us * bytes / messages.back().bytes;
  const auto [below, above] = neighbours(messages, &MessageCost::bytes, bytes);
  if (below == above) return below->extra_us;
  return interpolate(bytes, below->bytes, above->bytes, below->extra_us, above->extra_us);
}

FabricModel::GroupCost FabricModel::group_cost(double peers) const {
  if (groups.empty()) return {.peers = peers};
  const auto [below, above] = neighbours(groups, &GroupCost::peers, peers);
  if (below == above) return *below;
  return {.peers = peers,
          .start_us = interpolate(peers, below->peers, above->peers, below->start_us, above->start_us),
          .stretch = interpolate(peers, below->peers, above->peers, below->stretch, above->stretch)};
}

FabricModel::OrderCost FabricModel::order_cost(OrderPolicy policy) const {
  const auto cost = std::ranges::find(orders, policy, &OrderCost::policy);
  return cost == orders.end() ? OrderCost{.policy = policy} : *cost;
}

double predicted_exchange_us(const TransmissionOrder& order, std::span<const double> ports,
                             const FabricModel& fabric) {
  if (fabric.execution == ExchangeExecution::kLanes) return fabric.start_us + lanes_us(order, ports, fabric);
  return fabric.start_us +
         batches_us(order.pacing == Pacing::kPorts ? one_to_one_rounds(order) : order, ports, fabric);
}

double predicted_policy_us(OrderPolicy policy, const TransmissionOrder& order, std::span<const double> ports,
                           const FabricModel& fabric) {
  const TrafficMatrix traffic = carried_traffic(order, static_cast<int>(ports.size()));
  return fabric.order_cost(policy).total_us(predicted_exchange_us(order, ports, fabric),
                                            peer_busyness(traffic, ports));
}

double peer_busyness(const TrafficMatrix& traffic, std::span<const double> ports) {
  const PortSide busiest = busiest_side(traffic, ports);
  if (!(busiest.us > 0)) return 0;
  double weighted = 0, total = 0;
  for (int peer = 0; peer < traffic.num_gpus(); ++peer) {
    const double bytes = bytes_with(traffic, busiest, peer);
    weighted += bytes * side_us(traffic, ports, peer, !busiest.sends) / busiest.us;
    total += bytes;
  }
  return weighted / total;
}

double unevenness(const TrafficMatrix& traffic, std::span<const double> ports) {
  const PortSide busiest = busiest_side(traffic, ports);
  if (!(busiest.us > 0)) return 1;
  double squares = 0, total = 0;
  int num_messages = 0;
  for (int peer = 0; peer < traffic.num_gpus(); ++peer) {
    const double bytes = bytes_with(traffic, busiest, peer);
    squares += bytes * bytes;
    total += bytes;
    num_messages += bytes > 0 ? 1 : 0;
  }
  return std::min(num_messages * squares / (total * total), kMostUnevenness);
}

std::span<const OrderCandidate, kNumOrderCandidates> order_candidates() { return kCandidates; }

std::string order_candidate_name(const OrderCandidate& candidate) {
  return std::string(order_policy_name(candidate.policy)) +
         (candidate.without_barriers ? " without barriers" : "");
}

ChosenOrder choose_order(const TrafficMatrix& traffic, const OrderOptions& options,
                         const FabricModel& fabric) {
  OrderOptions complete = options;
  complete.ports = port_bandwidths(options, traffic.num_gpus());
  complete.round_cost_us = fabric.message_extra_us(0);
  Choice choice(traffic, complete, fabric);
  choice.weigh_paced();
  if (choice.is_worth_planning()) {
    for (std::size_t index = kFirstPair; index < kCandidates.size(); index += 2) choice.weigh_both(index);
  }
  return choice.take();
}

}  // namespace aurora
