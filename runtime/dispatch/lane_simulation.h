// What exchange.h does with an order in which every rank sends to one peer at a time, where the host drives
// the transport: how long it takes when some chunks of each side are under way at once and share its port
// fairly.
//
// A chunk has ended for its sender when the network has taken it, and between two ranks the network holds
// much: the buffers of a TCP connection grow to megabytes. So of what is left of a message the last
// kHeldBytes do not count at its sender. A message is posted when what counts of the earlier ones of its side
// is fewer than kMostSendsUnderWay chunks, at its receiver kMostReceivesUnderWay of all that is left; it
// flows while both have posted it, at the max-min fair rate (fair_sharing.h) of all that flow. Messages of
// one pair flow one after the other. Chunks are a fluid here, so this is an event simulation of messages:
// O(F) fillings for F messages, whatever their sizes.
#pragma once

#include <functional>
#include <span>

#include "scheduler/transmission_order.h"

namespace aurora {

/// Roughly: Linux lets a send buffer grow to 4 MiB, and orders of 2 MB a port, 300 KB a message, take what
/// one concurrent group takes.
inline constexpr double kHeldBytes = 0x1p20;

/// Microseconds until the last of `starts` has ended, in their order at every side. `extra_us` says by bytes
/// for how long a message takes up its ports beyond them. Ports in bytes per microsecond, one per GPU. Throws
/// kUnsupported for more than PairSet::kMaxGpus.
double overlapped_makespan_us(std::span<const Transfer> starts, std::span<const double> ports,
                              const std::function<double(double bytes)>& extra_us);

/// No more than that: the busiest side, if it were never kept waiting. O(F).
double least_makespan_us(std::span<const Transfer> starts, std::span<const double> ports,
                         const std::function<double(double bytes)>& extra_us);

}  // namespace aurora
