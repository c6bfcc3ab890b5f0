#include "runtime/dispatch/exchange_plan.h"

#include <algorithm>
#include <map>
#include <utility>

#include "kernels/error.h"
#include "scheduler/makespan_bound.h"

namespace aurora {
namespace {

template <class BytesOf>
TrafficMatrix traffic_from(const CountMatrix& counts, BytesOf bytes_of) {
  TrafficMatrix traffic(counts.num_ranks());
  for (int source = 0; source < counts.num_ranks(); ++source) {
    for (int destination = 0; destination < counts.num_ranks(); ++destination) {
      if (source != destination) traffic.set(source, destination, bytes_of(source, destination));
    }
  }
  return traffic;
}

}  // namespace

TrafficMatrix dispatch_traffic(const CountMatrix& counts, std::size_t row_bytes) {
  return traffic_from(counts, [&](int source, int destination) {
    return static_cast<Bytes>(counts.at(source, destination).rows) * static_cast<Bytes>(row_bytes);
  });
}

TrafficMatrix combine_traffic(const CountMatrix& counts, std::size_t return_row_bytes, bool per_pair) {
  return traffic_from(counts, [&](int source, int destination) {
    const RowCounts& dispatched = counts.at(destination, source);
    return static_cast<Bytes>(per_pair ? dispatched.pairs : dispatched.rows) *
           static_cast<Bytes>(return_row_bytes);
  });
}

PlannedExchange plan_exchange(TrafficMatrix traffic, const ExchangePolicy& policy) {
  PlannedExchange planned;
  if (traffic.num_gpus() == 1) return {std::move(traffic), {}, 0};
  if (policy.order == OrderPolicy::kAuto) {
    check(policy.fabric != nullptr, "auto is chosen by what a fabric costs");
    ChosenOrder chosen = choose_order(traffic, policy.options, *policy.fabric);
    planned.order = std::move(chosen.order);
    planned.candidate = chosen.candidate;
    planned.predicted_seconds = chosen.predicted_us * 1e-6;
  } else {
    planned.order = plan_order(policy.order, traffic, policy.options);
  }
  planned.bound_seconds = makespan_bound_us(traffic, policy.options) * 1e-6;
  planned.traffic = std::move(traffic);
  return planned;
}

TransmissionOrder one_to_one_rounds(const TransmissionOrder& ports) {
  check(ports.pacing == Pacing::kPorts, "only a port order is turned into rounds");
  TransmissionOrder order;
  std::map<std::int32_t, std::size_t> free_to_send, free_to_receive;  // first round, by rank
  for (const Round& list : ports.rounds) {
    for (const Transfer& transfer : list.transfers) {
      std::size_t& send = free_to_send[transfer.source.value];
      std::size_t& receive = free_to_receive[transfer.destination.value];
      const std::size_t round = std::max(send, receive);
      if (round == order.rounds.size()) order.rounds.emplace_back();
      order.rounds[round].transfers.push_back(transfer);
      send = receive = round + 1;
    }
  }
  return order;
}

}  // namespace aurora
