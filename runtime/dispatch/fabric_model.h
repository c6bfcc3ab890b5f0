// What an exchange takes on the fabric that is there, and the order to choose by it.
//
// The planner's model (fair_sharing.h, port_order.h) is exact about ports and knows of the rest one start-up
// cost. A fabric adds two things, which are measured (fabric_measurement.h): what a message costs beyond its
// bytes when a rank sends one after the other, by size; and how much longer than fair sharing says a group
// takes in which a port serves several peers at once (queues that overflow, resent packets), by the number of
// peers.
//
// Every rank must hold the same numbers and ports: then all choose the same order.
#pragma once

#include <span>
#include <vector>

#include "scheduler/order_policy.h"
#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"

namespace aurora {

struct FabricModel {
  /// A message of a chain, in which a rank sends to one peer after the other and receives likewise:
  /// `extra_us` beyond its bytes at the slower port. Between entries by linear interpolation, above the last
  /// size in proportion to it.
  struct ChainCost {
    double bytes = 0;
    double extra_us = 0;
  };
  /// A group in which some side of a port serves `peers`: `start_us`, and `stretch` times its fair-share
  /// time. Between entries by linear interpolation.
  struct GroupCost {
    double peers = 0;
    double start_us = 0;
    double stretch = 1;
  };
  std::vector<ChainCost> chain;  // by growing size; empty: messages cost their bytes only
  std::vector<GroupCost> group;  // by growing number of peers; empty: groups take their fair-share time

  double chain_extra_us(double bytes) const;
  GroupCost group_cost(double peers) const;
};

/// Microseconds, with ports in bytes per microsecond, one per GPU. Rounds in which every rank sends to one
/// peer at most and receives from one overlap with their neighbours of that kind, as exchange.h executes
/// them; before and after any other round everything ends.
double predicted_exchange_us(const TransmissionOrder& order, std::span<const double> ports,
                             const FabricModel& fabric);

struct ChosenOrder {
  OrderPolicy policy = OrderPolicy::kGroup;
  TransmissionOrder order;
  double predicted_us = 0;
};

/// The policy of the table whose order is predicted to end first; of equals the first. When nothing could end
/// more than the price of planning before the concurrent group, the group, and nothing else is planned.
/// `options.ports` as in order_policy.h; `options.round_cost_us` is not used: the fabric's start-up is.
ChosenOrder choose_order(const TrafficMatrix& traffic, const OrderOptions& options,
                         const FabricModel& fabric);

}  // namespace aurora
