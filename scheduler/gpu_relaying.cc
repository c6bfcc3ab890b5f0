#include "scheduler/gpu_relaying.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "scheduler/local_messages.h"
#include "scheduler/pipelined_rounds.h"

namespace aurora {
namespace {

/// Which end of the port hop of a parcel is chosen.
using HopEnd = GpuId Parcel::*;

/// Moves what the ports of GPUs cannot carry within a limit to their node-mates, at one end of the port hops.
class PortRelief {
 public:
  PortRelief(const TwoTierNetwork& network, double limit_us, HopEnd end, std::vector<Parcel>& parcels)
      : network_(network),
        end_(end),
        parcels_(parcels),
        spare_(network.ports.size()),
        parcels_of_(network.ports.size()) {
    for (std::size_t gpu = 0; gpu < spare_.size(); ++gpu) {
      spare_[gpu] = static_cast<Bytes>(std::ceil(limit_us * network.ports[gpu]));
    }
    for (std::size_t index = 0; index < parcels.size(); ++index) {
      const int gpu = (parcels[index].*end).value;
      spare_[gpu] -= parcels[index].bytes;
      parcels_of_[gpu].push_back(index);
    }
  }

  void relieve_all() {
    for (const std::vector<int>& gpus : network_.gpus) {
      set_quotas(gpus);
      for (const int gpu : gpus) relieve(gpu, gpus);
    }
  }

 private:
  void set_quotas(const std::vector<int>& gpus);
  void relieve(int gpu, const std::vector<int>& gpus);
  void split(std::size_t index, Bytes bytes, const std::vector<int>& gpus);

  const TwoTierNetwork& network_;
  HopEnd end_;
  std::vector<Parcel>& parcels_;
  std::vector<Bytes> spare_;                          // [gpu] of its port; negative: what it cannot carry
  std::vector<std::vector<std::size_t>> parcels_of_;  // [gpu]
  std::vector<Bytes> quota_;                          // [place] what a GPU takes over from its node-mates
};

/// Everybody with room takes the same part of it, so that no link receives more than it must.
void PortRelief::set_quotas(const std::vector<int>& gpus) {
  Bytes excess = 0;
  Bytes room = 0;
  for (const int gpu : gpus) {
    excess += std::max<Bytes>(0, -spare_[gpu]);
    room += std::max<Bytes>(0, spare_[gpu]);
  }
  excess = std::min(excess, room);
  quota_.clear();
  Bytes room_before = 0;
  for (const int gpu : gpus) {
    const Bytes own_room = std::max<Bytes>(0, spare_[gpu]);
    const Bytes from = room > 0 ? share_of(excess, room_before, room) : 0;
    room_before += own_room;
    quota_.push_back(room > 0 ? share_of(excess, room_before, room) - from : 0);
  }
}

/// Takes the same part off the end of each of the GPU's parcels, and splits it over the node-mates in
/// proportion to what each still takes: whatever the order of the parcels, links are then busy evenly.
void PortRelief::relieve(int gpu, const std::vector<int>& gpus) {
  Bytes excess = std::max<Bytes>(0, -spare_[gpu]);
  Bytes left = 0;
  for (const std::size_t index : parcels_of_[gpu]) left += parcels_[index].bytes;
  for (const std::size_t index : parcels_of_[gpu]) {
    if (excess == 0) return;
    const Bytes bytes = parcels_[index].bytes;
    const Bytes moved = std::min({share_of(bytes, excess, left) + 1, bytes, excess});
    left -= bytes;
    excess -= moved;
    split(index, moved, gpus);
  }
}

/// Moves the last `bytes` of a parcel.
void PortRelief::split(std::size_t index, Bytes bytes, const std::vector<int>& gpus) {
  Bytes takeable = std::accumulate(quota_.begin(), quota_.end(), Bytes{0});
  bytes = std::min(bytes, takeable);
  for (std::size_t place = 0; place < gpus.size() && bytes > 0; ++place) {
    if (quota_[place] == 0) continue;
    const Bytes taken = std::min({share_of(bytes, quota_[place], takeable) + 1, quota_[place], bytes});
    takeable -= quota_[place];
    quota_[place] -= taken;
    bytes -= taken;
    parcels_[index].bytes -= taken;
    Parcel part = parcels_[index];
    part.offset += part.bytes;
    part.bytes = taken;
    part.*end_ = {gpus[place]};
    parcels_.push_back(part);
  }
}

/// What waits for one port hop: straight parcels, and parcels with a hop before or after.
class HopQueue {
 public:
  void add(const Parcel& parcel) {
    const bool is_straight = parcel.source == parcel.carrier && parcel.destination == parcel.arrival;
    (is_straight ? straight_ : relayed_).push_back(parcel);
    (is_straight ? straight_left_ : relayed_left_) += parcel.bytes;
  }

