// When each transfer of an order is under way if all goes by the plan, so that senders can keep to it.
//
// Left to themselves, senders overrun the plan: what a port has handed to its network's buffers is no longer
// in the order's hands, transfers meet that should not, buffers fill, and packets are lost. In the fluid
// model of makespan_bound.h a sender that hands over its bytes evenly, by the clock, meets nobody: the sum at
// every side of every port stays within the port. Then even one round with all transfers at once, each at a
// rate in proportion to its bytes, ends at the bound.
#pragma once

#include <span>

#include "scheduler/transmission_order.h"
#include "scheduler/two_tier_network.h"

namespace aurora {

/// Fills `order.spans`. A round takes as long as its busiest side, all its transfers evenly over that time;
/// without barriers a transfer runs as in port_order.h, without a cost per message. Ports in bytes per
/// microsecond each way, one per GPU. With `tiers`, of the same GPUs, node-mates talk over their links, which
/// are busy beside the ports. O(number of transfers).
void pace(TransmissionOrder& order, std::span<const double> ports, const TwoTierNetwork* tiers = nullptr);

/// Microseconds until the last span ends.
double paced_end_us(const TransmissionOrder& order);

}  // namespace aurora
