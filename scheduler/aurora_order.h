// The order that Aurora uses: the best that it can find under a cost per round.
//
// A round costs its start-up, so meeting the bound in many rounds can lose to a little more makespan in few.
// The candidates are: every baseline of baseline_orders.h, one concurrent group among them; for a series of
// k, the k longest rounds of the exact order (with unequal ports also of the rate-shared order) followed by
// one concurrent group of all that is left; and the exact order itself. The judge is the model of
// fair_sharing.h plus `round_cost_us` per round; by it the choice never loses to another policy of the table.
// One concurrent group takes at most twice the bound under max-min fairness (at every moment one of a
// transfer's two ports is full), so small exchanges are decided without a search.
#pragma once

#include <span>

#include "scheduler/order_policy.h"

namespace aurora {

/// `options.ports` must be filled, one per GPU.
TransmissionOrder aurora_order(const TrafficMatrix& traffic, const OrderOptions& options);

}  // namespace aurora
