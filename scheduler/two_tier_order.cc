#include "scheduler/two_tier_order.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "scheduler/gpu_relaying.h"
#include "scheduler/local_messages.h"
#include "scheduler/node_relaying.h"

namespace aurora {
namespace {

/// Numbers of pieces that the relayed traffic is cut into at least: few fill the pipeline worse, many cost
/// more start-ups.
constexpr std::array kPiecesWithoutCost{96};
constexpr std::array kPiecesUnderCost{1, 2, 4, 8, 16, 32, 64, 128};

/// What ports carry when every byte goes straight.
TrafficMatrix crossing_traffic(const TrafficMatrix& traffic, const TwoTierNetwork& network) {
  TrafficMatrix crossing = traffic;
  for (const auto& gpus : network.gpus) {
    for (const int source : gpus) {
      for (const int destination : gpus) crossing.set(source, destination, 0);
    }
  }
  return crossing;
}

/// Whether relaying by nodes hides behind the ports: a link then moves all that its node sends meanwhile.
bool has_fast_links(const TwoTierNetwork& network) {
  return network.link >= *std::max_element(network.node_ports.begin(), network.node_ports.end());
}

bool has_equal_nodes(const TwoTierNetwork& network) {
  return std::adjacent_find(network.node_ports.begin(), network.node_ports.end(), std::not_equal_to<>()) ==
         network.node_ports.end();
}

/// The best order seen under a cost per step.
class TwoTierSearch {
 public:
  TwoTierSearch(const TrafficMatrix& traffic, const TwoTierNetwork& network, const TwoTierOptions& options)
      : traffic_(traffic),
        network_(network),
        options_(options),
        bounds_(two_tier_bounds(traffic, network)),
        between_nodes_(node_traffic(traffic, network)) {
    if (!(options.round_cost_us >= 0) || options.max_steps < 0) {
      throw std::invalid_argument("round cost " + std::to_string(options.round_cost_us) +
                                  " us and step limit " + std::to_string(options.max_steps) +
                                  " must not be negative");
    }
  }

  void consider_by_nodes(OrderPolicy policy, std::span<const int> piece_counts);
  void consider_by_gpus(std::span<const OrderPolicy> policies, std::span<const int> piece_counts);
  void consider_direct();
  TwoTierOrder take_best() { return std::move(best_); }

 private:
  bool can_win(double bound_us, int num_steps) const {
    return (options_.max_steps == 0 || num_steps <= options_.max_steps) &&
           bound_us + num_steps * options_.round_cost_us < best_us_;
  }
  void consider(TwoTierOrder order, double bound_us) {
    if (!can_win(bound_us, num_busy_steps(order))) return;
    const double time_us = predicted_two_tier_us(order, network_, options_.round_cost_us);
    if (time_us >= best_us_) return;
    best_us_ = time_us;
    best_ = std::move(order);
  }
  /// `carry_out(longest_round_us)` cuts `num_rounds` rounds.
  template <class CarryOut>
  void consider_pieces(int num_rounds, std::span<const int> piece_counts, const CarryOut& carry_out) {
    for (const int num_pieces : piece_counts) {
      if (num_rounds > 0 && !can_win(bounds_.relayed_us(), std::max(num_pieces, num_rounds))) return;
      consider(carry_out(bounds_.nodes_us / num_pieces), bounds_.relayed_us());
    }
  }
  /// Steps are separated by barriers; where a policy prefers to do without, the exact rounds stand in.
  TransmissionOrder rounds_of(OrderPolicy policy, const TrafficMatrix& traffic,
                              const std::vector<double>& ports) const {
    OrderOptions options;
    options.ports = ports;
    options.round_cost_us = options_.round_cost_us;
    options.max_rounds = options_.max_steps;
    options.seed = options_.seed;
    TransmissionOrder order = plan_order(policy, traffic, options);
    if (order.pacing == Pacing::kRounds) return order;
    return plan_order(OrderPolicy::kExact, traffic, options);
  }

