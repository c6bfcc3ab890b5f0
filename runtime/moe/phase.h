// The phases of a decoder step, by the names used in traces, metrics and reports.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace aurora {

enum class Phase : std::uint8_t {
  kAttention,    // everything of a layer before its MoE block
  kGate,         // router logits, top-k
  kCounts,       // exchange of row counts
  kDispatch,     // tokens travel to their experts
  kExperts,      // expert feed-forward networks
  kCombine,      // results travel back
  kAggregation,  // sum of the results
  kHead,         // logits and sampling
  kDone,         // nothing left to do
};

constexpr std::size_t kNumPhases = static_cast<std::size_t>(Phase::kDone);
constexpr std::array<std::string_view, kNumPhases + 1> kPhaseNames = {
    "attention", "gate", "counts", "dispatch", "experts", "combine", "aggregation", "head", "done"};

/// Whether it is an exchange's; the others compute.
constexpr bool is_exchange(Phase phase) {
  return phase == Phase::kCounts || phase == Phase::kDispatch || phase == Phase::kCombine;
}

constexpr std::string_view phase_name(Phase phase) { return kPhaseNames[static_cast<std::size_t>(phase)]; }

}  // namespace aurora
