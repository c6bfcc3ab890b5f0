// The order that Aurora uses: the best that it can find under a cost per round.
//
// A round costs its start-up, so meeting the bound in many rounds can lose to a little more makespan in few.
// The candidates are
//  * one concurrent group;
//  * orders without barriers (port_order.h) of whole messages, found by port_search.h, and of messages cut
//    into parts; in them each message costs what a round costs;
//  * the other policies: their rounds are one to one, so they take no longer when their barriers go, and that
//    is how they are weighed;
//  * for a series of k, the k longest rounds of the exact order (with unequal ports also of the rate-shared
//    order) followed by one concurrent group of all that is left; and the exact order itself, with barriers
//    and without.
// The judge is the model of fair_sharing.h and port_order.h with `round_cost_us` per round or message; by it
// the choice never loses to another policy of the table, up to 64 GPUs.
//
// Planning takes time of its own, at run time, before every exchange. Candidates are therefore skipped when a
// lower bound shows that they cannot win, and where a search can be short or long (the width of the beam, the
// number of prefixes simulated) it goes on only while the best is more than `round_cost_us` from the lower
// bound and while what was spent, at a nominal price per step, is less than what may be gained. With free
// rounds only quality counts, up to a fixed effort. Effort is counted, not timed: the choice is the same on
// every machine. One concurrent group takes at most twice the bound under max-min fairness (at every moment
// one of a transfer's two ports is full), so small exchanges are decided without any search.
//
// Above 64 GPUs the searches without barriers and the other policies would take seconds: only the group and
// the prefixes of the exact (and rate-shared) order are weighed, each only where planning it may pay, so that
// a short exchange of many GPUs runs as one group.
#pragma once

#include "scheduler/order_policy.h"

namespace aurora {

/// `options.ports` must be filled, one per GPU. `options.max_rounds` limits the rounds, or the messages at
/// each side of a port when there are no barriers.
TransmissionOrder aurora_order(const TrafficMatrix& traffic, const OrderOptions& options);

}  // namespace aurora
