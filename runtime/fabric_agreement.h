// What exchanges cost on the fabric, the same numbers on every rank: rank 0's.
#pragma once

#include <span>

#include "runtime/dispatch/fabric_model.h"
#include "runtime/engine.h"

namespace aurora {

struct FabricArgs {
  const EngineOptions& options;
  std::span<const double> ports;  // bytes per microsecond, one per rank
  Transport& transport;
  Backend& backend;
};

/// Collective. Read by rank 0 from `options.fabric_file`, or measured by all ranks together when that is
/// empty, which takes most of a second on slow ports. When a rank fails, all throw; kTimeout after
/// `options.timeout`.
FabricModel agree_on_fabric(const FabricArgs& args);

}  // namespace aurora
