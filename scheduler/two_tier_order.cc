#include "scheduler/two_tier_order.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "scheduler/exact_order.h"

namespace aurora {
namespace {

__extension__ using WideInteger = __int128;

/// floor(bytes * part / whole), whole above zero.
Bytes share_of(Bytes bytes, Bytes part, Bytes whole) {
  return static_cast<Bytes>(WideInteger{bytes} * part / whole);
}

/// Where `bytes` are cut when GPUs take them in proportion to their ports: num_gpus ends, the last = bytes.
std::vector<Bytes> proportional_ends(Bytes bytes, std::span<const int> gpus, const TwoTierNetwork& network) {
  double whole = 0;
  for (const int gpu : gpus) whole += network.ports[gpu];
  std::vector<Bytes> ends;
  double sum = 0;
  for (const int gpu : gpus) {
    sum += network.ports[gpu];
    ends.push_back(std::min(bytes, static_cast<Bytes>(static_cast<double>(bytes) * (sum / whole))));
  }
  ends.back() = bytes;
  return ends;
}

/// Consecutive bytes of a message that wait at a carrier.
struct Segment {
  int source;
  int destination;
  int destination_place;  // within its node
  Bytes offset;
  Bytes bytes;
};

/// What waits at one carrier for one other node: its own bytes and those that node-mates move to it.
class CarrierQueue {
 public:
  explicit CarrierQueue(std::size_t num_destinations) : left_to_(num_destinations) {}

  void add(const Segment& segment, bool is_relayed) {
    (is_relayed ? relayed_ : own_).push_back(segment);
    (is_relayed ? relayed_left_ : own_left_) += segment.bytes;
    left_to_[segment.destination_place] += segment.bytes;
  }

  Bytes left() const { return own_left_ + relayed_left_; }
  Bytes left_to(int destination_place) const { return left_to_[destination_place]; }

  /// Moves `bytes` of what is left to `arrival`: relayed ones in proportion to their part of the queue, so
  /// that every round balances as much as every other; of each kind those for `arrival` itself first.
  void take(Bytes bytes, int carrier, int arrival, std::vector<Parcel>& parcels) {
    if (bytes == 0) return;
    const Bytes relayed = share_of(bytes, relayed_left_, left());
    const Bytes own = bytes - relayed;
    take_from(own_, own, carrier, arrival, parcels);
    take_from(relayed_, relayed, carrier, arrival, parcels);
    own_left_ -= own;
    relayed_left_ -= relayed;
  }

 private:
  void take_from(std::vector<Segment>& segments, Bytes bytes, int carrier, int arrival,
                 std::vector<Parcel>& parcels) {
    while (bytes > 0) {
      auto chosen = std::find_if(segments.begin(), segments.end(),
                                 [&](const Segment& segment) { return segment.destination == arrival; });
      if (chosen == segments.end()) {
        // The largest, so that destinations keep the proportions of what is left for them.
        chosen = std::max_element(segments.begin(), segments.end(),
                                  [](const Segment& a, const Segment& b) { return a.bytes < b.bytes; });
      }
      const Bytes taken = std::min(bytes, chosen->bytes);
      parcels.push_back({.source = {chosen->source},
                         .carrier = {carrier},
                         .arrival = {arrival},
                         .destination = {chosen->destination},
                         .offset = chosen->offset,
                         .bytes = taken});
      left_to_[chosen->destination_place] -= taken;
      chosen->offset += taken;
      chosen->bytes -= taken;
      bytes -= taken;
      if (chosen->bytes == 0) segments.erase(chosen);
    }
  }

  std::vector<Segment> own_;
  std::vector<Segment> relayed_;
  Bytes own_left_ = 0;
  Bytes relayed_left_ = 0;
  std::vector<Bytes> left_to_;  // [place of the destination]
};

/// What one GPU of a node sends to one GPU of another in a round.
struct PortFlow {
  int carrier_place;
  int arrival_place;
  Bytes bytes;
};

/// All that one node owes another, at the GPUs that will carry it.
class NodeMessage {
 public:
  NodeMessage(const TrafficMatrix& traffic, const TwoTierNetwork& network, int from, int to)
      : network_(network), from_gpus_(network.gpus[from]), to_gpus_(network.gpus[to]) {
    queues_.assign(from_gpus_.size(), CarrierQueue(to_gpus_.size()));
    balance(traffic);
  }

