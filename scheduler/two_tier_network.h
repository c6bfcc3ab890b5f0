// The two tiers of a cluster: GPUs of one node reach each other over links, each GPU has a port to the other
// nodes, and both run at once, each way. What a step of an exchange takes on them when nobody paces the
// flows, and what no exchange can beat.
//
// Links: every GPU has one interface of `link_gbps` to a non-blocking switch inside its node (NVLink with
// NVSwitch). Without links (`link_gbps` 0) node-mates talk through their ports, and here every GPU counts as
// a node of its own.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "scheduler/cluster.h"
#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"

namespace aurora {

/// Nodes in the order in which their GPUs appear, their GPUs ascending. Bandwidths in bytes per microsecond,
/// each way.
struct TwoTierNetwork {
  std::vector<int> node_of;            // [gpu]
  std::vector<int> place_of;           // [gpu] position within its node
  std::vector<std::vector<int>> gpus;  // [node]
  std::vector<double> ports;           // [gpu]
  std::vector<double> node_ports;      // [node] sum over its GPUs
  double link = 0;                     // 0: no GPU has a node-mate

  int num_gpus() const { return static_cast<int>(node_of.size()); }
  int num_nodes() const { return static_cast<int>(gpus.size()); }
  bool is_local(GpuId a, GpuId b) const { return node_of[a.value] == node_of[b.value]; }
};

/// Throws std::invalid_argument for a cluster that validate() refuses.
TwoTierNetwork two_tier_network(const ClusterSpec& cluster);

/// Whether some GPU has a node-mate that it reaches over a link.
bool has_two_tiers(const ClusterSpec& cluster);

/// The network of a cluster that has them; null for others.
std::shared_ptr<const TwoTierNetwork> tiers_of(const ClusterSpec& cluster);

/// Bytes from node to node. Throws std::invalid_argument when `traffic` is of another number of GPUs, or
/// naming the node when it would send or receive more than 2^62 bytes.
TrafficMatrix node_traffic(const TrafficMatrix& traffic, const TwoTierNetwork& network);

/// Microseconds that no exchange can beat in which node-mates talk over links.
struct TwoTierBounds {
  double nodes_us = 0;  // busiest node: what leaves (enters) it, over the sum of its ports
  double gpus_us = 0;   // busiest GPU: all that it sends (receives), over its port and link together
  double links_us = 0;  // busiest link: what a GPU sends to (receives from) node-mates, over the link
  double ports_us = 0;  // busiest port: what a GPU sends to (receives from) other nodes, over its port

  /// Holds for all plans, relaying ones among them.
  double relayed_us() const;
  /// Holds when every byte goes straight from its source to its destination.
  double direct_us() const;
};
TwoTierBounds two_tier_bounds(const TrafficMatrix& traffic, const TwoTierNetwork& network);

/// Microseconds until all of `transfers`, started together, have ended under max-min fair sharing of links
/// (between node-mates) and ports (between nodes). Transfers that are not connected through any interface do
/// not share and are simulated one group after the other; a group that must end before the longest one seen
/// is not simulated: a transfer ends within the sum of its two sides' loads, as one of them is always full.
double two_tier_time_us(std::span<const Transfer> transfers, const TwoTierNetwork& network);

/// Sum over the rounds of an order without relays of their time and `round_cost_us`.
double predicted_two_tier_us(const TransmissionOrder& order, const TwoTierNetwork& network,
                             double round_cost_us);

}  // namespace aurora
