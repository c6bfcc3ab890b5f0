#include "runtime/plan_io/fabric_file.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/error.h"
#include "runtime/plan_io/json_fields.h"
#include "runtime/plan_io/text_file.h"

namespace aurora {
namespace {

constexpr const char* kLanes = "lanes";
constexpr const char* kBatches = "batches";
/// More ranks than any job has.
constexpr std::size_t kMostRanks = std::size_t{1} << 16;
constexpr std::size_t kMostCosts = 1024;

/// A list of at most `most` things that `read` takes from their places.
template <class Read>
auto read_list(const JsonPlace& place, std::size_t most, const Read& read) {
  std::vector<decltype(read(place))> things;
  const std::size_t size = place.size_of_list();
  if (size == 0 || size > most) place.refuse("must have from 1 to " + std::to_string(most) + " entries");
  for (std::size_t index = 0; index < size; ++index) things.push_back(read(place.at(index)));
  return things;
}

template <class Entry>
void expect_growing(const JsonPlace& place, const std::vector<Entry>& entries, double Entry::*key) {
  for (std::size_t index = 1; index < entries.size(); ++index) {
    if (entries[index - 1].*key < entries[index].*key) continue;
    place.at(index).refuse("is not larger than the entry before it");
  }
}

ExchangeExecution read_execution(const JsonPlace& place) {
  const std::string name = place.text();
  if (name == kLanes) return ExchangeExecution::kLanes;
  if (name == kBatches) return ExchangeExecution::kBatches;
  place.refuse("must be \"lanes\" or \"batches\", not \"" + name.substr(0, 64) + "\"");
}

FabricModel::MessageCost read_message(const JsonPlace& place) {
  place.expect_keys({"bytes", "extra_us"});
  return {place.at("bytes").quantity(), place.at("extra_us").quantity()};
}

double read_stretch(const JsonPlace& place) {
  const double stretch = place.quantity();
  if (stretch < 1) place.refuse("is below 1, which is as fast as the ports allow");
  return stretch;
}

FabricModel::GroupCost read_group(const JsonPlace& place) {
  place.expect_keys({"peers", "start_us", "stretch"});
  return {place.at("peers").quantity(), place.at("start_us").quantity(), read_stretch(place.at("stretch"))};
}

FabricModel::OrderCost read_order(const JsonPlace& place) {
  place.expect_keys({"order", "stretch", "extra_us", "full_us"});
  const auto policy = parse_order_policy(place.at("order").text());
  if (!policy || *policy == OrderPolicy::kAuto) place.at("order").refuse("is no order that can be planned");
  return {*policy, read_stretch(place.at("stretch")), place.at("extra_us").quantity(),
          place.at("full_us").quantity()};
}

}  // namespace

std::string fabric_text(const MeasuredFabric& fabric) {
  using Json = nlohmann::ordered_json;
  Json messages = Json::array();
  for (const auto& cost : fabric.model.messages) {
    messages.push_back({{"bytes", cost.bytes}, {"extra_us", cost.extra_us}});
  }
  Json groups = Json::array();
  for (const auto& cost : fabric.model.groups) {
    groups.push_back({{"peers", cost.peers}, {"start_us", cost.start_us}, {"stretch", cost.stretch}});
  }
  Json orders = Json::array();
  for (const auto& cost : fabric.model.orders) {
    orders.push_back({{"order", order_policy_name(cost.policy)},
                      {"stretch", cost.stretch},
                      {"extra_us", cost.extra_us},
                      {"full_us", cost.full_us}});
  }
  const Json json = {{"version", 1},
                     {"execution", fabric.model.execution == ExchangeExecution::kLanes ? kLanes : kBatches},
                     {"ports_gbps", fabric.ports_gbps},
                     {"start_us", fabric.model.start_us},
                     {"messages", messages},
                     {"groups", groups},
                     {"uneven_stretch", fabric.model.uneven_stretch},
                     {"orders", orders}};
  return json.dump(1) + "\n";
}

MeasuredFabric parse_fabric(std::string_view text, const std::string& origin) {
  const nlohmann::json json = parse_json_text(text, origin);
  const JsonPlace root(json, origin + ": ");
  root.expect_keys(
      {"version", "execution", "ports_gbps", "start_us", "messages", "groups", "uneven_stretch", "orders"});
  root.at("version").integer(1, 1);
  MeasuredFabric fabric;
  fabric.model.execution = read_execution(root.at("execution"));
  fabric.ports_gbps =
      read_list(root.at("ports_gbps"), kMostRanks, [](const JsonPlace& place) { return place.quantity(); });
  fabric.model.start_us = root.at("start_us").quantity();
  fabric.model.messages = read_list(root.at("messages"), kMostCosts, read_message);
  fabric.model.groups = read_list(root.at("groups"), kMostCosts, read_group);
  if (root.has("uneven_stretch")) fabric.model.uneven_stretch = read_stretch(root.at("uneven_stretch"));
  fabric.model.orders = read_list(root.at("orders"), kMostCosts, read_order);
  expect_growing(root.at("messages"), fabric.model.messages, &FabricModel::MessageCost::bytes);
  expect_growing(root.at("groups"), fabric.model.groups, &FabricModel::GroupCost::peers);
  return fabric;
}

MeasuredFabric read_fabric_file(const std::filesystem::path& file) {
  return parse_fabric(read_whole_file(file), file.string());
}

void check_same_ports(const MeasuredFabric& fabric, const std::vector<double>& ports_gbps,
                      const std::string& origin) {
  const auto refuse = [&](const std::string& text) {
    throw Error(ErrorKind::kInvalidArgument, origin + ": " + text + "; measure it anew");
  };
  if (fabric.ports_gbps.size() != ports_gbps.size()) {
    refuse("was measured by " + std::to_string(fabric.ports_gbps.size()) + " ranks, but there are " +
           std::to_string(ports_gbps.size()));
  }
  constexpr double kMostDifference = 0.1;
  for (std::size_t rank = 0; rank < ports_gbps.size(); ++rank) {
    if (std::abs(fabric.ports_gbps[rank] - ports_gbps[rank]) <= kMostDifference * ports_gbps[rank]) continue;
    refuse("was measured with a port of " + std::to_string(fabric.ports_gbps[rank]) + " Gbit/s at rank " +
           std::to_string(rank) + ", where the port is now of " + std::to_string(ports_gbps[rank]));
  }
}

}  // namespace aurora
