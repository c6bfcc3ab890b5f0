#include "scheduler/cluster.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace aurora {
namespace {

void check_value(double value, bool may_be_zero, const std::string& what) {
  if (std::isfinite(value) && (value > 0 || (may_be_zero && value == 0))) return;
  throw std::invalid_argument("cluster: " + what + " is " + std::to_string(value) + "; it must be " +
                              (may_be_zero ? "finite and not negative" : "positive and finite"));
}

}  // namespace

std::vector<double> port_bandwidths(const ClusterSpec& cluster) {
  std::vector<double> ports;
  for (const ClusterGpu& gpu : cluster.gpus) ports.push_back(gpu.port_gbps * kBytesPerUsOfGbps);
  return ports;
}

double bandwidth_towards(const ClusterSpec& cluster, int gpu, int peer) {
  const bool has_link = cluster.link_gbps > 0 && cluster.gpus[gpu].node == cluster.gpus[peer].node;
  return (has_link ? cluster.link_gbps : cluster.gpus[gpu].port_gbps) * kBytesPerUsOfGbps;
}

ClusterSpec uniform_cluster(int num_gpus, double port_gbps) {
  ClusterSpec cluster;
  cluster.gpus.resize(static_cast<std::size_t>(std::max(0, num_gpus)));
  for (ClusterGpu& gpu : cluster.gpus) gpu.port_gbps = port_gbps;
  validate(cluster);
  return cluster;
}

void validate(const ClusterSpec& cluster) {
  if (cluster.gpus.empty()) throw std::invalid_argument("cluster: it has no GPU; at least one is needed");
  check_value(cluster.link_gbps, true, "link_gbps");
  for (std::size_t index = 0; index < cluster.gpus.size(); ++index) {
    const ClusterGpu& gpu = cluster.gpus[index];
    const std::string name = "GPU " + std::to_string(index);
    check_value(gpu.compute, false, "compute of " + name);
    check_value(gpu.port_gbps, false, "port_gbps of " + name);
    check_value(gpu.memory_bytes, true, "memory of " + name);
    if (gpu.node < 0) {
      throw std::invalid_argument("cluster: node of " + name + " is " + std::to_string(gpu.node) +
                                  "; it must not be negative");
    }
  }
}

}  // namespace aurora
