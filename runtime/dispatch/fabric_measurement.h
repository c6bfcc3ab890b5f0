// Measures the constants of fabric_model.h on the fabric that is there, with exchanges as exchange.h runs
// them: chains of messages of two sizes, groups with two and with all peers, and an uneven exchange that
// fills all ports under every policy.
//
// The numbers of bytes follow the slowest port, so that with eight ranks all of it takes most of a second
// there, and a few tens of milliseconds on fast ports. Each is repeated; medians count.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "runtime/dispatch/fabric_model.h"
#include "runtime/transport/transport.h"

namespace aurora {

struct FabricProbe {
  Transport& transport;
  Backend& backend;
  std::span<const double> ports;  // bytes per microsecond, one per rank
  std::uint32_t exchange_tag = 0;
  std::uint32_t control_tag = 0;
  Deadline deadline;
};

/// Collective: all ranks call it with the same ports and tags. Every rank returns the same numbers, from the
/// times of the slowest ranks. Throws kTimeout after the deadline.
FabricModel measure_fabric(const FabricProbe& probe);

}  // namespace aurora
