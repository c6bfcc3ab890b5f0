#include "runtime/dispatch/fabric_measurement.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "runtime/dispatch/exchange.h"
#include "runtime/transport/wait.h"
#include "scheduler/order_policy.h"
#include "scheduler/random.h"

namespace aurora {
namespace {

using Clock = std::chrono::steady_clock;

// What a port sends in this time shows what its bytes take, and is worth an order.
constexpr double kPortUs = 20000;
// Several times what is under way at once, and small enough for buffers on any machine.
constexpr Bytes kLeastPortBytes = Bytes{1} << 19;
constexpr Bytes kMostPortBytes = Bytes{1} << 24;
constexpr Bytes kSmallBytes = 1 << 10;
constexpr int kManyTurns = 8;
// What a message costs is hidden behind the bytes of its neighbours, if they have some: seen at so many times
// less than the large ones have.
constexpr int kMediumPart = 16;
constexpr int kRepeats = 3;
// An order by the clock that takes so many times as long as the group is not for these ports.
constexpr double kMostOverGroup = 1.15;
constexpr std::uint64_t kUnevenSeed = 1;
constexpr double kUnevenPart = 0.6;

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

/// Fills all ports alike with `port_bytes`, by messages that differ much: the sum of some permutations, each
/// of which has kUnevenPart of what the one before has. Not of one after the other shift, which would make
/// rotation look good.
TrafficMatrix uneven_traffic(int num_ranks, Bytes port_bytes) {
  Random random(kUnevenSeed);
  std::vector<int> order(static_cast<std::size_t>(num_ranks));
  std::iota(order.begin(), order.end(), 0);
  const int num_permutations = 2 * num_ranks;
  TrafficMatrix traffic(num_ranks);
  double weight = 1 - kUnevenPart;  // the sum of all is one, but for what rounding takes
  for (int index = 0; index < num_permutations; ++index, weight *= kUnevenPart) {
    // A cycle through all ranks, so that nobody sends to itself.
    random.shuffle(order);
    const auto bytes = static_cast<Bytes>(static_cast<double>(port_bytes) * weight);
    for (std::size_t at = 0; at < order.size(); ++at) {
      const int destination = order[(at + 1) % order.size()];
      traffic.set(order[at], destination, traffic.at(order[at], destination) + bytes);
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

  /// Of each order, of the slowest rank, median; the same on all ranks. The orders take turns, so that what
  /// disturbs the network disturbs all of them.
  std::vector<double> exchange_us(std::span<const TransmissionOrder> orders, const TrafficMatrix& traffic) {
    std::vector<std::vector<double>> times(orders.size());
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      for (std::size_t index = 0; index < orders.size(); ++index) {
        times[index].push_back(slowest_us(run_us(orders[index], traffic)));
      }
    }
    std::vector<double> medians;
    for (std::vector<double>& us : times) {
      std::ranges::sort(us);
      medians.push_back(us[us.size() / 2]);
    }
    return medians;
  }
  double exchange_us(const TransmissionOrder& order, const TrafficMatrix& traffic) {
    return exchange_us(std::span(&order, 1), traffic).front();
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

/// What the model says as far as it is known.
double ideal_us(const FabricProbe& probe, const TransmissionOrder& order, const FabricModel& fabric) {
  return predicted_exchange_us(order, probe.ports, fabric);
}

/// Every rank sends `bytes` to each of the others in turn, `num_turns` times over.
struct Chain {
  TrafficMatrix traffic;
  TransmissionOrder order;

  Chain(int num_ranks, Bytes bytes, int num_turns)
      : traffic(shifts(num_ranks, num_ranks - 1, bytes * num_turns)) {
    const TransmissionOrder turn =
        plan_order(OrderPolicy::kRotation, shifts(num_ranks, num_ranks - 1, bytes), {});
    for (int index = 0; index < num_turns; ++index) {
      order.rounds.insert(order.rounds.end(), turn.rounds.begin(), turn.rounds.end());
    }
  }
};

/// Start-up and messages. What a small message costs is what more of them take longer, so that the start-up
/// of the exchange is not theirs.
void measure_messages(const FabricProbe& probe, Stopwatch& stopwatch, Bytes port_bytes, FabricModel& fabric) {
  const int num_ranks = probe.transport.num_ranks();
  const int num_peers = num_ranks - 1;
  const Bytes large_bytes = port_bytes / num_peers;
  const Bytes medium_bytes = large_bytes / kMediumPart;
  const std::array chains{Chain(num_ranks, kSmallBytes, 1), Chain(num_ranks, kSmallBytes, kManyTurns),
                          Chain(num_ranks, medium_bytes, kManyTurns), Chain(num_ranks, large_bytes, 1)};
  std::array<double, 4> over_us{};  // beyond the bytes
  for (std::size_t index = 0; index < chains.size(); ++index) {
    const auto& [traffic, order] = chains[index];
    over_us[index] = stopwatch.exchange_us(order, traffic) - ideal_us(probe, order, fabric);
  }
  const double small_us = std::max((over_us[1] - over_us[0]) / (num_peers * (kManyTurns - 1)), 0.0);
  fabric.start_us = std::max(over_us[0] - small_us * num_peers, 0.0);
  const double medium_us = std::max((over_us[2] - fabric.start_us) / (num_peers * kManyTurns), 0.0);
  const double large_us = std::max((over_us[3] - fabric.start_us) / num_peers, 0.0);
  fabric.messages = {{static_cast<double>(kSmallBytes), small_us},
                     {static_cast<double>(medium_bytes), medium_us},
                     {static_cast<double>(large_bytes), large_us}};
}

/// A line through the times of a group of small and one of large messages.
FabricModel::GroupCost measure_group(const FabricProbe& probe, Stopwatch& stopwatch,
                                     const FabricModel& fabric, int num_peers, Bytes port_bytes) {
  std::array<double, 2> ideal{}, us{};
  for (const std::size_t is_large : {0, 1}) {
    const TrafficMatrix traffic =
        shifts(probe.transport.num_ranks(), num_peers, is_large != 0 ? port_bytes / num_peers : kSmallBytes);
    const TransmissionOrder order = plan_order(OrderPolicy::kGroup, traffic, {});
    ideal[is_large] = ideal_us(probe, order, fabric) - fabric.start_us;
    us[is_large] = stopwatch.exchange_us(order, traffic) - fabric.start_us;
  }
  // These groups fill all ports alike, so nothing takes less than fair sharing does.
  const double stretch = std::max((us[1] - us[0]) / (ideal[1] - ideal[0]), 1.0);
  return {static_cast<double>(num_peers), std::max(us[0] - stretch * ideal[0], 0.0), stretch};
}

std::size_t place_of(OrderPolicy policy) {
  return static_cast<std::size_t>(std::ranges::find(all_order_policies(), policy) -
                                  all_order_policies().begin());
}

/// From the time of the group's order of `traffic`.
double uneven_stretch_of(const FabricProbe& probe, const TransmissionOrder& group,
                         const TrafficMatrix& traffic, double us, const FabricModel& fabric) {
  const double weight = (unevenness(traffic, probe.ports) - 1) * peer_busyness(traffic, probe.ports);
  if (!(weight > 0)) return 1;
  return std::max(1 + (us / ideal_us(probe, group, fabric) - 1) / weight, 1.0);
}

/// An uneven exchange under every policy, as they would be planned: the group's uneven_stretch, and what
/// orders take beside.
void measure_orders(const FabricProbe& probe, Stopwatch& stopwatch, Bytes port_bytes, FabricModel& fabric) {
  const TrafficMatrix traffic = uneven_traffic(probe.transport.num_ranks(), port_bytes);
  const OrderOptions options{.ports = {probe.ports.begin(), probe.ports.end()},
                             .round_cost_us = fabric.message_extra_us(0)};
  std::vector<TransmissionOrder> orders;
  for (const OrderPolicy policy : all_order_policies())
    orders.push_back(plan_order(policy, traffic, options));
  const std::vector<double> us = stopwatch.exchange_us(orders, traffic);
  const std::size_t group = place_of(OrderPolicy::kGroup), paced = place_of(OrderPolicy::kPaced);
  fabric.uneven_stretch = uneven_stretch_of(probe, orders[group], traffic, us[group], fabric);
  const double busyness = peer_busyness(traffic, probe.ports);
  std::vector<FabricModel::OrderCost> costs;
  for (std::size_t index = 0; index < orders.size(); ++index) {
    // As predictions apply it. Where an order took less than is explained, chance had a part in one of the
    // two, and the least of eight such numbers would be believed.
    const double stretch = 1 + (us[index] / ideal_us(probe, orders[index], fabric) - 1) / busyness;
    costs.push_back({all_order_policies()[index], std::max(stretch, 1.0)});
  }
  if (fabric.execution == ExchangeExecution::kLanes) {
    // Nothing collides by the clock: what it takes longer are starts and ends, of which large exchanges have
    // no more. Unless the ports are faster than their numbers, which keeping to them makes slow.
    costs[paced].full_us = ideal_us(probe, orders[paced], fabric);
    costs[paced].extra_us = std::max(us[paced] - costs[paced].full_us, 0.0);
    costs[paced].stretch = us[paced] > kMostOverGroup * us[group] ? us[paced] / us[group] : 1;
  }
  fabric.orders = std::move(costs);
}

// Each part is measured against what the parts before it explain.
FabricModel measure_with(const FabricProbe& probe, Stopwatch& stopwatch, Bytes port_bytes) {
  const int num_peers = probe.transport.num_ranks() - 1;
  FabricModel fabric;
  fabric.execution =
      probe.transport.is_stream_ordered() ? ExchangeExecution::kBatches : ExchangeExecution::kLanes;
  measure_messages(probe, stopwatch, port_bytes, fabric);
  FabricModel with_groups = fabric;
  if (num_peers > 2) with_groups.groups.push_back(measure_group(probe, stopwatch, fabric, 2, port_bytes));
  with_groups.groups.push_back(measure_group(probe, stopwatch, fabric, num_peers, port_bytes));
  measure_orders(probe, stopwatch, port_bytes, with_groups);
  return with_groups;
}

}  // namespace

FabricModel measure_fabric(const FabricProbe& probe) {
  const int num_peers = probe.transport.num_ranks() - 1;
  if (num_peers < 1) return {};
  const double slowest_port = *std::ranges::min_element(probe.ports);
  const Bytes port_bytes =
      std::clamp(static_cast<Bytes>(kPortUs * slowest_port), kLeastPortBytes, kMostPortBytes);
  Stopwatch stopwatch(probe, port_bytes + kManyTurns * kSmallBytes * num_peers);
  try {
    return measure_with(probe, stopwatch, port_bytes);
  } catch (const std::exception& failure) {
    probe.transport.abort(failure.what());  // before the memory of its messages goes
    throw;
  }
}

}  // namespace aurora
