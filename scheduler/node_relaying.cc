#include "scheduler/node_relaying.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <numeric>
#include <span>
#include <utility>

#include "scheduler/local_messages.h"
#include "scheduler/pipelined_rounds.h"

namespace aurora {
namespace {

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

}  // namespace

TwoTierOrder relayed_by_nodes(const TransmissionOrder& node_order, const TrafficMatrix& traffic,
                              const TwoTierNetwork& network, double longest_round_us) {
  TwoTierOrder order;
  const auto num_nodes = static_cast<std::size_t>(network.num_nodes());
  std::vector<int> message_of_pair(num_nodes * num_nodes, -1);
  std::vector<NodeMessage> messages;
  for (const Round& round : pipelined_rounds(node_order, network.node_ports, longest_round_us)) {
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
  place_local_messages(traffic, network, order);
  return order;
}

}  // namespace aurora
