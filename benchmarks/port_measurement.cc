#include "benchmarks/port_measurement.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <span>
#include <string>

#include "benchmarks/sampling.h"
#include "kernels/error.h"
#include "runtime/dispatch/exchange.h"
#include "runtime/serialization.h"
#include "runtime/transport/wait.h"
#include "scheduler/order_policy.h"

namespace aurora::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr Bytes kFirstBytes = Bytes{256} << 10;
constexpr Bytes kMostBytes = Bytes{256} << 20;
constexpr Bytes kGrowth = 4;
constexpr double kLongEnoughUs = 20000;
constexpr int kRepeats = 3;

enum class Side { kSend, kReceive };

/// `bytes` in all between `rank` and the others.
TrafficMatrix star(int num_ranks, int rank, Side side, Bytes bytes) {
  TrafficMatrix traffic(num_ranks);
  for (int peer = 0; peer < num_ranks; ++peer) {
    if (peer == rank) continue;
    const Bytes share = bytes / (num_ranks - 1);
    if (side == Side::kSend) {
      traffic.set(rank, peer, share);
    } else {
      traffic.set(peer, rank, share);
    }
  }
  return traffic;
}

class PortMeter {
 public:
  explicit PortMeter(const PortProbe& probe)
      : probe_(probe),
        stream_(probe.backend.create_stream()),
        exchange_(probe.transport, probe.backend, *stream_, probe.exchange_tag),
        memory_(probe.backend.allocate(2 * static_cast<std::size_t>(kMostBytes), MemorySpace::kDevice)) {}

  double bytes_per_us(int rank, Side side) {
    Bytes bytes = kFirstBytes;
    double us = exchange_us(rank, side, bytes);
    while (us < kLongEnoughUs && bytes < kMostBytes) us = exchange_us(rank, side, bytes *= kGrowth);
    const Bytes fewer = bytes / kGrowth;
    const double less_us = exchange_us(rank, side, fewer);
    if (!(us > less_us)) {
      throw Error(ErrorKind::kIo, "the port of rank " + std::to_string(rank) + ": " + std::to_string(bytes) +
                                      " bytes took " + std::to_string(us) + " us, a quarter of them " +
                                      std::to_string(less_us) + " us; measure again on a quieter network");
    }
    return static_cast<double>(bytes - fewer) / (us - less_us);
  }

 private:
  /// Of the slowest rank, median; the same on all ranks.
  double exchange_us(int rank, Side side, Bytes bytes) {
    const TrafficMatrix traffic = star(probe_.transport.num_ranks(), rank, side, bytes);
    std::vector<double> times;
    for (int repeat = 0; repeat < kRepeats; ++repeat) times.push_back(slowest_us(run_us(traffic)));
    return quantiles_of(times).median;
  }

  double run_us(const TrafficMatrix& traffic) {
    const int self = probe_.transport.rank();
    std::vector<std::size_t> send_offsets, receive_offsets;
    std::size_t sent = 0, received = 0;
    for (int peer = 0; peer < traffic.num_gpus(); ++peer) {
      send_offsets.push_back(sent);
      receive_offsets.push_back(received);
      sent += static_cast<std::size_t>(traffic.at(self, peer));
      received += static_cast<std::size_t>(traffic.at(peer, self));
    }
    const TransmissionOrder order = plan_order(OrderPolicy::kGroup, traffic, {});
    all_gather(probe_.transport, {}, probe_.control_tag, probe_.deadline, "all ranks before an exchange");
    const Clock::time_point start = Clock::now();
    exchange_.mark_ready();
    wait_until([&] { return exchange_.can_start(); });
    exchange_.start(order, {memory_.data(), send_offsets, memory_.data() + kMostBytes, receive_offsets});
    wait_until([&] { return exchange_.advance(); });
    wait_until([&] { return exchange_.is_settled(); });
    stream_->synchronize(probe_.deadline);
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  }

  double slowest_us(double own_us) {
    double slowest = 0;
    for (const auto& bytes : all_gather(probe_.transport, std::as_bytes(std::span(&own_us, 1)),
                                        probe_.control_tag, probe_.deadline, "measured times")) {
      slowest = std::max(slowest, ByteReader(bytes).read<double>());
    }
    return slowest;
  }

  template <class IsDone>
  void wait_until(const IsDone& is_done) {
    for (IdleBackoff backoff; !is_done(); backoff.pause()) {
      if (Clock::now() < probe_.deadline) continue;
      throw Error(ErrorKind::kTimeout, "rank " + std::to_string(probe_.transport.rank()) +
                                           ": the ports were not measured before their deadline");
    }
  }

  const PortProbe& probe_;
  std::unique_ptr<Stream> stream_;
  Exchange exchange_;
  Buffer memory_;  // what is sent, then what is received
};

}  // namespace

std::vector<double> measure_ports(const PortProbe& probe) {
  check(probe.transport.num_ranks() > 1, "ports are measured between ranks");
  PortMeter meter(probe);
  try {
    std::vector<double> ports;
    for (int rank = 0; rank < probe.transport.num_ranks(); ++rank) {
      const double sending = meter.bytes_per_us(rank, Side::kSend);
      ports.push_back(std::min(sending, meter.bytes_per_us(rank, Side::kReceive)));
    }
    return ports;
  } catch (const std::exception& failure) {
    probe.transport.abort(failure.what());  // before the memory of its messages goes
    throw;
  }
}

}  // namespace aurora::bench
