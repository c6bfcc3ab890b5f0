// An order within a stated part of the bound, in few rounds, for exchanges that are too large to search for
// the best.
//
// The exact order has its long rounds first: of the 6 n to 7 n rounds at 320 GPUs the first 2 n cover 97 % or
// more. So its longest rounds are taken until what is left is at most `tolerance` of the bound, and all that
// is left runs as one concurrent group. Under max-min fair sharing a group takes at most twice its own bound
// (at every moment one of a transfer's two ports is full), hence the makespan is at most (1 + tolerance)
// times the bound.
#pragma once

#include <span>

#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"

namespace aurora {

/// With unequal ports the bound is the one for one peer at a time (makespan_bound.h). `ports` as in
/// exact_order.h; `tolerance` is 0 (the exact order) or above. Deterministic; at most the time of the exact
/// order.
TransmissionOrder bounded_order(const TrafficMatrix& traffic, std::span<const double> ports,
                                double tolerance);

}  // namespace aurora
