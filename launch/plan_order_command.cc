#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "kernels/error.h"
#include "launch/plan_commands.h"
#include "runtime/plan_io/cluster_file.h"
#include "runtime/plan_io/matrix_file.h"
#include "runtime/plan_io/nearest_name.h"
#include "scheduler/fair_sharing.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/port_order.h"

namespace aurora {
namespace {

using nlohmann::json;

struct OrderRow {
  std::string policy;
  double makespan = 0;  // microseconds
  double bound = 0;
  Bytes makespan_bytes = 0;  // when ports have no speed, instead: doubles would lose the last digits
  Bytes bound_bytes = 0;
  const char* pacing = "";
  int num_rounds = 0;
  double planning_us = 0;

  double ratio() const {
    if (bound_bytes > 0) return static_cast<double>(makespan_bytes) / static_cast<double>(bound_bytes);
    return bound > 0 ? makespan / bound : 1;
  }
};

std::vector<OrderPolicy> chosen_policies(const std::string& name) {
  if (name == "all") return {all_order_policies().begin(), all_order_policies().end()};
  if (const auto policy = parse_order_policy(name)) return {*policy};
  std::vector<std::string> known{"all"};
  for (const OrderPolicy policy : all_order_policies()) known.emplace_back(order_policy_name(policy));
  throw Error(ErrorKind::kInvalidArgument,
              "--policy: unknown policy \"" + name + "\"" + suggest_name(name, known));
}

/// Bandwidths in bytes per microsecond; empty when neither ports nor a cluster are given.
std::vector<double> chosen_ports(const PlanOrderOptions& options, int num_gpus) {
  std::vector<double> ports;
  for (const double gbps : options.ports_gbps) ports.push_back(gbps * kBytesPerUsOfGbps);
  std::string source = "--ports";
  if (!options.cluster.empty()) {
    ports = port_bandwidths(read_cluster_file(options.cluster));
    source = options.cluster.string();
  }
  if (!ports.empty() && ports.size() != static_cast<std::size_t>(num_gpus)) {
    throw Error(ErrorKind::kInvalidArgument, source + ": " + std::to_string(ports.size()) + " ports, but " +
                                                 options.matrix.string() + " has " +
                                                 std::to_string(num_gpus) + " GPUs");
  }
  return ports;
}

const char* pacing_name(const TransmissionOrder& order) {
  if (!order.spans.empty()) return "clock";
  return order.pacing == Pacing::kPorts ? "ports" : "rounds";
}

/// Bytes that pass the busiest port side in a round: the round's length when nobody is shared, a lower bound
/// otherwise. Exact.
Bytes busiest_side_bytes(const Round& round, int num_gpus) {
  std::vector<Bytes> sent(static_cast<std::size_t>(num_gpus));
  std::vector<Bytes> received(static_cast<std::size_t>(num_gpus));
  Bytes busiest = 0;
  for (const Transfer& transfer : round.transfers) {
    busiest = std::max({busiest, sent[transfer.source.value] += transfer.bytes,
                        received[transfer.destination.value] += transfer.bytes});
  }
  return busiest;
}

/// The length in bytes of a port of an order of rounds. Exact for rounds without sharing; shared rounds,
/// which need not end at a whole byte, are rounded up.
Bytes makespan_of_rounds(const TransmissionOrder& order, int num_gpus) {
  const std::vector<double> unit_ports(static_cast<std::size_t>(num_gpus), 1.0);
  Bytes makespan = 0;
  for (const Round& round : order.rounds) {
    const Bytes least = busiest_side_bytes(round, num_gpus);
    // A billionth less, so that rounding errors of the simulation do not add a byte.
    const double shared = std::ceil(fair_share_makespan_us(round.transfers, unit_ports) * (1 - 1e-9));
    constexpr Bytes kLargest = std::numeric_limits<Bytes>::max();
    const Bytes length = shared < 0x1p63 ? std::max(least, static_cast<Bytes>(shared)) : kLargest;
    if (length > kLargest - makespan) {
      throw std::overflow_error("the order's makespan exceeds 2^63 - 1 bytes");
    }
    makespan += length;
  }
  return makespan;
}

Bytes makespan_in_bytes(const TransmissionOrder& order, int num_gpus) {
  if (!order.spans.empty()) return makespan_bound_bytes(carried_traffic(order, num_gpus));  // pace.h
  if (order.pacing == Pacing::kRounds) return makespan_of_rounds(order, num_gpus);
  return order.rounds.empty() ? 0 : port_order_makespan_bytes(order.rounds.front().transfers);
}

OrderRow plan_row(OrderPolicy policy, const TrafficMatrix& traffic, const OrderOptions& options,
                  bool is_in_bytes) {
  OrderRow row;
  row.policy = order_policy_name(policy);
  const auto start = std::chrono::steady_clock::now();
  const TransmissionOrder order = plan_order(policy, traffic, options);
  row.planning_us =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  row.pacing = pacing_name(order);
  row.num_rounds = num_rounds(order);
  if (is_in_bytes) {
    row.makespan_bytes = makespan_in_bytes(order, traffic.num_gpus());
    row.bound_bytes = makespan_bound_bytes(traffic);
  } else {
    row.makespan = predicted_makespan_us(order, port_bandwidths(options, traffic.num_gpus()), 0);
    row.bound = makespan_bound_us(traffic, options);
  }
  return row;
}

std::string as_json(const std::vector<OrderRow>& rows, bool is_in_bytes, int num_gpus) {
  json list = json::array();
  for (const OrderRow& row : rows) {
    json entry = {{"policy", row.policy},
                  {"ratio", row.ratio()},
                  {"pacing", row.pacing},
                  {"rounds", row.num_rounds},
                  {"planning_us", row.planning_us}};
    if (is_in_bytes) {
      entry["makespan"] = row.makespan_bytes;
      entry["bound"] = row.bound_bytes;
    } else {
      entry["makespan"] = row.makespan;
      entry["bound"] = row.bound;
    }
    list.push_back(std::move(entry));
  }
  const json document = {{"version", 1},
                         {"unit", is_in_bytes ? "bytes" : "us"},
                         {"num_gpus", num_gpus},
                         {"orders", std::move(list)}};
  return document.dump(2) + "\n";
}

std::string as_table(const std::vector<OrderRow>& rows, bool is_in_bytes) {
  char line[160];
  std::snprintf(line, sizeof line, "%-14s %18s %18s %8s %7s %7s %12s\n", "policy",
                is_in_bytes ? "makespan_bytes" : "makespan_us", is_in_bytes ? "bound_bytes" : "bound_us",
                "ratio", "pacing", "rounds", "planning_us");
  std::string text = line;
  char microseconds[2][32];
  for (const OrderRow& row : rows) {
    std::snprintf(microseconds[0], sizeof microseconds[0], "%.3f", row.makespan);
    std::snprintf(microseconds[1], sizeof microseconds[1], "%.3f", row.bound);
    const std::string makespan = is_in_bytes ? std::to_string(row.makespan_bytes) : microseconds[0];
    const std::string bound = is_in_bytes ? std::to_string(row.bound_bytes) : microseconds[1];
    std::snprintf(line, sizeof line, "%-14s %18s %18s %8.4f %7s %7d %12.1f\n", row.policy.c_str(),
                  makespan.c_str(), bound.c_str(), row.ratio(), row.pacing, row.num_rounds, row.planning_us);
    text += line;
  }
  return text;
}

}  // namespace

std::string plan_order_command(const PlanOrderOptions& options) {
  const std::vector<OrderPolicy> policies = chosen_policies(options.policy);
  const TrafficMatrix traffic = read_matrix_file(options.matrix);
  OrderOptions order_options;
  order_options.ports = chosen_ports(options, traffic.num_gpus());
  order_options.round_cost_us = options.round_cost_us;
  order_options.max_rounds = options.max_rounds;
  const bool is_in_bytes = order_options.ports.empty();
  std::vector<OrderRow> rows;
  try {
    for (const OrderPolicy policy : policies)
      rows.push_back(plan_row(policy, traffic, order_options, is_in_bytes));
  } catch (const std::invalid_argument& error) {
    throw Error(ErrorKind::kInvalidArgument, error.what());
  } catch (const std::overflow_error& error) {
    throw Error(ErrorKind::kInvalidArgument, options.matrix.string() + ": " + error.what());
  }
  return options.is_json ? as_json(rows, is_in_bytes, traffic.num_gpus()) : as_table(rows, is_in_bytes);
}

}  // namespace aurora
