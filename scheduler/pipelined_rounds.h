// Rounds for a pipeline: what comes before the first round and after the last has nothing to hide behind, so
// both should be short, and neighbours of similar length, so that what runs beside a round fits.
#pragma once

#include <span>
#include <vector>

#include "scheduler/transmission_order.h"
#include "scheduler/units.h"

namespace aurora {

/// floor(bytes * part / whole), whole above zero, without overflow.
Bytes share_of(Bytes bytes, Bytes part, Bytes whole);

/// Cuts rounds of which some port (bytes per microsecond, one per end of a transfer) needs longer than
/// `longest_us` into equal pieces, and orders all by length: short, long, short. The sum of the lengths
/// stays.
std::vector<Round> pipelined_rounds(const TransmissionOrder& order, std::span<const double> ports,
                                    double longest_us);

}  // namespace aurora
