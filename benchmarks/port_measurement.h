// The bandwidth of every rank's port, from exchanges in which one rank alone sends, or alone receives, and
// all others have the other end.
//
// One port is then the bottleneck, unless the others together are slower: with two ranks only the slower of
// the two ports shows. From the times of two sizes, so that start-ups and what a shaper lets pass at once do
// not count; the larger grows until it takes 20 ms, or is 256 MiB. Where the two directions differ the slower
// counts, since a cluster file has one number for both.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "runtime/transport/transport.h"

namespace aurora::bench {

struct PortProbe {
  Transport& transport;  // of at least two ranks
  Backend& backend;      // whose memory the transport moves
  std::uint32_t exchange_tag = 0;
  std::uint32_t control_tag = 0;
  Deadline deadline;
};

/// Bytes per microsecond, one per rank, the same on all ranks. Collective. Throws kTimeout after the
/// deadline, kIo when a port shows no bandwidth because larger messages took no longer.
std::vector<double> measure_ports(const PortProbe& probe);

}  // namespace aurora::bench
