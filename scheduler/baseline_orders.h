// The orders that plans are measured against: what libraries do, what the literature compares with, and the
// paper's own greedy. None of them promises the bound.
#pragma once

#include <cstdint>

#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"

namespace aurora {

/// Everything at once, in one round; the network shares the ports.
TransmissionOrder concurrent_group(const TrafficMatrix& traffic);

/// n - 1 rounds; in round r, GPU i sends its whole message to GPU (i + r) mod n.
TransmissionOrder rotation_order(const TrafficMatrix& traffic);

/// Whole messages, packed greedily: each round takes, from a list of all messages, every one whose sender and
/// receiver are still free in this round. The list is sorted by descending bytes, by ascending bytes, or
/// shuffled.
TransmissionOrder longest_first_order(const TrafficMatrix& traffic);
TransmissionOrder shortest_first_order(const TrafficMatrix& traffic);
TransmissionOrder random_order(const TrafficMatrix& traffic, std::uint64_t seed);

/// The greedy of Li et al. (arXiv 2410.17043, Algorithm 1), read literally: in each round the GPU with the
/// largest remaining load (of what it has to send and what it has to receive) goes first, then the others by
/// load; each picks for its free sides its largest remaining message that conflicts with none chosen before.
/// The round ends with the shortest of its transfers, and what is left of the others competes again. Misses
/// the bound that it is meant to meet, which is why it is a baseline here.
TransmissionOrder algorithm1_order(const TrafficMatrix& traffic);

}  // namespace aurora
