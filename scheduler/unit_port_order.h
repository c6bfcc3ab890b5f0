// Orders for unequal ports of very many GPUs, in which a fast port serves several slow ones at once.
//
// Every port is split into unit ports of equal bandwidth, its traffic evenly over them; the exact order of
// the unit ports meets max(row_i / B_i, column_j / B_j) when each flow gets the units that it was given. The
// unit transfers of a pair in one round are merged into one. What a round then takes is up to the network,
// which shares by max-min fairness and not by our units: 1.0 to 1.2 times the bound. rate_shared_order.h does
// without this loss, in more time.
#pragma once

#include <span>
#include <vector>

#include "scheduler/exact_order.h"

namespace aurora {

/// How many unit ports each port is split into: bandwidths divided by the unit that represents them best with
/// at most `max_units` in sum, each at least 1.
std::vector<int> unit_ports(std::span<const double> ports, int max_units);

/// Visits the rounds, roughly longest first.
void visit_unit_port_rounds(const TrafficMatrix& traffic, std::span<const double> ports,
                            const RoundVisitor& visit);

}  // namespace aurora
