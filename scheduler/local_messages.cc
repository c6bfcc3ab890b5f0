#include "scheduler/local_messages.h"

#include <algorithm>
#include <cstddef>

#include "scheduler/exact_order.h"

namespace aurora {
namespace {

class LocalPlacement {
 public:
  LocalPlacement(const TrafficMatrix& traffic, const TwoTierNetwork& network, TwoTierOrder& order)
      : network_(network), order_(order), left_(network.num_gpus()) {
    for (const auto& gpus : network.gpus) {
      for (const int source : gpus) {
        for (const int destination : gpus) left_.set(source, destination, traffic.at(source, destination));
      }
    }
    whole_ = left_;
  }

  void place() {
    if (left_.total() == 0) return;
    measure_room();
    for (const double part : {part_of_room(), 1.0}) {
      for (std::size_t step = 0; step < room_.size(); ++step) {
        for (std::size_t node = 0; node < network_.gpus.size(); ++node) fill(step, node, part);
      }
    }
    append_rest();
  }

 private:
  void measure_room();
  double part_of_room() const;
  void fill(std::size_t step, std::size_t node, double part);
  void append_rest();

  void add_parcel(std::size_t step, int source, int destination, Bytes bytes) {
    if (order_.local_parcels.size() <= step) order_.local_parcels.resize(step + 1);
    const Bytes left = left_.at(source, destination);
    order_.local_parcels[step].push_back({.source = {source},
                                          .carrier = {source},
                                          .arrival = {destination},
                                          .destination = {destination},
                                          .offset = whole_.at(source, destination) - left,
                                          .bytes = bytes});
    left_.set(source, destination, left - bytes);
  }

  const TwoTierNetwork& network_;
  TwoTierOrder& order_;
  TrafficMatrix whole_;
  TrafficMatrix left_;
  std::vector<double> room_;               // [step] bytes that a link moves while the ports are busy
  std::vector<std::vector<double>> used_;  // [step][side] of it: senders, then receivers
};

void LocalPlacement::measure_room() {
  const int n = network_.num_gpus();
  std::vector<Transfer> through_ports;
  for (int step = 0; step <= static_cast<int>(order_.port_rounds.size()); ++step) {
    through_ports.clear();
    for_each_hop_through_ports(order_, step, [&](GpuId from, GpuId to, const Parcel& parcel) {
      const bool is_same = !through_ports.empty() && through_ports.back().source == from &&
                           through_ports.back().destination == to;
      if (!is_same) through_ports.push_back({from, to, 0});
      through_ports.back().bytes += parcel.bytes;
    });
    room_.push_back(two_tier_time_us(through_ports, network_) * network_.link);
    used_.emplace_back(2 * static_cast<std::size_t>(n));
    for_each_hop_over_links(order_, step, [&](GpuId from, GpuId to, const Parcel& parcel) {
      used_.back()[from.value] += static_cast<double>(parcel.bytes);
      used_.back()[n + to.value] += static_cast<double>(parcel.bytes);
    });
  }
}

/// Which part of the free room is used in each step: half, so that max-min sharing, which is no ideal pacing,
/// does not make a step longer; more where half is not enough.
double LocalPlacement::part_of_room() const {
  const int n = network_.num_gpus();
  double part = 0.5;
  for (int side = 0; side < 2 * n; ++side) {
    const auto needed = static_cast<double>(side < n ? left_.row_sum(side) : left_.column_sum(side - n));
    double room = 0;
    for (std::size_t step = 0; step < room_.size(); ++step) {
      room += std::max(0.0, room_[step] - used_[step][side]);
    }
    if (needed > part * room) part = room > 0 ? std::min(1.0, 1.25 * needed / room) : 1.0;
  }
  return part;
}

void LocalPlacement::fill(std::size_t step, std::size_t node, double part) {
  const int n = network_.num_gpus();
  std::vector<double>& used = used_[step];
  for (const int source : network_.gpus[node]) {
    for (const int destination : network_.gpus[node]) {
      const Bytes left = left_.at(source, destination);
      if (left == 0) continue;
      const double room = part * (room_[step] - std::max(used[source], used[n + destination]));
      if (room < 1) continue;
      const Bytes bytes = room < static_cast<double>(left) ? static_cast<Bytes>(room) : left;
      add_parcel(step, source, destination, bytes);
      used[source] += static_cast<double>(bytes);
      used[n + destination] += static_cast<double>(bytes);
    }
  }
}

void LocalPlacement::append_rest() {
  // After the last redistribution.
  std::size_t step = order_.port_rounds.empty() ? 0 : order_.port_rounds.size() + 2;
  const std::vector<double> links(static_cast<std::size_t>(network_.num_gpus()), network_.link);
  for (const Round& round : exact_order(left_, links).rounds) {
    for (const Transfer& transfer : round.transfers) {
      add_parcel(step, transfer.source.value, transfer.destination.value, transfer.bytes);
    }
    ++step;
  }
}

}  // namespace

void place_local_messages(const TrafficMatrix& traffic, const TwoTierNetwork& network, TwoTierOrder& order) {
  LocalPlacement(traffic, network, order).place();
}

}  // namespace aurora
