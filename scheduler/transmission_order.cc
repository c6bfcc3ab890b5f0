#include "scheduler/transmission_order.h"

#include "scheduler/port_order.h"

namespace aurora {

TrafficMatrix carried_traffic(const TransmissionOrder& order, int num_gpus) {
  TrafficMatrix carried(num_gpus);
  for (const Round& round : order.rounds) {
    for (const Transfer& transfer : round.transfers) {
      carried.add(transfer.source.value, transfer.destination.value, transfer.bytes);
    }
  }
  return carried;
}

int num_rounds(const TransmissionOrder& order) {
  if (order.pacing == Pacing::kRounds) return static_cast<int>(order.rounds.size());
  return order.rounds.empty() ? 0 : most_messages_of_a_side(order.rounds.front().transfers);
}

}  // namespace aurora
