#include "scheduler/bounded_order.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/baseline_orders.h"
#include "scheduler/exact_order.h"
#include "scheduler/makespan_bound.h"

namespace aurora {

TransmissionOrder bounded_order(const TrafficMatrix& traffic, std::span<const double> ports,
                                double tolerance) {
  if (!(tolerance >= 0) || !std::isfinite(tolerance)) {
    throw std::invalid_argument("tolerance of the bounded order is " + std::to_string(tolerance) +
                                "; it must be finite and not negative");
  }
  const double bound_us =
      one_to_one_bound_us(traffic, {.ports = std::vector<double>(ports.begin(), ports.end())});
  TransmissionOrder order;
  TrafficMatrix left = traffic;
  double left_us = bound_us;
  visit_exact_rounds(traffic, ports, [&](Round&& round) {
    double round_us = 0;
    for (const Transfer& transfer : round.transfers) {
      const int source = transfer.source.value;
      const int destination = transfer.destination.value;
      const double rate = std::min(ports[source], ports[destination]);
      round_us = std::max(round_us, static_cast<double>(transfer.bytes) / rate);
      left.add(source, destination, -transfer.bytes);
    }
    order.rounds.push_back(std::move(round));
    left_us -= round_us;
    return left_us > tolerance * bound_us;
  });
  for (Round& group : concurrent_group(left).rounds) order.rounds.push_back(std::move(group));
  return order;
}

}  // namespace aurora