  const TrafficMatrix& traffic_;
  const TwoTierNetwork& network_;
  const TwoTierOptions& options_;
  TwoTierBounds bounds_;
  TrafficMatrix between_nodes_;
  double best_us_ = std::numeric_limits<double>::infinity();
  TwoTierOrder best_;
};

void TwoTierSearch::consider_by_nodes(OrderPolicy policy, std::span<const int> piece_counts) {
  const TransmissionOrder node_order = rounds_of(policy, between_nodes_, network_.node_ports);
  consider_pieces(static_cast<int>(node_order.rounds.size()), piece_counts, [&](double longest_us) {
    return relayed_by_nodes(node_order, traffic_, network_, longest_us);
  });
}

void TwoTierSearch::consider_by_gpus(std::span<const OrderPolicy> policies,
                                     std::span<const int> piece_counts) {
  std::vector<double> limits{bounds_.nodes_us, balanced_limit_us(traffic_, network_)};
  if (limits[1] == limits[0]) limits.pop_back();
  for (const double limit_us : limits) {
    const GpuRelays relays = relieve_ports(traffic_, network_, limit_us);
    for (const OrderPolicy policy : policies) {
      const TransmissionOrder order = rounds_of(policy, relays.port_traffic, network_.ports);
      consider_pieces(static_cast<int>(order.rounds.size()), piece_counts, [&](double longest_us) {
        return relayed_by_gpus(order, relays, traffic_, network_, longest_us);
      });
    }
  }
}

void TwoTierSearch::consider_direct() {
  const TrafficMatrix crossing = crossing_traffic(traffic_, network_);
  for (const OrderPolicy policy : all_order_policies()) {
    if (policy == OrderPolicy::kPaced) continue;  // to this network's model the group
    if (!can_win(bounds_.direct_us(), policy == OrderPolicy::kGroup ? 1 : 2)) continue;
    if (network_.link > 0) {
      TwoTierOrder order = without_relays(rounds_of(policy, crossing, network_.ports), network_);
      order.local_parcels.clear();
      place_local_messages(traffic_, network_, order);
      consider(std::move(order), bounds_.direct_us());
    }
    consider(without_relays(rounds_of(policy, traffic_, network_.ports), network_), bounds_.direct_us());
  }
}

}  // namespace

TwoTierOrder relayed_order(const TrafficMatrix& traffic, const TwoTierNetwork& network) {
  if (network.link == 0 || (has_fast_links(network) && has_equal_nodes(network))) {
    OrderOptions options;
    options.ports = network.node_ports;
    const int num_pieces = network.link == 0 ? 1 : kPiecesWithoutCost.front();
    return relayed_by_nodes(plan_order(OrderPolicy::kExact, node_traffic(traffic, network), options), traffic,
                            network, two_tier_bounds(traffic, network).nodes_us / num_pieces);
  }
  const TwoTierOptions options{.round_cost_us = 0};
  TwoTierSearch search(traffic, network, options);
  constexpr std::array kGpuPolicies{OrderPolicy::kExact};
  search.consider_by_nodes(OrderPolicy::kExact, kPiecesWithoutCost);
  if (!has_equal_nodes(network)) search.consider_by_nodes(OrderPolicy::kAurora, kPiecesWithoutCost);
  search.consider_by_gpus(kGpuPolicies, kPiecesWithoutCost);
  return search.take_best();
}

TwoTierOrder best_two_tier_order(const TrafficMatrix& traffic, const TwoTierNetwork& network,
                                 const TwoTierOptions& options) {
  TwoTierSearch search(traffic, network, options);
  if (network.link > 0) {
    constexpr std::array kGpuPolicies{OrderPolicy::kAurora, OrderPolicy::kGroup};
    search.consider_by_nodes(OrderPolicy::kAurora, kPiecesUnderCost);
    search.consider_by_nodes(OrderPolicy::kGroup, kPiecesUnderCost);
    search.consider_by_gpus(kGpuPolicies, kPiecesUnderCost);
  }
  search.consider_direct();
  return search.take_best();
}

}  // namespace aurora
