// What orders take, by simulations that share nothing with the planner's: written from the model, slow, and
// for tests only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"

namespace aurora::test {

/// Rates of flows that share ports max-min fairly: all grow together until a port side is full, then those
/// through it stay, and the others grow on.
inline std::vector<double> naive_fair_rates(const std::vector<Transfer>& flows,
                                            const std::vector<double>& ports) {
  std::vector<double> rates(flows.size());
  std::vector<bool> is_growing(flows.size(), true);
  for (;;) {
    double step = std::numeric_limits<double>::infinity();
    std::vector<std::size_t> fixed_now;
    for (const bool is_sender : {true, false}) {
      for (std::size_t gpu = 0; gpu < ports.size(); ++gpu) {
        double room = ports[gpu];
        std::vector<std::size_t> growing;
        for (std::size_t flow = 0; flow < flows.size(); ++flow) {
          const GpuId end = is_sender ? flows[flow].source : flows[flow].destination;
          if (static_cast<std::size_t>(end.value) != gpu) continue;
          room -= rates[flow];
          if (is_growing[flow]) growing.push_back(flow);
        }
        if (growing.empty()) continue;
        const double offered = std::max(0.0, room) / static_cast<double>(growing.size());
        if (offered < step * (1 - 1e-12)) {
          step = offered;
          fixed_now = growing;
        } else if (offered <= step * (1 + 1e-12)) {
          fixed_now.insert(fixed_now.end(), growing.begin(), growing.end());
        }
      }
    }
    if (fixed_now.empty()) return rates;
    for (std::size_t flow = 0; flow < flows.size(); ++flow) {
      if (is_growing[flow]) rates[flow] += step;
    }
    for (const std::size_t flow : fixed_now) is_growing[flow] = false;
  }
}

/// Time until all of `flows`, started together and paced by nobody, have ended.
inline double naive_round_us(std::vector<Transfer> flows, const std::vector<double>& ports) {
  std::vector<double> left;
  for (const Transfer& flow : flows) left.push_back(static_cast<double>(flow.bytes));
  double elapsed = 0;
  while (!flows.empty()) {
    const std::vector<double> rates = naive_fair_rates(flows, ports);
    double step = std::numeric_limits<double>::infinity();
    for (std::size_t flow = 0; flow < flows.size(); ++flow) step = std::min(step, left[flow] / rates[flow]);
    elapsed += step;
    std::vector<Transfer> still;
    std::vector<double> still_left;
    for (std::size_t flow = 0; flow < flows.size(); ++flow) {
      const double after = left[flow] - rates[flow] * step;
      if (after <= 1e-9 * static_cast<double>(flows[flow].bytes)) continue;
      still.push_back(flows[flow]);
      still_left.push_back(after);
    }
    flows = std::move(still);
    left = std::move(still_left);
  }
  return elapsed;
}

inline double naive_rounds_us(const std::vector<Round>& rounds, const std::vector<double>& ports) {
  double sum = 0;
  for (const Round& round : rounds) sum += naive_round_us(round.transfers, ports);
  return sum;
}

/// Time until the last of `starts` has ended when every side of every port works through its own part of the
/// list, one message at a time, and nobody waits for anything else. Every message costs `message_cost_us`.
inline double naive_port_order_us(const std::vector<Transfer>& starts, const std::vector<double>& ports,
                                  double message_cost_us) {
  std::vector<std::deque<std::size_t>> to_send(ports.size());
  std::vector<std::deque<std::size_t>> to_receive(ports.size());
  for (std::size_t index = 0; index < starts.size(); ++index) {
    to_send[static_cast<std::size_t>(starts[index].source.value)].push_back(index);
    to_receive[static_cast<std::size_t>(starts[index].destination.value)].push_back(index);
  }
  std::map<std::size_t, double> running;  // message, its end
  double now = 0;
  for (std::size_t num_ended = 0; num_ended < starts.size(); ++num_ended) {
    for (const auto& sending : to_send) {
      if (sending.empty() || running.contains(sending.front())) continue;
      const Transfer& message = starts[sending.front()];
      const auto source = static_cast<std::size_t>(message.source.value);
      const auto destination = static_cast<std::size_t>(message.destination.value);
      if (to_receive[destination].front() != sending.front()) continue;
      const double rate = std::min(ports[source], ports[destination]);
      running[sending.front()] = now + message_cost_us + static_cast<double>(message.bytes) / rate;
    }
    if (running.empty()) throw std::logic_error("the order without barriers does not go on");
    const auto first = std::min_element(running.begin(), running.end(),
                                        [](const auto& a, const auto& b) { return a.second < b.second; });
    now = first->second;
    to_send[static_cast<std::size_t>(starts[first->first].source.value)].pop_front();
    to_receive[static_cast<std::size_t>(starts[first->first].destination.value)].pop_front();
    running.erase(first);
  }
  return now;
}

/// max over port sides of bytes / bandwidth, by definition.
inline double naive_bound_us(const TrafficMatrix& traffic, const std::vector<double>& ports) {
  double bound = 0;
  for (int gpu = 0; gpu < traffic.num_gpus(); ++gpu) {
    double sent = 0;
    double received = 0;
    for (int peer = 0; peer < traffic.num_gpus(); ++peer) {
      sent += static_cast<double>(traffic.at(gpu, peer));
      received += static_cast<double>(traffic.at(peer, gpu));
    }
    bound = std::max(bound, std::max(sent, received) / ports[static_cast<std::size_t>(gpu)]);
  }
  return bound;
}

/// Layer 0 of DeepSeek-V2-Lite on 8 GPUs (data/README.md): `workload` is law or summary. In bytes, a token
/// being a row of 2048 values of two bytes. `source_dir` is the root of the checkout.
inline TrafficMatrix real_traffic(const std::string& source_dir, const std::string& workload) {
  const std::string name = source_dir + "/tests/scheduler/data/" + workload + "_layer0.R8.txt";
  std::ifstream file(name);
  if (!file) throw std::runtime_error("cannot read " + name);
  std::vector<Bytes> entries;
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with('#')) continue;
    std::istringstream numbers(line);
    for (Bytes tokens = 0; numbers >> tokens;) entries.push_back(tokens * 2048 * 2);
  }
  return {8, entries};
}

}  // namespace aurora::test
