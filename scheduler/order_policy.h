// The one table of policy names, and the door to all that can be planned from traffic and ports:
// `plan_order`.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"

namespace aurora {

struct TwoTierNetwork;

enum class OrderPolicy : std::uint8_t {
  kGroup,     // "group": one concurrent round
  kExact,     // "exact": Birkhoff rounds, makespan equal to the bound
  kAurora,    // "aurora": best order under a cost per round, the concurrent group among the candidates
  kPaced,     // "paced": one concurrent round, every message at the constant rate with which all end at the
              // bound (pace.h). A stream-ordered transport has no clock: there it is the group
  kRotation,  // "rotation": n - 1 rounds, i sends to i + r
  kLongestFirst,   // "longest-first"
  kShortestFirst,  // "sjf"
  kRandom,         // "random" (RCS)
  kAlgorithm1,     // "algorithm1": the paper's greedy, read literally
  kAuto,           // "auto": for each exchange the one of the above that the fabric that is there ends first.
          // What a fabric costs is measured where there is one: runtime/dispatch/fabric_model.h chooses
};

struct OrderOptions {
  std::vector<double> ports =
      {};                      // bytes per microsecond of each GPU; empty: all ports equal to `default_port`
  double default_port = 1250;  // 10 Gbit/s in bytes per microsecond
  double round_cost_us = 10;   // start-up of a round; used by kAurora only
  int max_rounds = 0;          // 0: no limit; used by kAurora only
  std::uint64_t seed = 1;      // used by kRandom only
  /// Of the same GPUs, where node-mates talk over links; null: all goes through ports. Used by kPaced only.
  std::shared_ptr<const TwoTierNetwork> tiers = {};
};

std::string_view order_policy_name(OrderPolicy policy);
std::optional<OrderPolicy> parse_order_policy(std::string_view name);
/// What `plan_order` plans: all but auto.
std::span<const OrderPolicy> all_order_policies();
/// Every name, "auto" last.
std::vector<std::string> order_policy_names();

/// Deterministic: the same arguments give the same order on every rank and machine. Carries exactly
/// `traffic`. Throws std::invalid_argument for kAuto.
TransmissionOrder plan_order(OrderPolicy policy, const TrafficMatrix& traffic, const OrderOptions& options);

}  // namespace aurora
