// Messages between GPUs of one node in an exchange whose port rounds are planned: they take the links while
// the ports are busy.
#pragma once

#include "scheduler/traffic_matrix.h"
#include "scheduler/two_tier_network.h"
#include "scheduler/two_tier_steps.h"

namespace aurora {

/// Fills `order.local_parcels`, empty before, with all messages of `traffic` within nodes: into the steps, as
/// far as links have time beside the ports; what finds no room is appended in rounds of its own, in the exact
/// order of the links.
void place_local_messages(const TrafficMatrix& traffic, const TwoTierNetwork& network, TwoTierOrder& order);

}  // namespace aurora
