#include "scheduler/two_tier_network.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>

#include "scheduler/fair_sharing.h"

namespace aurora {
namespace {

constexpr Bytes kLargestSum = Bytes{1} << 62;

/// Adds to what a node sends or receives; all entries of a GPU's line fit, those of a node's may not.
void add_to_node_sum(Bytes& sum, Bytes bytes, const char* what, int node) {
  if (bytes > kLargestSum - sum) {
    throw std::invalid_argument("traffic: node " + std::to_string(node) + " " + what +
                                " more than 2^62 bytes");
  }
  sum += bytes;
}

/// Sending and receiving sides of the interfaces of a network, and the transfers that share them. The port of
/// GPU g is interface g, its link is interface n + g; side i of 2n sends through interface i, side 2n + i
/// receives through it.
class SharedSides {
 public:
  SharedSides(std::span<const Transfer> transfers, const TwoTierNetwork& network)
      : transfers_(transfers),
        network_(network),
        num_interfaces_(2 * network.num_gpus()),
        parent_(2 * static_cast<std::size_t>(num_interfaces_)),
        load_us_(parent_.size()) {
    std::iota(parent_.begin(), parent_.end(), 0);
    for (const Transfer& transfer : transfers) {
      const int sender = sending_side(transfer);
      const int receiver = receiving_side(transfer);
      load_us_[sender] += static_cast<double>(transfer.bytes) / bandwidth(sender);
      load_us_[receiver] += static_cast<double>(transfer.bytes) / bandwidth(receiver);
      parent_[root_of(sender)] = root_of(receiver);
    }
  }

  double longest_us();

 private:
  /// Transfers that are connected by sides they share.
  struct Group {
    std::vector<int> transfers;
    double at_least_us = 0;
    double at_most_us = 0;
  };

  int interface_of(const Transfer& transfer, GpuId gpu) const {
    return network_.is_local(transfer.source, transfer.destination) ? network_.num_gpus() + gpu.value
                                                                    : gpu.value;
  }
  int sending_side(const Transfer& transfer) const { return interface_of(transfer, transfer.source); }
  int receiving_side(const Transfer& transfer) const {
    return num_interfaces_ + interface_of(transfer, transfer.destination);
  }
  double bandwidth(int side) const {
    const int interface = side % num_interfaces_;
    return interface < network_.num_gpus() ? network_.ports[interface] : network_.link;
  }
  int root_of(int side) {
    while (parent_[side] != side) side = parent_[side] = parent_[parent_[side]];
    return side;
  }
  std::vector<Group> groups();
  double simulate(const Group& group) const;

