#include "scheduler/order_policy.h"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "scheduler/aurora_order.h"
#include "scheduler/baseline_orders.h"
#include "scheduler/exact_order.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/pace.h"

namespace aurora {
namespace {

struct PolicyRow {
  OrderPolicy policy;
  std::string_view name;
  /// `options.ports` holds one bandwidth per GPU.
  TransmissionOrder (*plan)(const TrafficMatrix& traffic, const OrderOptions& options);
};

constexpr std::array kPolicies{
    PolicyRow{OrderPolicy::kGroup, "group",
              [](const TrafficMatrix& traffic, const OrderOptions&) { return concurrent_group(traffic); }},
    PolicyRow{OrderPolicy::kExact, "exact",
              [](const TrafficMatrix& traffic, const OrderOptions& options) {
                return exact_order(traffic, options.ports);
              }},
    PolicyRow{OrderPolicy::kAurora, "aurora", aurora_order},
    PolicyRow{OrderPolicy::kPaced, "paced",
              [](const TrafficMatrix& traffic, const OrderOptions& options) {
                TransmissionOrder order = concurrent_group(traffic);
                pace(order, options.ports, options.tiers.get());
                return order;
              }},
    PolicyRow{OrderPolicy::kRotation, "rotation",
              [](const TrafficMatrix& traffic, const OrderOptions&) { return rotation_order(traffic); }},
    PolicyRow{OrderPolicy::kLongestFirst, "longest-first",
              [](const TrafficMatrix& traffic, const OrderOptions&) { return longest_first_order(traffic); }},
    PolicyRow{
        OrderPolicy::kShortestFirst, "sjf",
        [](const TrafficMatrix& traffic, const OrderOptions&) { return shortest_first_order(traffic); }},
    PolicyRow{OrderPolicy::kRandom, "random",
              [](const TrafficMatrix& traffic, const OrderOptions& options) {
                return random_order(traffic, options.seed);
              }},
    PolicyRow{OrderPolicy::kAlgorithm1, "algorithm1",
              [](const TrafficMatrix& traffic, const OrderOptions&) { return algorithm1_order(traffic); }},
};

constexpr std::string_view kAutoName = "auto";

constexpr auto kPolicyList = [] {
  std::array<OrderPolicy, kPolicies.size()> list{};
  for (std::size_t index = 0; index < list.size(); ++index) list[index] = kPolicies[index].policy;
  return list;
}();

const PolicyRow& row_of(OrderPolicy policy) {
  const auto row = std::find_if(kPolicies.begin(), kPolicies.end(),
                                [&](const PolicyRow& candidate) { return candidate.policy == policy; });
  if (row == kPolicies.end()) {
    throw std::invalid_argument("order policy " + std::to_string(static_cast<int>(policy)) +
                                " is not in the table");
  }
  return *row;
}

}  // namespace

std::string_view order_policy_name(OrderPolicy policy) {
  return policy == OrderPolicy::kAuto ? kAutoName : row_of(policy).name;
}

std::optional<OrderPolicy> parse_order_policy(std::string_view name) {
  if (name == kAutoName) return OrderPolicy::kAuto;
  for (const PolicyRow& row : kPolicies) {
    if (row.name == name) return row.policy;
  }
  return std::nullopt;
}

std::span<const OrderPolicy> all_order_policies() { return kPolicyList; }

std::vector<std::string> order_policy_names() {
  std::vector<std::string> names;
  for (const PolicyRow& row : kPolicies) names.emplace_back(row.name);
  names.emplace_back(kAutoName);
  return names;
}

TransmissionOrder plan_order(OrderPolicy policy, const TrafficMatrix& traffic, const OrderOptions& options) {
  if (policy == OrderPolicy::kAuto) {
    throw std::invalid_argument(
        "order auto is chosen by what a fabric costs; without one, plan by the name of an order");
  }
  OrderOptions complete = options;
  complete.ports = port_bandwidths(options, traffic.num_gpus());
  if (!(options.round_cost_us >= 0) || options.max_rounds < 0) {
    throw std::invalid_argument("round cost " + std::to_string(options.round_cost_us) +
                                " us and round limit " + std::to_string(options.max_rounds) +
                                " must not be negative");
  }
  return row_of(policy).plan(traffic, complete);
}

}  // namespace aurora
