// Orders for unequal ports, in which a fast port serves several slow ones at once and nobody paces the flows.
//
// Each round is a set of pairs, one flow each, with bytes in proportion to the max-min fair rates that the
// flows have together: they start together, run at these rates and end together. The rounds are to take
// max(row_i / B_i, column_j / B_j), the bound that one-to-one rounds miss. They are peeled greedily
// (fair_peeling.h), in several styles until one meets the bound; when none does, the best mix of all their
// sets and of better ones is a linear program (round_mix.h).
//
// Not every matrix can meet the bound unpaced. A port of 3 sends 1 to one port of 2 and 2 to another: both
// together run at 1.5 and 1.5, so the second receiver is not full, and either alone leaves the sender idle.
// The bound is 1 and the least time 7/6. Dense matrices of 6 and more GPUs reach the bound; few messages, or
// messages of very uneven sizes where all ports are equally busy, often do not. The optimum is then that of
// the linear program, which is a lower bound for everything that nobody paces, one concurrent group and
// orders without barriers included, as long as a pair has one flow at a time.
//
// At most max(4, ceil(fastest / slowest) + 1) flows run at a port side at a time: a fast port needs that many
// slow ones to be full, and one to spare lets shares be mixed. With ports of 100, 80, 50 and 40 Gbit/s three
// are enough on dense traffic of 8 GPUs, and two are not.
#pragma once

#include <cstdint>
#include <span>

#include "scheduler/exact_order.h"

namespace aurora {

/// When to stop looking for better rounds.
struct RateSharedEffort {
  double target_us = 0;           // rounds that take no longer are good enough
  std::int64_t max_fillings = 0;  // fair fillings (fair_sharing.h) or work of as much time
};

/// The largest number of flows that a port side has in a rate-shared round.
int most_flows_of_a_side(std::span<const double> ports);

/// Visits the rounds, roughly longest first. Bytes are whole: a round may end later than in the fluid world
/// by one byte at the rate of its slowest flow. When the effort ends before the first peeling, all that is
/// left is one last round. More than PairSet::kMaxGpus GPUs: the rounds of unit_port_order.h, whatever the
/// effort.
void visit_rate_shared_rounds(const TrafficMatrix& traffic, std::span<const double> ports,
                              const RateSharedEffort& effort, const RoundVisitor& visit);

}  // namespace aurora