  std::span<const Transfer> transfers_;
  const TwoTierNetwork& network_;
  int num_interfaces_;
  std::vector<int> parent_;      // [side] union-find
  std::vector<double> load_us_;  // [side]
};

std::vector<SharedSides::Group> SharedSides::groups() {
  std::vector<Group> groups;
  std::vector<int> group_of_root(parent_.size(), -1);
  for (std::size_t index = 0; index < transfers_.size(); ++index) {
    const int sender = sending_side(transfers_[index]);
    const int receiver = receiving_side(transfers_[index]);
    int& group_index = group_of_root[root_of(sender)];
    if (group_index < 0) {
      group_index = static_cast<int>(groups.size());
      groups.emplace_back();
    }
    Group& group = groups[group_index];
    group.transfers.push_back(static_cast<int>(index));
    group.at_least_us = std::max({group.at_least_us, load_us_[sender], load_us_[receiver]});
    group.at_most_us = std::max(group.at_most_us, load_us_[sender] + load_us_[receiver]);
  }
  for (Group& group : groups) {
    if (group.transfers.size() == 1) group.at_most_us = group.at_least_us;
  }
  return groups;
}

/// The group alone, its interfaces numbered from zero.
double SharedSides::simulate(const Group& group) const {
  std::map<int, int> compact;
  std::vector<double> bandwidths;
  const auto numbered = [&](int side) {
    const auto [entry, is_new] =
        compact.try_emplace(side % num_interfaces_, static_cast<int>(compact.size()));
    if (is_new) bandwidths.push_back(bandwidth(side));
    return GpuId{entry->second};
  };
  std::vector<Transfer> alone;
  alone.reserve(group.transfers.size());
  for (const int index : group.transfers) {
    const Transfer& transfer = transfers_[index];
    const GpuId sender = numbered(sending_side(transfer));
    const GpuId receiver = numbered(receiving_side(transfer));
    alone.push_back({sender, receiver, transfer.bytes});
  }
  return fair_share_makespan_us(alone, bandwidths);
}

double SharedSides::longest_us() {
  std::vector<Group> sharing = groups();
  double longest = 0;
  for (const Group& group : sharing) longest = std::max(longest, group.at_least_us);
  // The heaviest first: it spares the simulation of most others.
  std::stable_sort(sharing.begin(), sharing.end(),
                   [](const Group& a, const Group& b) { return a.at_least_us > b.at_least_us; });
  for (const Group& group : sharing) {
    if (group.at_most_us > longest) longest = std::max(longest, simulate(group));
  }
  return longest;
}

}  // namespace

TwoTierNetwork two_tier_network(const ClusterSpec& cluster) {
  validate(cluster);
  TwoTierNetwork network;
  network.ports = port_bandwidths(cluster);
  network.link = has_two_tiers(cluster) ? cluster.link_gbps * kBytesPerUsOfGbps : 0;
  std::map<int, int> index_of_number;
  for (int gpu = 0; gpu < cluster.num_gpus(); ++gpu) {
    const int number = network.link > 0 ? cluster.gpus[gpu].node : gpu;
    const int node = index_of_number.try_emplace(number, network.num_nodes()).first->second;
    if (node == network.num_nodes()) {
      network.gpus.emplace_back();
      network.node_ports.push_back(0);
    }
    network.node_of.push_back(node);
    network.place_of.push_back(static_cast<int>(network.gpus[node].size()));
    network.gpus[node].push_back(gpu);
    network.node_ports[node] += network.ports[gpu];
  }
  return network;
}

bool has_two_tiers(const ClusterSpec& cluster) {
  if (!(cluster.link_gbps > 0)) return false;
  std::vector<int> numbers;
  for (const ClusterGpu& gpu : cluster.gpus) numbers.push_back(gpu.node);
  std::sort(numbers.begin(), numbers.end());
  return std::adjacent_find(numbers.begin(), numbers.end()) != numbers.end();
}

std::shared_ptr<const TwoTierNetwork> tiers_of(const ClusterSpec& cluster) {
  return has_two_tiers(cluster) ? std::make_shared<const TwoTierNetwork>(two_tier_network(cluster)) : nullptr;
}

TrafficMatrix node_traffic(const TrafficMatrix& traffic, const TwoTierNetwork& network) {
  if (traffic.num_gpus() != network.num_gpus()) {
    throw std::invalid_argument("traffic of " + std::to_string(traffic.num_gpus()) +
                                " GPUs, but the cluster has " + std::to_string(network.num_gpus()));
  }
  const auto num_nodes = static_cast<std::size_t>(network.num_nodes());
  std::vector<Bytes> entries(num_nodes * num_nodes);
  std::vector<Bytes> sent(num_nodes);
  std::vector<Bytes> received(num_nodes);
  for (int source = 0; source < traffic.num_gpus(); ++source) {
    const int from = network.node_of[source];
    const auto row = traffic.row(source);
    for (int destination = 0; destination < traffic.num_gpus(); ++destination) {
      const int to = network.node_of[destination];
      if (to == from || row[destination] == 0) continue;
      add_to_node_sum(sent[from], row[destination], "sends", from);
      add_to_node_sum(received[to], row[destination], "receives", to);
      entries[static_cast<std::size_t>(from) * num_nodes + static_cast<std::size_t>(to)] += row[destination];
    }
  }
  return {network.num_nodes(), entries};
}

double TwoTierBounds::relayed_us() const { return std::max({nodes_us, gpus_us, links_us}); }

double TwoTierBounds::direct_us() const { return std::max(ports_us, links_us); }

TwoTierBounds two_tier_bounds(const TrafficMatrix& traffic, const TwoTierNetwork& network) {
  const TrafficMatrix between_nodes = node_traffic(traffic, network);
  const int n = network.num_gpus();
  TwoTierBounds bounds;
  for (int node = 0; node < network.num_nodes(); ++node) {
    const Bytes busiest = std::max(between_nodes.row_sum(node), between_nodes.column_sum(node));
    bounds.nodes_us = std::max(bounds.nodes_us, static_cast<double>(busiest) / network.node_ports[node]);
  }
  // [gpu] bytes to and from node-mates and others.
  std::vector<Bytes> local(2 * static_cast<std::size_t>(n));
  std::vector<Bytes> crossing(local.size());
  for (int source = 0; source < n; ++source) {
    const auto row = traffic.row(source);
    for (int destination = 0; destination < n; ++destination) {
      std::vector<Bytes>& sums = network.is_local({source}, {destination}) ? local : crossing;
      sums[source] += row[destination];
      sums[n + destination] += row[destination];
    }
  }
  for (int side = 0; side < 2 * n; ++side) {
    const double port = network.ports[side % n];
    const auto local_bytes = static_cast<double>(local[side]);
    const auto crossing_bytes = static_cast<double>(crossing[side]);
    bounds.ports_us = std::max(bounds.ports_us, crossing_bytes / port);
    bounds.gpus_us = std::max(bounds.gpus_us, (local_bytes + crossing_bytes) / (port + network.link));
    if (local[side] > 0) bounds.links_us = std::max(bounds.links_us, local_bytes / network.link);
  }
  return bounds;
}

double two_tier_time_us(std::span<const Transfer> transfers, const TwoTierNetwork& network) {
  return transfers.empty() ? 0 : SharedSides(transfers, network).longest_us();
}

double predicted_two_tier_us(const TransmissionOrder& order, const TwoTierNetwork& network,
                             double round_cost_us) {
  double elapsed = 0;
  for (const Round& round : order.rounds)
    elapsed += round_cost_us + two_tier_time_us(round.transfers, network);
  return elapsed;
}

}  // namespace aurora
