#include "scheduler/port_order.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <stdexcept>

namespace aurora {
namespace {

std::size_t num_gpus_of(std::span<const Transfer> starts) {
  std::int32_t last = -1;
  for (const Transfer& transfer : starts) {
    last = std::max({last, transfer.source.value, transfer.destination.value});
  }
  return static_cast<std::size_t>(last + 1);
}

}  // namespace

double port_order_makespan_us(std::span<const Transfer> starts, std::span<const double> ports,
                              double message_cost_us) {
  std::vector<double> send_free_us(ports.size());
  std::vector<double> receive_free_us(ports.size());
  double makespan_us = 0;
  for (const Transfer& transfer : starts) {
    const auto source = static_cast<std::size_t>(transfer.source.value);
    const auto destination = static_cast<std::size_t>(transfer.destination.value);
    const double rate = std::min(ports[source], ports[destination]);
    const double end_us = std::max(send_free_us[source], receive_free_us[destination]) + message_cost_us +
                          static_cast<double>(transfer.bytes) / rate;
    send_free_us[source] = receive_free_us[destination] = end_us;
    makespan_us = std::max(makespan_us, end_us);
  }
  return makespan_us;
}

Bytes port_order_makespan_bytes(std::span<const Transfer> starts) {
  const std::size_t num_gpus = num_gpus_of(starts);
  std::vector<Bytes> send_free(num_gpus);
  std::vector<Bytes> receive_free(num_gpus);
  Bytes makespan = 0;
  for (const Transfer& transfer : starts) {
    Bytes& sender = send_free[static_cast<std::size_t>(transfer.source.value)];
    Bytes& receiver = receive_free[static_cast<std::size_t>(transfer.destination.value)];
    const Bytes start = std::max(sender, receiver);
    if (transfer.bytes > std::numeric_limits<Bytes>::max() - start) {
      throw std::overflow_error("the order's makespan exceeds 2^63 - 1 bytes");
    }
    sender = receiver = start + transfer.bytes;
    makespan = std::max(makespan, sender);
  }
  return makespan;
}

int most_messages_of_a_side(std::span<const Transfer> starts) {
  const std::size_t num_gpus = num_gpus_of(starts);
  std::vector<int> sent(num_gpus);
  std::vector<int> received(num_gpus);
  int most = 0;
  for (const Transfer& transfer : starts) {
    most = std::max({most, ++sent[static_cast<std::size_t>(transfer.source.value)],
                     ++received[static_cast<std::size_t>(transfer.destination.value)]});
  }
  return most;
}

TransmissionOrder without_barriers(const TransmissionOrder& rounds) {
  TransmissionOrder order;
  order.pacing = Pacing::kPorts;
  std::vector<Transfer> starts;
  for (const Round& round : rounds.rounds) {
    starts.insert(starts.end(), round.transfers.begin(), round.transfers.end());
  }
  if (starts.empty()) return order;
  const std::size_t num_gpus = num_gpus_of(starts);
  // Index into `merged` of the last transfer of each side; a transfer that follows its own pair at both sides
  // joins it.
  constexpr std::size_t kNone = ~std::size_t{0};
  std::vector<std::size_t> last_sent(num_gpus, kNone);
  std::vector<std::size_t> last_received(num_gpus, kNone);
  std::vector<Transfer> merged;
  merged.reserve(starts.size());
  for (const Transfer& transfer : starts) {
    std::size_t& sent = last_sent[static_cast<std::size_t>(transfer.source.value)];
    std::size_t& received = last_received[static_cast<std::size_t>(transfer.destination.value)];
    if (sent != kNone && sent == received) {
      merged[sent].bytes += transfer.bytes;
    } else {
      sent = received = merged.size();
      merged.push_back(transfer);
    }
  }
  order.rounds.push_back({std::move(merged)});
  return order;
}

}  // namespace aurora
