// Relaying in which the GPUs are the parties of the exchange: of what a GPU sends to (receives from) other
// nodes, only what its port cannot move within a time limit goes through the ports of its node-mates.
// Messages are not spread otherwise, so that links carry as little as the limit allows: the way for links
// that are not much faster than ports. What remains between carriers and arrivals is an ordinary traffic
// matrix, and any order of it, carried out, is an order of the exchange.
#pragma once

#include <vector>

#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"
#include "scheduler/two_tier_network.h"
#include "scheduler/two_tier_steps.h"

namespace aurora {

/// Carriers and arrivals of all bytes that cross between nodes.
struct GpuRelays {
  std::vector<Parcel> parcels;
  TrafficMatrix port_traffic;  // [carrier][arrival]
  double links_us = 0;         // busiest link: relays and messages within the node
};

/// No port needs more than `limit_us`, which must be at least TwoTierBounds::nodes_us. O(n^2 log n).
GpuRelays relieve_ports(const TrafficMatrix& traffic, const TwoTierNetwork& network, double limit_us);

/// The shortest limit within which the busiest link of relieve_ports() is done as well; at most the busiest
/// port of a direct exchange. Found by bisection to 1 %.
double balanced_limit_us(const TrafficMatrix& traffic, const TwoTierNetwork& network);

/// Carries out `port_order`, an order of `relays.port_traffic` in rounds; those longer than
/// `longest_round_us` are cut.
TwoTierOrder relayed_by_gpus(const TransmissionOrder& port_order, const GpuRelays& relays,
                             const TrafficMatrix& traffic, const TwoTierNetwork& network,
                             double longest_round_us);

}  // namespace aurora
