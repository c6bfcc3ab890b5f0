// Orders whose rounds are one to one: nobody sends or receives twice in a round.
//
// With equal ports the makespan equals the bound (max of row and column sums), exactly, in at most n^2 - 2n +
// 2 rounds. With unequal ports a transfer runs at the slower of its two ports, the same decomposition is made
// of times instead of bytes, and the makespan equals the one-to-one bound up to one clock tick (2^-40 of it)
// per round; orders in which a port serves several peers can be faster (rate_shared_order.h).
#pragma once

#include <functional>
#include <span>

#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"

namespace aurora {

/// Visits the rounds of the exact order, longest first (roughly: the threshold of birkhoff.h falls). `visit`
/// returns false to stop early. O(n^2) memory; about n^3 to n^4/64 time in practice.
using RoundVisitor = std::function<bool(Round&& round)>;
void visit_exact_rounds(const TrafficMatrix& traffic, std::span<const double> ports,
                        const RoundVisitor& visit);

/// The rounds in whatever sequence is planned quickest.
TransmissionOrder exact_order(const TrafficMatrix& traffic, std::span<const double> ports);

}  // namespace aurora
