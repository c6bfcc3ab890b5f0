#include "scheduler/two_tier_steps.h"

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <tuple>

namespace aurora {
namespace {

/// What a step moves between each pair of GPUs.
class StepTransfers {
 public:
  explicit StepTransfers(int num_gpus)
      : num_gpus_(static_cast<std::size_t>(num_gpus)), transfer_of_pair_(num_gpus_ * num_gpus_, -1) {}

  /// Port hops first, in the order of the parcels. Valid until the next call.
  std::span<const Transfer> of(const TwoTierOrder& order, int step) {
    for (const Transfer& transfer : transfers_) {
      transfer_of_pair_[pair_index(transfer.source, transfer.destination)] = -1;
    }
    transfers_.clear();
    const auto add = [&](GpuId from, GpuId to, const Parcel& parcel) {
      int& index = transfer_of_pair_[pair_index(from, to)];
      if (index < 0) {
        index = static_cast<int>(transfers_.size());
        transfers_.push_back({from, to, 0});
      }
      transfers_[index].bytes += parcel.bytes;
    };
    for_each_hop_through_ports(order, step, add);
    for_each_hop_over_links(order, step, add);
    return transfers_;
  }

 private:
  std::size_t pair_index(GpuId from, GpuId to) const {
    return static_cast<std::size_t>(from.value) * num_gpus_ + static_cast<std::size_t>(to.value);
  }

  std::size_t num_gpus_;
  std::vector<int> transfer_of_pair_;  // -1: none in this step
  std::vector<Transfer> transfers_;
};

}  // namespace

int TwoTierOrder::num_steps() const {
  const int relaying = port_rounds.empty() ? 0 : static_cast<int>(port_rounds.size()) + 2;
  return std::max(relaying, static_cast<int>(local_parcels.size()));
}

std::vector<Hop> step_hops(const TwoTierOrder& order, int step, const TwoTierNetwork& network) {
  if (step < 0 || step >= order.num_steps()) {
    throw std::invalid_argument("step " + std::to_string(step) + " of an order of " +
                                std::to_string(order.num_steps()));
  }
  std::vector<Hop> hops;
  const auto n = static_cast<std::size_t>(network.num_gpus());
  std::vector<int> hop_of_pair(n * n, -1);
  const auto add = [&](GpuId from, GpuId to, const Parcel& parcel) {
    int& index = hop_of_pair[static_cast<std::size_t>(from.value) * n + static_cast<std::size_t>(to.value)];
    if (index < 0) {
      index = static_cast<int>(hops.size());
      hops.push_back({from, to, 0, {}});
    }
    hops[index].bytes += parcel.bytes;
    hops[index].ranges.push_back({parcel.source, parcel.destination, parcel.offset, parcel.bytes});
  };
  for_each_hop_through_ports(order, step, add);
  for_each_hop_over_links(order, step, add);
  std::sort(hops.begin(), hops.end(), [&](const Hop& a, const Hop& b) {
    const bool a_is_local = network.is_local(a.from, a.to);
    const bool b_is_local = network.is_local(b.from, b.to);
    return std::tie(a_is_local, a.from, a.to) < std::tie(b_is_local, b.from, b.to);
  });
  return hops;
}

int num_busy_steps(const TwoTierOrder& order) {
  int num_busy = 0;
  for (int step = 0; step < order.num_steps(); ++step) {
    bool is_busy = false;
    const auto note = [&](GpuId, GpuId, const Parcel&) { is_busy = true; };
    for_each_hop_through_ports(order, step, note);
    if (!is_busy) for_each_hop_over_links(order, step, note);
    num_busy += is_busy ? 1 : 0;
  }
  return num_busy;
}

bool is_relaying(const TwoTierOrder& order) {
  for (const auto& round : order.port_rounds) {
    for (const Parcel& parcel : round) {
      if (parcel.carrier != parcel.source || parcel.arrival != parcel.destination) return true;
    }
  }
  return false;
}

double predicted_two_tier_us(const TwoTierOrder& order, const TwoTierNetwork& network, double round_cost_us) {
  StepTransfers transfers(network.num_gpus());
  double elapsed = 0;
  for (int step = 0; step < order.num_steps(); ++step) {
    const std::span<const Transfer> moved = transfers.of(order, step);
    if (!moved.empty()) elapsed += round_cost_us + two_tier_time_us(moved, network);
  }
  return elapsed;
}

TwoTierOrder without_relays(const TransmissionOrder& order, const TwoTierNetwork& network) {
  TwoTierOrder steps;
  TrafficMatrix done(network.num_gpus());
  steps.port_rounds.resize(order.rounds.size());
  steps.local_parcels.resize(order.rounds.size() + 1);
  for (std::size_t index = 0; index < order.rounds.size(); ++index) {
    for (const Transfer& transfer : order.rounds[index].transfers) {
      const bool is_local = network.is_local(transfer.source, transfer.destination);
      auto& parcels = is_local ? steps.local_parcels[index + 1] : steps.port_rounds[index];
      parcels.push_back({.source = transfer.source,
                         .carrier = transfer.source,
                         .arrival = transfer.destination,
                         .destination = transfer.destination,
                         .offset = done.at(transfer.source.value, transfer.destination.value),
                         .bytes = transfer.bytes});
      done.add(transfer.source.value, transfer.destination.value, transfer.bytes);
    }
  }
  return steps;
}

}  // namespace aurora
