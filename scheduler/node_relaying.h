// Relaying in which the nodes are the parties of the exchange: an order of the nodes is carried out by all
// their GPUs, each round with all their ports (Lei et al., FAST, arXiv 2505.09764). Every message from node
// to node is spread over the GPUs of both nodes in proportion to their ports.
//
// Only what exceeds a GPU's share is moved to another carrier. In each round the GPUs of the two nodes are
// paired in the rotation that brings most bytes straight to their destination; with nodes all alike the flows
// of a round are one to one. Needs few rounds and little planning; needs links that are faster than the ports
// of a node together, because every pair of nodes is balanced for itself.
#pragma once

#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"
#include "scheduler/two_tier_network.h"
#include "scheduler/two_tier_steps.h"

namespace aurora {

/// `node_order`: of node_traffic(), in rounds; those longer than `longest_round_us` are cut. O(GPUs per node)
/// parcels for each of its transfers.
TwoTierOrder relayed_by_nodes(const TransmissionOrder& node_order, const TrafficMatrix& traffic,
                              const TwoTierNetwork& network, double longest_round_us);

}  // namespace aurora