  /// Moves `bytes` of what is left in one round: every carrier the same part of its queue.
  void take_round(Bytes bytes, std::vector<Parcel>& parcels) {
    std::vector<Bytes> sent_ends = sending_ends(bytes);
    std::vector<PortFlow> best;
    Bytes most_straight = -1;
    for (int rotation = 0; rotation < static_cast<int>(to_gpus_.size()); ++rotation) {
      std::vector<PortFlow> flows = flows_of(bytes, sent_ends, rotation);
      Bytes straight = 0;
      for (const PortFlow& flow : flows) {
        straight += std::min(flow.bytes, queues_[flow.carrier_place].left_to(flow.arrival_place));
      }
      if (straight > most_straight) {
        most_straight = straight;
        best = std::move(flows);
      }
      if (most_straight == bytes) break;
    }
    for (const PortFlow& flow : best) {
      queues_[flow.carrier_place].take(flow.bytes, from_gpus_[flow.carrier_place],
                                       to_gpus_[flow.arrival_place], parcels);
    }
    left_ -= bytes;
  }

 private:
  void balance(const TrafficMatrix& traffic);
  std::vector<Bytes> sending_ends(Bytes bytes) const;
  std::vector<PortFlow> flows_of(Bytes bytes, std::span<const Bytes> sent_ends, int rotation) const;

  const TwoTierNetwork& network_;
  const std::vector<int>& from_gpus_;
  const std::vector<int>& to_gpus_;
  std::vector<CarrierQueue> queues_;  // [place of the carrier]
  Bytes left_ = 0;
};

/// Gives every carrier its share of the message: what exceeds a GPU's share goes to node-mates below theirs,
/// largest destinations first, from the ends of messages.
void NodeMessage::balance(const TrafficMatrix& traffic) {
  std::vector<Bytes> lack(from_gpus_.size());  // of its share; negative: more than its share
  for (std::size_t place = 0; place < from_gpus_.size(); ++place) {
    for (const int destination : to_gpus_) lack[place] -= traffic.at(from_gpus_[place], destination);
    left_ -= lack[place];
  }
  const std::vector<Bytes> ends = proportional_ends(left_, from_gpus_, network_);
  for (std::size_t place = 0; place < ends.size(); ++place) {
    lack[place] += ends[place] - (place > 0 ? ends[place - 1] : 0);
  }
  std::size_t taker = 0;
  for (std::size_t place = 0; place < from_gpus_.size(); ++place) {
    const int source = from_gpus_[place];
    std::vector<int> order(to_gpus_.size());
    std::iota(order.begin(), order.end(), 0);
    if (lack[place] < 0) {
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return traffic.at(source, to_gpus_[a]) > traffic.at(source, to_gpus_[b]);
      });
    }
    for (const int to_place : order) {
      Bytes own = traffic.at(source, to_gpus_[to_place]);
      while (own > 0 && lack[place] < 0) {
        while (lack[taker] <= 0) ++taker;
        const Bytes moved = std::min({own, -lack[place], lack[taker]});
        own -= moved;
        lack[place] += moved;
        lack[taker] -= moved;
        queues_[taker].add({source, to_gpus_[to_place], to_place, own, moved}, true);
      }
      if (own > 0) queues_[place].add({source, to_gpus_[to_place], to_place, 0, own}, false);
    }
  }
}

/// Cumulated bytes of the carriers in a round, in proportion to what each has left; whole at the last round.
std::vector<Bytes> NodeMessage::sending_ends(Bytes bytes) const {
  std::vector<Bytes> parts;
  Bytes rest = bytes;
  for (const CarrierQueue& queue : queues_) {
    parts.push_back(share_of(bytes, queue.left(), left_));
    rest -= parts.back();
  }
  // Rounding leaves fewer bytes than there are carriers.
  for (std::size_t place = 0; rest > 0; place = (place + 1) % parts.size()) {
    if (parts[place] == queues_[place].left()) continue;
    ++parts[place];
    --rest;
  }
  std::partial_sum(parts.begin(), parts.end(), parts.begin());
  return parts;
}

