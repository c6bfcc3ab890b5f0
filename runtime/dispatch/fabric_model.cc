#include "runtime/dispatch/fabric_model.h"

#include <algorithm>
#include <utility>

#include "runtime/dispatch/lane_simulation.h"
#include "scheduler/fair_sharing.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/port_order.h"

namespace aurora {
namespace {

// Planning and predicting all policies takes 0.2 to 2.5 ms of CPU time for eight GPUs, mostly 0.7: to win
// less than this is not worth it.
constexpr double kPlanningUs = 500;

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

double chain_us(std::span<const Transfer> starts, std::span<const double> ports, const FabricModel& fabric) {
  return overlapped_makespan_us(starts, ports, [&](double bytes) { return fabric.chain_extra_us(bytes); });
}

}  // namespace

double FabricModel::chain_extra_us(double bytes) const {
  if (chain.empty()) return 0;
  if (bytes > chain.back().bytes) return chain.back().extra_us * bytes / chain.back().bytes;
  const auto [below, above] = neighbours(chain, &ChainCost::bytes, bytes);
  if (below == above) return below->extra_us;
  return interpolate(bytes, below->bytes, above->bytes, below->extra_us, above->extra_us);
}

FabricModel::GroupCost FabricModel::group_cost(double peers) const {
  if (group.empty()) return {.peers = peers};
  const auto [below, above] = neighbours(group, &GroupCost::peers, peers);
  if (below == above) return *below;
  return {.peers = peers,
          .start_us = interpolate(peers, below->peers, above->peers, below->start_us, above->start_us),
          .stretch = interpolate(peers, below->peers, above->peers, below->stretch, above->stretch)};
}

double predicted_exchange_us(const TransmissionOrder& order, std::span<const double> ports,
                             const FabricModel& fabric) {
  double us = 0;
  std::vector<Transfer> chain;
  for (const Round& round : order.rounds) {
    const int peers = most_messages_of_a_side(round.transfers);
    if (order.pacing == Pacing::kPorts || peers <= 1) {
      chain.insert(chain.end(), round.transfers.begin(), round.transfers.end());
      continue;
    }
    const FabricModel::GroupCost cost = fabric.group_cost(peers);
    us += chain_us(chain, ports, fabric) + cost.start_us +
          cost.stretch * fair_share_makespan_us(round.transfers, ports);
    chain.clear();
  }
  return us + chain_us(chain, ports, fabric);
}

ChosenOrder choose_order(const TrafficMatrix& traffic, const OrderOptions& options,
                         const FabricModel& fabric) {
  OrderOptions complete = options;
  complete.ports = port_bandwidths(options, traffic.num_gpus());
  complete.round_cost_us = fabric.chain_extra_us(0);
  const auto planned_with = [&](OrderPolicy policy) {
    ChosenOrder planned{policy, plan_order(policy, traffic, complete), 0};
    planned.predicted_us = predicted_exchange_us(planned.order, complete.ports, fabric);
    return planned;
  };
  ChosenOrder best = planned_with(OrderPolicy::kGroup);
  if (best.predicted_us - makespan_bound_us(traffic, complete) < kPlanningUs) return best;
  for (const OrderPolicy policy : all_order_policies()) {
    if (policy == OrderPolicy::kGroup) continue;
    ChosenOrder planned = planned_with(policy);
    if (planned.predicted_us < best.predicted_us) best = std::move(planned);
  }
  return best;
}

}  // namespace aurora
