#include "scheduler/baseline_orders.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "scheduler/random.h"

namespace aurora {
namespace {

/// All messages, by source and then destination.
std::vector<Transfer> messages_of(const TrafficMatrix& traffic) {
  std::vector<Transfer> messages;
  for (int source = 0; source < traffic.num_gpus(); ++source) {
    for (int destination = 0; destination < traffic.num_gpus(); ++destination) {
      const Bytes bytes = traffic.at(source, destination);
      if (bytes > 0) messages.push_back({{source}, {destination}, bytes});
    }
  }
  return messages;
}

/// Whole messages into rounds, each round in the order of the list.
TransmissionOrder pack_whole_messages(std::vector<Transfer> messages, int num_gpus) {
  TransmissionOrder order;
  while (!messages.empty()) {
    std::vector<bool> is_sending(static_cast<std::size_t>(num_gpus));
    std::vector<bool> is_receiving(static_cast<std::size_t>(num_gpus));
    Round& round = order.rounds.emplace_back();
    std::erase_if(messages, [&](const Transfer& message) {
      if (is_sending[message.source.value] || is_receiving[message.destination.value]) return false;
      is_sending[message.source.value] = is_receiving[message.destination.value] = true;
      round.transfers.push_back(message);
      return true;
    });
  }
  return order;
}

}  // namespace

TransmissionOrder concurrent_group(const TrafficMatrix& traffic) {
  TransmissionOrder order;
  std::vector<Transfer> messages = messages_of(traffic);
  if (!messages.empty()) order.rounds.push_back({std::move(messages)});
  return order;
}

TransmissionOrder rotation_order(const TrafficMatrix& traffic) {
  TransmissionOrder order;
  const int n = traffic.num_gpus();
  for (int shift = 1; shift < n; ++shift) {
    Round round;
    for (int source = 0; source < n; ++source) {
      const int destination = (source + shift) % n;
      const Bytes bytes = traffic.at(source, destination);
      if (bytes > 0) round.transfers.push_back({{source}, {destination}, bytes});
    }
    if (!round.transfers.empty()) order.rounds.push_back(std::move(round));
  }
  return order;
}

TransmissionOrder longest_first_order(const TrafficMatrix& traffic) {
  std::vector<Transfer> messages = messages_of(traffic);
  std::stable_sort(messages.begin(), messages.end(),
                   [](const Transfer& a, const Transfer& b) { return a.bytes > b.bytes; });
  return pack_whole_messages(std::move(messages), traffic.num_gpus());
}

TransmissionOrder shortest_first_order(const TrafficMatrix& traffic) {
  std::vector<Transfer> messages = messages_of(traffic);
  std::stable_sort(messages.begin(), messages.end(),
                   [](const Transfer& a, const Transfer& b) { return a.bytes < b.bytes; });
  return pack_whole_messages(std::move(messages), traffic.num_gpus());
}

TransmissionOrder random_order(const TrafficMatrix& traffic, std::uint64_t seed) {
  std::vector<Transfer> messages = messages_of(traffic);
  Random random(seed);
  random.shuffle(messages);
  return pack_whole_messages(std::move(messages), traffic.num_gpus());
}

namespace {

/// State of Algorithm 1: what is left to send, and the sums of its lines.
struct RemainingTraffic {
  explicit RemainingTraffic(const TrafficMatrix& traffic) : left(traffic) {
    for (int gpu = 0; gpu < traffic.num_gpus(); ++gpu) {
      to_send.push_back(traffic.row_sum(gpu));
      to_receive.push_back(traffic.column_sum(gpu));
    }
  }

  Bytes load(int gpu) const { return std::max(to_send[gpu], to_receive[gpu]); }
  void take(const Transfer& transfer) {
    const int source = transfer.source.value;
    const int destination = transfer.destination.value;
    left.set(source, destination, left.at(source, destination) - transfer.bytes);
    to_send[source] -= transfer.bytes;
    to_receive[destination] -= transfer.bytes;
  }

  TrafficMatrix left;
  std::vector<Bytes> to_send;
  std::vector<Bytes> to_receive;
};

/// The matching that one round of Algorithm 1 chooses, transfers with all that is left of their messages.
std::vector<Transfer> choose_greedily(const RemainingTraffic& remaining) {
  const int n = remaining.left.num_gpus();
  std::vector<int> by_load(static_cast<std::size_t>(n));
  std::iota(by_load.begin(), by_load.end(), 0);
  std::stable_sort(by_load.begin(), by_load.end(),
                   [&](int a, int b) { return remaining.load(a) > remaining.load(b); });
  std::vector<bool> is_sending(static_cast<std::size_t>(n));
  std::vector<bool> is_receiving(static_cast<std::size_t>(n));
  std::vector<Transfer> chosen;
  const auto choose = [&](Transfer best) {
    if (best.bytes == 0) return;
    is_sending[best.source.value] = is_receiving[best.destination.value] = true;
    chosen.push_back(best);
  };
  for (const int gpu : by_load) {
    Transfer sent{{gpu}, {gpu}, 0};
    for (int peer = 0; peer < n && !is_sending[gpu]; ++peer) {
      const Bytes bytes = remaining.left.at(gpu, peer);
      if (!is_receiving[peer] && bytes > sent.bytes) sent = {{gpu}, {peer}, bytes};
    }
    choose(sent);
    Transfer received{{gpu}, {gpu}, 0};
    for (int peer = 0; peer < n && !is_receiving[gpu]; ++peer) {
      const Bytes bytes = remaining.left.at(peer, gpu);
      if (!is_sending[peer] && bytes > received.bytes) received = {{peer}, {gpu}, bytes};
    }
    choose(received);
  }
  return chosen;
}

}  // namespace

TransmissionOrder algorithm1_order(const TrafficMatrix& traffic) {
  TransmissionOrder order;
  RemainingTraffic remaining(traffic);
  for (;;) {
    Round round{choose_greedily(remaining)};
    if (round.transfers.empty()) return order;
    Bytes shortest = round.transfers.front().bytes;
    for (const Transfer& transfer : round.transfers) shortest = std::min(shortest, transfer.bytes);
    for (Transfer& transfer : round.transfers) {
      transfer.bytes = shortest;
      remaining.take(transfer);
    }
    order.rounds.push_back(std::move(round));
  }
}

}  // namespace aurora
