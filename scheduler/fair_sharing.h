// What the network does when nobody paces the flows: every moment's rates are max-min fair over the send and
// receive side of each port. This predicts rounds in which a port serves several peers, one concurrent group
// of everything among them. A model of the network, not a plan: plans are judged by it.
//
// Progressive filling (Bertsekas and Gallager, Data Networks, 6.5): the port with the smallest equal share
// fixes the rates of its flows; repeat on what is left. Rates change only when a transfer ends.
#pragma once

#include <span>
#include <vector>

#include "scheduler/transmission_order.h"

namespace aurora {

/// Microseconds until all transfers, started together, have ended; ports in bytes per microsecond each way.
/// With more than `kExactFlows` transfers, those that end within 1/128 of the bound end together, which
/// over-estimates by about as much.
inline constexpr std::size_t kExactFlows = 1024;
double fair_share_makespan_us(std::span<const Transfer> transfers, std::span<const double> ports);

/// Sum over rounds of the round's fair-share time and `round_cost_us`.
double predicted_makespan_us(const TransmissionOrder& order, std::span<const double> ports,
                             double round_cost_us);

/// Max-min fair rate of each of `transfers` while all of them are active, bytes per microsecond.
std::vector<double> fair_rates(std::span<const Transfer> transfers, std::span<const double> ports);

}  // namespace aurora