  /// Moves `bytes`, relayed ones in proportion to their part of the queue, so that links are busy evenly.
  void take(Bytes bytes, std::vector<Parcel>& parcels) {
    const Bytes relayed = share_of(bytes, relayed_left_, relayed_left_ + straight_left_);
    take_from(straight_, bytes - relayed, parcels);
    take_from(relayed_, relayed, parcels);
    straight_left_ -= bytes - relayed;
    relayed_left_ -= relayed;
  }

 private:
  static void take_from(std::vector<Parcel>& waiting, Bytes bytes, std::vector<Parcel>& parcels) {
    while (bytes > 0) {
      Parcel& last = waiting.back();
      const Bytes taken = std::min(bytes, last.bytes);
      parcels.push_back(last);
      parcels.back().bytes = taken;
      last.offset += taken;
      last.bytes -= taken;
      bytes -= taken;
      if (last.bytes == 0) waiting.pop_back();
    }
  }

  std::vector<Parcel> straight_;
  std::vector<Parcel> relayed_;
  Bytes straight_left_ = 0;
  Bytes relayed_left_ = 0;
};

/// Busiest link when the relays and all messages within nodes are moved.
double busiest_link_us(const std::vector<Parcel>& parcels, const TrafficMatrix& traffic,
                       const TwoTierNetwork& network) {
  if (network.link == 0) return 0;
  const int n = network.num_gpus();
  std::vector<double> load(2 * network.ports.size());
  const auto add = [&](GpuId from, GpuId to, Bytes bytes) {
    if (from == to) return;
    load[from.value] += static_cast<double>(bytes);
    load[n + to.value] += static_cast<double>(bytes);
  };
  for (const Parcel& parcel : parcels) {
    add(parcel.source, parcel.carrier, parcel.bytes);
    add(parcel.arrival, parcel.destination, parcel.bytes);
  }
  for (const std::vector<int>& gpus : network.gpus) {
    for (const int source : gpus) {
      for (const int destination : gpus) add({source}, {destination}, traffic.at(source, destination));
    }
  }
  return *std::max_element(load.begin(), load.end()) / network.link;
}

}  // namespace

GpuRelays relieve_ports(const TrafficMatrix& traffic, const TwoTierNetwork& network, double limit_us) {
  const int n = network.num_gpus();
  GpuRelays relays;
  for (int source = 0; source < n; ++source) {
    for (int destination = 0; destination < n; ++destination) {
      const Bytes bytes = traffic.at(source, destination);
      if (bytes == 0 || network.is_local({source}, {destination})) continue;
      relays.parcels.push_back({{source}, {source}, {destination}, {destination}, 0, bytes});
    }
  }
  PortRelief(network, limit_us, &Parcel::carrier, relays.parcels).relieve_all();
  std::erase_if(relays.parcels, [](const Parcel& parcel) { return parcel.bytes == 0; });
  PortRelief(network, limit_us, &Parcel::arrival, relays.parcels).relieve_all();
  std::erase_if(relays.parcels, [](const Parcel& parcel) { return parcel.bytes == 0; });
  relays.port_traffic = TrafficMatrix(n);
  for (const Parcel& parcel : relays.parcels) {
    relays.port_traffic.add(parcel.carrier.value, parcel.arrival.value, parcel.bytes);
  }
  relays.links_us = busiest_link_us(relays.parcels, traffic, network);
  return relays;
}

double balanced_limit_us(const TrafficMatrix& traffic, const TwoTierNetwork& network) {
  const TwoTierBounds bounds = two_tier_bounds(traffic, network);
  double too_short = bounds.nodes_us;
  if (relieve_ports(traffic, network, too_short).links_us <= too_short) return too_short;
  double long_enough = bounds.direct_us();
  while (long_enough > 1.01 * too_short) {
    const double middle = 0.5 * (too_short + long_enough);
    const bool is_enough = relieve_ports(traffic, network, middle).links_us <= middle;
    (is_enough ? long_enough : too_short) = middle;
  }
  return long_enough;
}

TwoTierOrder relayed_by_gpus(const TransmissionOrder& port_order, const GpuRelays& relays,
                             const TrafficMatrix& traffic, const TwoTierNetwork& network,
                             double longest_round_us) {
  const std::size_t n = network.ports.size();
  std::vector<HopQueue> queues(n * n);
  const auto queue_of = [&](GpuId carrier, GpuId arrival) -> HopQueue& {
    return queues[static_cast<std::size_t>(carrier.value) * n + static_cast<std::size_t>(arrival.value)];
  };
  for (const Parcel& parcel : relays.parcels) queue_of(parcel.carrier, parcel.arrival).add(parcel);
  TwoTierOrder order;
  for (const Round& round : pipelined_rounds(port_order, network.ports, longest_round_us)) {
    std::vector<Parcel>& parcels = order.port_rounds.emplace_back();
    for (const Transfer& transfer : round.transfers) {
      queue_of(transfer.source, transfer.destination).take(transfer.bytes, parcels);
    }
  }
  place_local_messages(traffic, network, order);
  return order;
}

}  // namespace aurora
