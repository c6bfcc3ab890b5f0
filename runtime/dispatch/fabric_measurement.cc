#include "runtime/dispatch/fabric_measurement.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "runtime/dispatch/exchange.h"
#include "runtime/transport/wait.h"
#include "scheduler/order_policy.h"

namespace aurora {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kLargestMessageUs = 5000;
// Large enough to show the bandwidth, small enough for buffers on any machine.
constexpr Bytes kLeastLargeBytes = Bytes{64} << 10;
constexpr Bytes kMostLargeBytes = Bytes{4} << 20;
constexpr Bytes kSmallBytes = 1 << 10;
constexpr int kRepeats = 3;
// A chain of middle messages has as many bytes as one of large ones, or what the network lets pass at once
// would hide what they cost.
constexpr int kMiddleInLarge = 8;

/// `bytes` from every rank to each of the next `num_peers`.
TrafficMatrix shifts(int num_ranks, int num_peers, Bytes bytes) {
  TrafficMatrix traffic(num_ranks);
  for (int source = 0; source < num_ranks; ++source) {
    for (int shift = 1; shift <= num_peers; ++shift) {
      traffic.set(source, (source + shift) % num_ranks, bytes);
    }
  }
  return traffic;
}

class Stopwatch {
 public:
  Stopwatch(const FabricProbe& probe, Bytes most_bytes)
      : probe_(probe),
        stream_(probe.backend.create_stream()),
        exchange_(probe.transport, probe.backend, *stream_, probe.exchange_tag),
        send_(probe.backend.allocate(static_cast<std::size_t>(most_bytes), MemorySpace::kDevice)),
        receive_(probe.backend.allocate(static_cast<std::size_t>(most_bytes), MemorySpace::kDevice)) {}

  /// Of the slowest rank, median; the same on all ranks.
  double exchange_us(const TransmissionOrder& order, const TrafficMatrix& traffic) {
    std::vector<double> times;
    for (int repeat = 0; repeat < kRepeats; ++repeat) times.push_back(slowest_us(run_us(order, traffic)));
    std::ranges::sort(times);
    return times[times.size() / 2];
  }

 private:
  double run_us(const TransmissionOrder& order, const TrafficMatrix& traffic) {
    const int rank = probe_.transport.rank();
    std::vector<std::size_t> send_offsets, receive_offsets;
    std::size_t sent = 0, received = 0;
    for (int peer = 0; peer < traffic.num_gpus(); ++peer) {
      send_offsets.push_back(sent);
      receive_offsets.push_back(received);
      sent += static_cast<std::size_t>(traffic.at(rank, peer));
      received += static_cast<std::size_t>(traffic.at(peer, rank));
    }
    all_gather(probe_.transport, {}, probe_.control_tag, probe_.deadline,
               "all ranks before a measured exchange");
    const Clock::time_point start = Clock::now();
    exchange_.mark_ready();
    wait_until([&] { return exchange_.can_start(); });
    exchange_.start(order, {send_.data(), send_offsets, receive_.data(), receive_offsets});
    wait_until([&] { return exchange_.advance(); });
    wait_until([&] { return exchange_.is_settled(); });
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  }

  double slowest_us(double own_us) {
    double slowest = 0;
    for (const auto& bytes : all_gather(probe_.transport, std::as_bytes(std::span(&own_us, 1)),
                                        probe_.control_tag, probe_.deadline, "measured times")) {
      double us = 0;
      check(bytes.size() == sizeof us, "a rank tells one time");
      std::memcpy(&us, bytes.data(), sizeof us);
      slowest = std::max(slowest, us);
    }
    return slowest;
  }

  template <class Condition>
  void wait_until(Condition is_met) {
    for (IdleBackoff backoff; !is_met(); backoff.pause()) {
      if (Clock::now() < probe_.deadline) continue;
      throw Error(ErrorKind::kTimeout, "rank " + std::to_string(probe_.transport.rank()) +
                                           ": an exchange that measures the fabric has not ended");
    }
  }

  const FabricProbe& probe_;
  std::unique_ptr<Stream> stream_;
  Exchange exchange_;
  Buffer send_, receive_;
};

/// Every rank sends `bytes` to each of the others in turn, `num_turns` times over.
FabricModel::ChainCost measure_chain(const FabricProbe& probe, Stopwatch& stopwatch, Bytes bytes,
                                     int num_turns) {
  const int num_peers = probe.transport.num_ranks() - 1;
  const TransmissionOrder turn =
      plan_order(OrderPolicy::kRotation, shifts(num_peers + 1, num_peers, bytes), {});
  TransmissionOrder order;
  for (int index = 0; index < num_turns; ++index) {
    order.rounds.insert(order.rounds.end(), turn.rounds.begin(), turn.rounds.end());
  }
  const double ideal_us = predicted_exchange_us(order, probe.ports, {});
  const double us = stopwatch.exchange_us(order, shifts(num_peers + 1, num_peers, bytes * num_turns));
  return {static_cast<double>(bytes), std::max((us - ideal_us) / (num_peers * num_turns), 0.0)};
}

/// A line through the times of a group of small and one of large messages.
FabricModel::GroupCost measure_group(const FabricProbe& probe, Stopwatch& stopwatch, int num_peers,
                                     Bytes bytes_of_rank) {
  std::array<double, 2> ideal_us{}, us{};
  for (const std::size_t is_large : {0, 1}) {
    const TrafficMatrix traffic = shifts(probe.transport.num_ranks(), num_peers,
                                         is_large != 0 ? bytes_of_rank / num_peers : kSmallBytes);
    const TransmissionOrder order = plan_order(OrderPolicy::kGroup, traffic, {});
    ideal_us[is_large] = predicted_exchange_us(order, probe.ports, {});
    us[is_large] = stopwatch.exchange_us(order, traffic);
  }
  // These groups fill all ports alike, so nothing takes less than fair sharing does.
  const double stretch = std::max((us[1] - us[0]) / (ideal_us[1] - ideal_us[0]), 1.0);
  return {static_cast<double>(num_peers), std::max(us[0] - stretch * ideal_us[0], 0.0), stretch};
}

FabricModel measure_with(const FabricProbe& probe, Stopwatch& stopwatch, Bytes large_bytes) {
  const int num_peers = probe.transport.num_ranks() - 1;
  FabricModel fabric;
  fabric.chain = {measure_chain(probe, stopwatch, kSmallBytes, 1),
                  measure_chain(probe, stopwatch, large_bytes / kMiddleInLarge, kMiddleInLarge),
                  measure_chain(probe, stopwatch, large_bytes, 1)};
  if (num_peers > 2) fabric.group.push_back(measure_group(probe, stopwatch, 2, large_bytes * num_peers));
  fabric.group.push_back(measure_group(probe, stopwatch, num_peers, large_bytes * num_peers));
  return fabric;
}

}  // namespace

FabricModel measure_fabric(const FabricProbe& probe) {
  const int num_peers = probe.transport.num_ranks() - 1;
  if (num_peers < 1) return {};
  const double slowest_port = *std::ranges::min_element(probe.ports);
  const Bytes large_bytes =
      std::clamp(static_cast<Bytes>(kLargestMessageUs * slowest_port), kLeastLargeBytes, kMostLargeBytes);
  Stopwatch stopwatch(probe, large_bytes * num_peers);
  try {
    return measure_with(probe, stopwatch, large_bytes);
  } catch (const std::exception& failure) {
    probe.transport.abort(failure.what());  // before the memory of its messages goes
    throw;
  }
}

}  // namespace aurora
