// Placement: which experts live on which GPUs. The one table of policy names, and the doors to all of them.
//
// Layers of one model are placed independently of each other; layers of several models that run at the same
// time (the same index, as far as both have one) are placed together, on the time of the colocated layer.
// What is known to be exact: one model with one expert per GPU (one_expert_per_gpu.h), and several models so
// where branch and bound proves it quickly. Everything else is searched (placement_search.h). Between
// placements of several models whose closed forms are within 0.4 % the event simulation decides
// (simulated_choice.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "scheduler/cluster.h"
#include "scheduler/expert_load.h"
#include "scheduler/plan.h"

namespace aurora {

enum class PlacementPolicy : std::uint8_t {
  kAuto,        // "auto": our search on the layer time, colocation-aware
  kContiguous,  // "contiguous": blocks of consecutive experts
  kRoundRobin,  // "round-robin": expert e on GPU e mod n
  kRandom,      // "rga": random GPU assignment
  kPaper,       // "paper": theorem 5.1 for one model, decoupled matchings for several
  kLina,        // "lina": hottest with coldest expert of the same model, models apart
  kEplb,        // "eplb": replicas to the hottest, balanced packing by load alone
  kRec,         // "rec": the first model placed well, the others' experts at random (random colocation)
};

struct PlacementOptions {
  std::uint64_t seed = 1;
  std::int64_t search_evaluations = 40000;  // effort of kAuto, per layer; on more than 8 GPUs less
  int num_replicas = 0;  // copies beyond one of each expert, per model and layer; kAuto and kEplb
  /// Part of the layer time on the given traffic that kAuto may give up to be safe on other traffic
  /// (placement_search.h), where several experts share a GPU and the traffic has samples: then it is a record
  /// of real tokens. Traffic without samples is taken as given. 0: always.
  double robustness_price = 0.02;
};

std::string_view placement_policy_name(PlacementPolicy policy);
/// "random" is understood as "rga".
std::optional<PlacementPolicy> parse_placement_policy(std::string_view name);
std::span<const PlacementPolicy> all_placement_policies();

/// Places one model alone on its GPUs. Any number of experts, divisible by the GPUs or not; GPUs may host
/// none. Deterministic. Throws std::invalid_argument for traffic or clusters that are not valid, and when the
/// experts do not fit the memory (by how much, and the smallest cluster that would do).
ModelPlacement plan_placement(PlacementPolicy policy, const ModelTraffic& traffic, const ClusterSpec& cluster,
                              const PlacementOptions& options);

/// Places several models together on the same GPUs. Model names must differ. The plan is valid, its `epoch`
/// is 1 and its order policy the default.
DeploymentPlan plan_deployment(std::span<const ModelTraffic> traffic, const ClusterSpec& cluster,
                               PlacementPolicy policy, const PlacementOptions& options);

}  // namespace aurora
