// Orders for two tiers: nodes exchange in rounds, each node with all its ports at once, and the links inside
// nodes make that possible.
//
// When GPUs of a node send (receive) unequally to other nodes, the busiest port bounds a direct exchange
// while its neighbours idle. Over the links the bytes can be spread first: then only the node's total over
// the sum of its ports is a bound. As in FAST (Lei et al., "FAST: An Efficient Scheduler for All-to-All GPU
// Communication", NSDI'26, arXiv 2505.09764) the matrix of nodes alone is decomposed into rounds of
// one-to-one pairs of nodes (Birkhoff; exact_order.h), and a byte takes up to three hops:
//     source -> carrier        over the link: balancing, so that every port has its share of the node's
//     bytes; carrier -> arrival       through the ports, in the round of the two nodes; arrival ->
//     destination   over the link: redistribution.
// Different from FAST: only what exceeds a GPU's share is moved to another carrier; in each round the GPUs of
// the two nodes are paired in the rotation that brings most bytes straight to their destination, and carriers
// then prefer such bytes; ports may differ, and nodes may have different numbers of GPUs; balancing is spread
// over the rounds instead of preceding them.
//
// The hops are pipelined in steps: step t balances for port round t, runs the ports of round t - 1,
// redistributes what came in round t - 2, and moves messages within nodes as the links have room. All hops of
// a step may run at once; a step starts when the step before it has ended. Long rounds are cut into pieces
// and rounds are ordered short, long, short, so that the first balancing and the last redistribution, which
// have no port round to hide behind, are short.
//
// Relaying costs link time and steps. Where GPUs are balanced already, or links are slow, direct orders win:
// `best_two_tier_order` has them all among its candidates, and the model of two_tier_network.h decides.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/order_policy.h"
#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"
#include "scheduler/two_tier_network.h"
#include "scheduler/units.h"

namespace aurora {

/// Consecutive bytes of one message and the way they take. Hops whose ends are the same GPU do not exist:
/// straight bytes have carrier = source and arrival = destination.
struct Parcel {
  GpuId source;
  GpuId carrier;  // node-mate of `source`
  GpuId arrival;  // node-mate of `destination`
  GpuId destination;
  Bytes offset = 0;  // of the first byte within the message source -> destination
  Bytes bytes = 0;   // above zero
  bool operator==(const Parcel&) const = default;
};

struct TwoTierOrder {
  /// [round] what crosses between nodes.
  std::vector<std::vector<Parcel>> port_rounds;
  /// [step] what stays within a node: one hop over the link, carrier = source, arrival = destination.
  std::vector<std::vector<Parcel>> local_parcels;

  int num_steps() const;
};

/// Bytes [offset, offset + bytes) of the message source -> destination.
struct MessageRange {
  GpuId source;
  GpuId destination;
  Bytes offset = 0;
  Bytes bytes = 0;
};

/// One send of a step and what it carries. A link when both ends are in one node, otherwise ports.
struct Hop {
  GpuId from;
  GpuId to;
  Bytes bytes = 0;
  std::vector<MessageRange> ranges;
};

/// The hops of one step, at most one per tier and pair of GPUs; ordered by (from, to), links after ports.
std::vector<Hop> step_hops(const TwoTierOrder& order, int step, const TwoTierNetwork& network);

/// Steps that move something: what a start-up is paid for.
int num_busy_steps(const TwoTierOrder& order);

/// Whether some byte takes more than one hop.
bool is_relaying(const TwoTierOrder& order);

/// Sum over the busy steps of `round_cost_us` and the step's time under max-min fair sharing.
double predicted_two_tier_us(const TwoTierOrder& order, const TwoTierNetwork& network, double round_cost_us);

/// The rounds of a direct order as steps: the same transfers, the same prediction.
TwoTierOrder without_relays(const TransmissionOrder& order, const TwoTierNetwork& network);

/// The relaying order with the shortest predicted makespan, start-ups not counted: its bound is
/// TwoTierBounds::relayed_us(), missed by what filling and draining the pipeline costs and by steps whose
/// links take longer than the ports beside them. O(rounds * GPUs) parcels beside the order of the nodes.
TwoTierOrder relayed_order(const TrafficMatrix& traffic, const TwoTierNetwork& network);

struct TwoTierOptions {
  double round_cost_us = 10;  // start-up of a step
  int max_steps = 0;          // 0: no limit
  std::uint64_t seed = 1;     // of the random order among the candidates
};

/// The best order by the model: relayed with steps few or many, or any policy of order_policy.h without
/// relays. By the model it loses to none of them. Deterministic.
TwoTierOrder best_two_tier_order(const TrafficMatrix& traffic, const TwoTierNetwork& network,
                                 const TwoTierOptions& options);

}  // namespace aurora
