#include "runtime/dispatch/exchange_plan.h"

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
  planned.order = plan_order(policy.order, traffic, policy.options);
  planned.bound_seconds = makespan_bound_us(traffic, policy.options) * 1e-6;
  planned.traffic = std::move(traffic);
  return planned;
}

}  // namespace aurora
