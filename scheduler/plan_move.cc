#include "scheduler/plan_move.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <string>

namespace aurora {
namespace {

const ModelPlacement& placement_in(const DeploymentPlan& plan, const ModelTraffic& model) {
  const ModelPlacement* placement = plan.find(model.model);
  if (placement == nullptr || placement->layers.size() != model.layers.size()) {
    throw std::invalid_argument("the plan does not place the " + std::to_string(model.layers.size()) +
                                " layers of model \"" + model.model + "\"");
  }
  return *placement;
}

/// Gives each transfer its source, and remembers what all of them send.
class Senders {
 public:
  explicit Senders(const ClusterSpec& cluster) : cluster_(cluster), sent_us_(cluster.gpus.size(), 0) {}

  GpuId take(const std::vector<ExpertReplica>& holders, GpuId destination, double bytes) {
    GpuId best;
    double best_us = -1;
    for (const ExpertReplica& holder : holders) {
      const int gpu = holder.gpu.value;
      const double end_us = sent_us_[gpu] + bytes / bandwidth_towards(cluster_, gpu, destination.value);
      if (best_us >= 0 && end_us >= best_us) continue;
      best = holder.gpu;
      best_us = end_us;
    }
    sent_us_[best.value] = best_us;
    return best;
  }

 private:
  const ClusterSpec& cluster_;
  std::vector<double> sent_us_;  // [gpu]
};

}  // namespace

std::vector<ExpertTransfer> transfers_between(const DeploymentPlan& current, const DeploymentPlan& next,
                                              std::span<const ModelTraffic> traffic,
                                              const ClusterSpec& cluster) {
  std::vector<ExpertTransfer> transfers;
  Senders senders(cluster);
  std::size_t num_layers = 0;
  for (const ModelTraffic& model : traffic) num_layers = std::max(num_layers, model.layers.size());
  for (std::size_t layer = 0; layer < num_layers; ++layer) {
    for (std::size_t index = 0; index < traffic.size(); ++index) {
      const ModelTraffic& model = traffic[index];
      if (layer >= model.layers.size()) continue;
      const LayerPlacement& before = placement_in(current, model).layers[layer];
      const LayerPlacement& after = placement_in(next, model).layers[layer];
      for (std::int32_t expert = 0; expert < after.num_experts(); ++expert) {
        for (const ExpertReplica& replica : after.experts[expert]) {
          if (before.hosts(replica.gpu, {expert})) continue;
          const GpuId source = senders.take(before.experts[expert], replica.gpu, model.expert_bytes);
          transfers.push_back({static_cast<std::int32_t>(index),
                               static_cast<std::int32_t>(layer),
                               {expert},
                               source,
                               replica.gpu,
                               std::llround(model.expert_bytes)});
        }
      }
    }
  }
  return transfers;
}

double move_time_us(std::span<const ExpertTransfer> transfers, const ClusterSpec& cluster) {
  std::vector<double> send_us(cluster.gpus.size(), 0);
  std::vector<double> receive_us(cluster.gpus.size(), 0);
  double busiest = 0;
  for (const ExpertTransfer& transfer : transfers) {
    const int from = transfer.source.value;
    const int to = transfer.destination.value;
    const auto bytes = static_cast<double>(transfer.bytes);
    send_us[from] += bytes / bandwidth_towards(cluster, from, to);
    receive_us[to] += bytes / bandwidth_towards(cluster, to, from);
    busiest = std::max({busiest, send_us[from], receive_us[to]});
  }
  return busiest;
}

Bytes most_bytes(std::span<const ExpertTransfer> transfers) {
  std::map<GpuId, Bytes> sent, received;
  Bytes most = 0;
  for (const ExpertTransfer& transfer : transfers) {
    most = std::max(
        {most, sent[transfer.source] += transfer.bytes, received[transfer.destination] += transfer.bytes});
  }
  return most;
}

PacedMove::PacedMove(std::vector<ExpertTransfer> transfers, int num_gpus, Bytes bytes_per_step)
    : transfers_(std::move(transfers)),
      num_gpus_(num_gpus),
      bytes_per_step_(bytes_per_step),
      moved_(transfers_.size(), 0) {
  if (bytes_per_step > 0) return;
  throw std::invalid_argument("a move of " + std::to_string(bytes_per_step) +
                              " bytes per step never ends; the budget must be positive");
}

std::vector<PacedMove::Part> PacedMove::next_step() {
  std::vector<Bytes> may_send(static_cast<std::size_t>(num_gpus_), bytes_per_step_);
  std::vector<Bytes> may_receive = may_send;
  std::vector<Part> parts;
  for (std::size_t index = first_open_; index < transfers_.size(); ++index) {
    const ExpertTransfer& transfer = transfers_[index];
    Bytes& send = may_send[transfer.source.value];
    Bytes& receive = may_receive[transfer.destination.value];
    const Bytes bytes = std::min({transfer.bytes - moved_[index], send, receive});
    if (bytes == 0) continue;
    parts.push_back({index, moved_[index], bytes});
    moved_[index] += bytes;
    send -= bytes;
    receive -= bytes;
  }
  while (first_open_ < transfers_.size() && moved_[first_open_] == transfers_[first_open_].bytes) {
    ++first_open_;
  }
  return parts;
}

}  // namespace aurora
