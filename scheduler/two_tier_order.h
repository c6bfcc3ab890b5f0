// Orders for two tiers: nodes exchange through all their ports, and the links inside nodes make that
// possible.
//
// When GPUs of a node send (receive) unequally to other nodes, the busiest port bounds a direct exchange
// while its neighbours idle. Over the links the bytes can be spread first: then only the node's total over
// the sum of its ports is a bound. A byte takes up to three hops, as in FAST (Lei et al., "FAST: An Efficient
// Scheduler for All-to-All GPU Communication", NSDI'26, arXiv 2505.09764):
//
// 1. source -> carrier, over the link: balancing, so that every port has its share of the node's bytes;
//
// 2. carrier -> arrival, through the ports;
//
// 3. arrival -> destination, over the link: redistribution.
//
// There are two ways to choose carriers and arrivals. node_relaying.h orders the matrix of nodes, as FAST
// does: few rounds, little planning, for fast links. gpu_relaying.h moves only what a port cannot carry
// within a time limit, and orders the matrix of GPUs that is left: little relaying, for slow links.
//
// The hops are pipelined in steps (two_tier_steps.h): balancing and redistribution run beside the ports, and
// messages within nodes fill what time the links have left. Long rounds are cut into pieces and ordered
// short, long, short, so that the first balancing and the last redistribution, which have no port round to
// hide behind, are short.
//
// Relaying costs link time and steps. Where GPUs are balanced already, or links are slow, direct orders win:
// `best_two_tier_order` has them all among its candidates, and the model of two_tier_network.h decides.
#pragma once

#include <cstdint>

#include "scheduler/order_policy.h"
#include "scheduler/traffic_matrix.h"
#include "scheduler/two_tier_network.h"
#include "scheduler/two_tier_steps.h"

namespace aurora {

/// The relaying order for steps without start-ups. Its bound is TwoTierBounds::relayed_us(), missed by what
/// filling and draining the pipeline costs and by steps whose links take longer than the ports beside them.
/// With links at least as fast as the ports of every node together it relays by nodes and that is all;
/// otherwise it takes the best, by the model, of relaying by nodes and by GPUs.
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
