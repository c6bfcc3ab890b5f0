// What the planner knows of the machines: GPUs behind one non-blocking switch, numbered as the ranks that
// drive them.
#pragma once

#include <vector>

#include "scheduler/units.h"

namespace aurora {

struct ClusterGpu {
  double compute = 1;       // speed relative to the GPU that the times in traffic files are of
  double port_gbps = 10;    // 10^9 bit/s, each way
  double memory_bytes = 0;  // for experts; 0: not limited
  int node = 0;             // GPUs with the same number share fast links
  bool operator==(const ClusterGpu&) const = default;
};

struct ClusterSpec {
  std::vector<ClusterGpu> gpus;
  double link_gbps = 0;  // between GPUs of one node, each way; 0: such traffic goes through the ports
  bool operator==(const ClusterSpec&) const = default;

  int num_gpus() const { return static_cast<int>(gpus.size()); }
};

/// 1 Gbit/s is 125 bytes per microsecond.
inline constexpr double kBytesPerUsOfGbps = 125;

/// Bandwidth of each port in bytes per microsecond.
std::vector<double> port_bandwidths(const ClusterSpec& cluster);

/// Bytes per microsecond at which `gpu` sends to and receives from `peer` as far as its own side goes: its
/// port, or the link when both are in one node and the node has links.
double bandwidth_towards(const ClusterSpec& cluster, int gpu, int peer);

/// GPUs all alike: compute 1, memory not limited, no links inside nodes.
ClusterSpec uniform_cluster(int num_gpus, double port_gbps);

/// Throws std::invalid_argument naming the GPU, the value and what is allowed: at least one GPU, positive
/// finite compute and ports, memory and link not negative.
void validate(const ClusterSpec& cluster);

}  // namespace aurora