/// Cuts [0, bytes) at the ends of the carriers and at those of the arrivals, which are rotated; each piece is
/// a flow. Ends that differ by a byte or so per GPU, by rounding, are taken for one.
std::vector<PortFlow> NodeMessage::flows_of(Bytes bytes, std::span<const Bytes> sent_ends,
                                            int rotation) const {
  const std::size_t num_arrivals = to_gpus_.size();
  std::vector<int> rotated(num_arrivals);
  for (std::size_t place = 0; place < num_arrivals; ++place) {
    rotated[place] = to_gpus_[(place + static_cast<std::size_t>(rotation)) % num_arrivals];
  }
  const std::vector<Bytes> received_ends = proportional_ends(bytes, rotated, network_);
  const auto tolerance = static_cast<Bytes>(2 * (sent_ends.size() + num_arrivals));
  std::vector<PortFlow> flows;
  Bytes done = 0;
  std::size_t carrier = 0;
  std::size_t arrival = 0;
  while (done < bytes) {
    Bytes end = std::min(sent_ends[carrier], received_ends[arrival]);
    if (std::abs(sent_ends[carrier] - received_ends[arrival]) <= tolerance) end = sent_ends[carrier];
    if (end > done) {
      flows.push_back({static_cast<int>(carrier), network_.place_of[rotated[arrival]], end - done});
      done = end;
    }
    const bool is_carrier_done = sent_ends[carrier] <= done;
    const bool is_arrival_done = received_ends[arrival] <= done + tolerance;
    if (is_carrier_done && carrier + 1 < sent_ends.size()) ++carrier;
    if (is_arrival_done && arrival + 1 < num_arrivals) ++arrival;
  }
  return flows;
}

/// The shortest that a round between nodes can be: its busiest node.
double round_bound_us(const Round& round, const TwoTierNetwork& network) {
  std::vector<double> sent(network.gpus.size());
  std::vector<double> received(network.gpus.size());
  double longest = 0;
  for (const Transfer& transfer : round.transfers) {
    const auto bytes = static_cast<double>(transfer.bytes);
    const int from = transfer.source.value;
    const int to = transfer.destination.value;
    sent[from] += bytes / network.node_ports[from];
    received[to] += bytes / network.node_ports[to];
    longest = std::max({longest, sent[from], received[to]});
  }
  return longest;
}

