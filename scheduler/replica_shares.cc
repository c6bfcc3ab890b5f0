#include "scheduler/replica_shares.h"

#include <algorithm>

namespace aurora {

std::vector<double> shares_from(std::span<const ExpertReplica> replicas, GpuId source, int num_gpus) {
  if (replicas.size() == 1) return {1.0};
  const double of_source = 1.0 / num_gpus;  // of all tokens
  std::vector<double> left;                 // of the copies' shares, when every source has served itself
  double total_left = 0;
  double own = 0;
  for (const ExpertReplica& replica : replicas) {
    const double kept = std::min(replica.share, of_source);
    if (replica.gpu == source) own = kept / of_source;
    left.push_back(replica.share - kept);
    total_left += left.back();
  }
  for (std::size_t index = 0; index < replicas.size(); ++index) {
    // Without anything left all sources have served themselves.
    const double spread = total_left > 0 ? left[index] / total_left : 0;
    left[index] = (1 - own) * spread + (replicas[index].gpu == source ? own : 0);
  }
  return left;
}

}  // namespace aurora
