// How many experts fit where: memory limits of GPUs turned into places for experts, per model and layer.
#pragma once

#include <span>
#include <vector>

#include "scheduler/cluster.h"
#include "scheduler/plan.h"

namespace aurora {

/// slots[model][layer][gpu]: copies of experts of that layer that the GPU may hold; the slots of a layer
/// always suffice for all its experts, and all slots together fit the memory. Models share a GPU's memory in
/// proportion to their size, what rounding leaves goes to the one with the fewest slots for its size; layers
/// share evenly. Where memory is not limited, a GPU has room for every expert.
/// Throws std::invalid_argument when the experts do not fit: by how much, and the smallest cluster that would
/// do.
using ExpertSlots = std::vector<std::vector<std::vector<int>>>;
ExpertSlots expert_slots(std::span<const ModelTraffic> models, const ClusterSpec& cluster);

}  // namespace aurora