/// Cuts rounds longer than `longest_us` into equal pieces and orders them short, long, short.
std::vector<Round> pipelined_rounds(const TransmissionOrder& node_order, const TwoTierNetwork& network,
                                    double longest_us) {
  std::vector<std::pair<double, Round>> pieces;
  for (const Round& round : node_order.rounds) {
    const double length_us = round_bound_us(round, network);
    const auto num_pieces = std::max<Bytes>(1, static_cast<Bytes>(std::ceil(length_us / longest_us)));
    for (Bytes piece = 0; piece < num_pieces; ++piece) {
      Round part;
      for (const Transfer& transfer : round.transfers) {
        const Bytes bytes =
            share_of(transfer.bytes, piece + 1, num_pieces) - share_of(transfer.bytes, piece, num_pieces);
        if (bytes > 0) part.transfers.push_back({transfer.source, transfer.destination, bytes});
      }
      if (!part.transfers.empty()) {
        pieces.emplace_back(length_us / static_cast<double>(num_pieces), std::move(part));
      }
    }
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Round> rounds(pieces.size());
  for (std::size_t index = 0; index < pieces.size(); ++index) {
    const std::size_t place = index % 2 == 0 ? index / 2 : pieces.size() - 1 - index / 2;
    rounds[place] = std::move(pieces[index].second);
  }
  return rounds;
}

/// Calls `use(from, to, parcel)` for the hops of the parcels that a step moves.
template <class Use>
void for_each_hop_through_ports(const TwoTierOrder& order, int step, const Use& use) {
  if (step < 1 || step > static_cast<int>(order.port_rounds.size())) return;
  for (const Parcel& parcel : order.port_rounds[step - 1]) use(parcel.carrier, parcel.arrival, parcel);
}

template <class Use>
void for_each_hop_over_links(const TwoTierOrder& order, int step, const Use& use) {
  const int num_rounds = static_cast<int>(order.port_rounds.size());
  if (step < num_rounds) {
    for (const Parcel& parcel : order.port_rounds[step]) {
      if (parcel.source != parcel.carrier) use(parcel.source, parcel.carrier, parcel);
    }
  }
  if (step >= 2 && step - 2 < num_rounds) {
    for (const Parcel& parcel : order.port_rounds[step - 2]) {
      if (parcel.arrival != parcel.destination) use(parcel.arrival, parcel.destination, parcel);
    }
  }
  if (step < static_cast<int>(order.local_parcels.size())) {
    for (const Parcel& parcel : order.local_parcels[step]) use(parcel.source, parcel.destination, parcel);
  }
}

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

/// Places the messages within nodes in the steps, where links have time while ports are busy; what finds no
/// room is appended in rounds of its own, in the exact order of the links.
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

/// Carries out an order of the nodes with all their GPUs.
TwoTierOrder relayed_along(const TransmissionOrder& node_order, const TrafficMatrix& traffic,
                           const TwoTierNetwork& network, double longest_round_us) {
  TwoTierOrder order;
  const auto num_nodes = static_cast<std::size_t>(network.num_nodes());
  std::vector<int> message_of_pair(num_nodes * num_nodes, -1);
  std::vector<NodeMessage> messages;
  for (const Round& round : pipelined_rounds(node_order, network, longest_round_us)) {
    std::vector<Parcel>& parcels = order.port_rounds.emplace_back();
    for (const Transfer& transfer : round.transfers) {
      const auto from = static_cast<std::size_t>(transfer.source.value);
      const auto to = static_cast<std::size_t>(transfer.destination.value);
      int& message = message_of_pair[from * num_nodes + to];
      if (message < 0) {
        message = static_cast<int>(messages.size());
        messages.emplace_back(traffic, network, transfer.source.value, transfer.destination.value);
      }
      messages[message].take_round(transfer.bytes, parcels);
    }
  }
  LocalPlacement(traffic, network, order).place();
  return order;
}

/// What ports carry when every byte goes straight.
TrafficMatrix crossing_traffic(const TrafficMatrix& traffic, const TwoTierNetwork& network) {
  TrafficMatrix crossing = traffic;
  for (const auto& gpus : network.gpus) {
    for (const int source : gpus) {
      for (const int destination : gpus) crossing.set(source, destination, 0);
    }
  }
  return crossing;
}

bool has_equal_nodes(const TwoTierNetwork& network) {
  return std::adjacent_find(network.node_ports.begin(), network.node_ports.end(), std::not_equal_to<>()) ==
         network.node_ports.end();
}

/// The best order seen under a cost per step.
class TwoTierSearch {
 public:
  TwoTierSearch(const TrafficMatrix& traffic, const TwoTierNetwork& network, const TwoTierOptions& options)
      : traffic_(traffic),
        network_(network),
        options_(options),
        bounds_(two_tier_bounds(traffic, network)),
        between_nodes_(node_traffic(traffic, network)) {
    if (!(options.round_cost_us >= 0) || options.max_steps < 0) {
      throw std::invalid_argument("round cost " + std::to_string(options.round_cost_us) +
                                  " us and step limit " + std::to_string(options.max_steps) +
                                  " must not be negative");
    }
  }

  void consider_relayed(OrderPolicy node_policy, std::span<const int> piece_counts);
  void consider_direct();
  TwoTierOrder take_best() { return std::move(best_); }

 private:
  bool can_win(double bound_us, int num_steps) const {
    return (options_.max_steps == 0 || num_steps <= options_.max_steps) &&
           bound_us + num_steps * options_.round_cost_us < best_us_;
  }
  void consider(TwoTierOrder order, double bound_us) {
    if (!can_win(bound_us, num_busy_steps(order))) return;
    const double time_us = predicted_two_tier_us(order, network_, options_.round_cost_us);
    if (time_us >= best_us_) return;
    best_us_ = time_us;
    best_ = std::move(order);
  }

  const TrafficMatrix& traffic_;
  const TwoTierNetwork& network_;
  const TwoTierOptions& options_;
  TwoTierBounds bounds_;
  TrafficMatrix between_nodes_;
  double best_us_ = std::numeric_limits<double>::infinity();
  TwoTierOrder best_;
};

void TwoTierSearch::consider_relayed(OrderPolicy node_policy, std::span<const int> piece_counts) {
  OrderOptions options;
  options.ports = network_.node_ports;
  options.round_cost_us = options_.round_cost_us;
  const TransmissionOrder node_order = plan_order(node_policy, between_nodes_, options);
  for (const int num_pieces : piece_counts) {
    const int num_rounds = static_cast<int>(node_order.rounds.size());
    if (num_rounds > 0 && !can_win(bounds_.relayed_us(), std::max(num_pieces, num_rounds))) return;
    consider(relayed_along(node_order, traffic_, network_, bounds_.nodes_us / num_pieces),
             bounds_.relayed_us());
  }
}

void TwoTierSearch::consider_direct() {
  OrderOptions options;
  options.ports = network_.ports;
  options.round_cost_us = options_.round_cost_us;
  options.max_rounds = options_.max_steps;
  options.seed = options_.seed;
  const TrafficMatrix crossing = crossing_traffic(traffic_, network_);
  for (const OrderPolicy policy : all_order_policies()) {
    if (!can_win(bounds_.direct_us(), policy == OrderPolicy::kGroup ? 1 : 2)) continue;
    if (network_.link > 0) {
      TwoTierOrder order = without_relays(plan_order(policy, crossing, options), network_);
      order.local_parcels.clear();
      LocalPlacement(traffic_, network_, order).place();
      consider(std::move(order), bounds_.direct_us());
    }
    consider(without_relays(plan_order(policy, traffic_, options), network_), bounds_.direct_us());
  }
}

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

/// Numbers of pieces that the relayed traffic is cut into at least: few fill the pipeline worse, many cost
/// more start-ups.
constexpr int kPiecesWithoutCost = 64;
constexpr std::array kPiecesUnderCost{1, 2, 4, 8, 16, 32, 64, 128};

TwoTierOrder relayed_order(const TrafficMatrix& traffic, const TwoTierNetwork& network) {
  const TrafficMatrix between_nodes = node_traffic(traffic, network);
  const double bound_us = two_tier_bounds(traffic, network).nodes_us;
  const double longest_us = network.link > 0 ? bound_us / kPiecesWithoutCost : bound_us;
  OrderOptions options;
  options.ports = network.node_ports;
  options.round_cost_us = 0;
  const auto along = [&](OrderPolicy policy) {
    return relayed_along(plan_order(policy, between_nodes, options), traffic, network, longest_us);
  };
  TwoTierOrder exact = along(OrderPolicy::kExact);
  if (has_equal_nodes(network)) return exact;
  TwoTierOrder shared = along(OrderPolicy::kAurora);
  const bool is_exact_better =
      predicted_two_tier_us(exact, network, 0) <= predicted_two_tier_us(shared, network, 0);
  return is_exact_better ? exact : shared;
}

TwoTierOrder best_two_tier_order(const TrafficMatrix& traffic, const TwoTierNetwork& network,
                                 const TwoTierOptions& options) {
  TwoTierSearch search(traffic, network, options);
  if (network.link > 0) {
    search.consider_relayed(OrderPolicy::kAurora, kPiecesUnderCost);
    search.consider_relayed(OrderPolicy::kGroup, kPiecesUnderCost);
  }
  search.consider_direct();
  return search.take_best();
}

}  // namespace aurora
