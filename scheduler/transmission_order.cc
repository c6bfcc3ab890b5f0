#include "scheduler/transmission_order.h"

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

}  // namespace aurora
