#include "scheduler/makespan_bound.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace aurora {

std::vector<double> port_bandwidths(const OrderOptions& options, int num_gpus) {
  if (options.ports.empty()) {
    if (!(options.default_port > 0) || !std::isfinite(options.default_port)) {
      throw std::invalid_argument("default port bandwidth is " + std::to_string(options.default_port) +
                                  " bytes per microsecond; it must be positive");
    }
    return std::vector<double>(static_cast<std::size_t>(num_gpus), options.default_port);
  }
  if (options.ports.size() != static_cast<std::size_t>(num_gpus)) {
    throw std::invalid_argument(std::to_string(options.ports.size()) + " port bandwidths for " +
                                std::to_string(num_gpus) + " GPUs; give one for each");
  }
  for (std::size_t port = 0; port < options.ports.size(); ++port) {
    if (!(options.ports[port] > 0) || !std::isfinite(options.ports[port])) {
      throw std::invalid_argument("bandwidth of port " + std::to_string(port) + " is " +
                                  std::to_string(options.ports[port]) +
                                  " bytes per microsecond; it must be positive and finite");
    }
  }
  return options.ports;
}

bool has_equal_ports(std::span<const double> ports) {
  return std::all_of(ports.begin(), ports.end(), [&](double port) { return port == ports.front(); });
}

Bytes makespan_bound_bytes(const TrafficMatrix& traffic) {
  Bytes bound = 0;
  for (int gpu = 0; gpu < traffic.num_gpus(); ++gpu) {
    bound = std::max({bound, traffic.row_sum(gpu), traffic.column_sum(gpu)});
  }
  return bound;
}

double makespan_bound_us(const TrafficMatrix& traffic, const OrderOptions& options) {
  const std::vector<double> ports = port_bandwidths(options, traffic.num_gpus());
  double bound = 0;
  for (int gpu = 0; gpu < traffic.num_gpus(); ++gpu) {
    const Bytes busiest = std::max(traffic.row_sum(gpu), traffic.column_sum(gpu));
    bound = std::max(bound, static_cast<double>(busiest) / ports[gpu]);
  }
  return bound;
}

double one_to_one_bound_us(const TrafficMatrix& traffic, const OrderOptions& options) {
  const std::vector<double> ports = port_bandwidths(options, traffic.num_gpus());
  double bound = 0;
  for (int gpu = 0; gpu < traffic.num_gpus(); ++gpu) {
    double sending = 0;
    double receiving = 0;
    for (int peer = 0; peer < traffic.num_gpus(); ++peer) {
      const double rate = std::min(ports[gpu], ports[peer]);
      sending += static_cast<double>(traffic.at(gpu, peer)) / rate;
      receiving += static_cast<double>(traffic.at(peer, gpu)) / rate;
    }
    bound = std::max({bound, sending, receiving});
  }
  return bound;
}

}  // namespace aurora
