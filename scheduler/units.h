// Identities and quantities of the planner. A GpuId is no ExpertId, and neither is a count.
#pragma once

#include <compare>
#include <cstdint>

namespace aurora {

/// A position in the cluster: GPU i is driven by rank i.
struct GpuId {
  std::int32_t value = 0;
  auto operator<=>(const GpuId&) const = default;
};

/// An expert of one layer of one model.
struct ExpertId {
  std::int32_t value = 0;
  auto operator<=>(const ExpertId&) const = default;
};

using Bytes = std::int64_t;

}  // namespace aurora
