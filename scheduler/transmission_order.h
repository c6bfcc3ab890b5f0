// The order of one exchange: rounds of transfers. All transfers of a round may run at once; a round starts
// when the round before it has ended. A port may serve several peers in one round. The bytes of a pair
// (source, destination) that several rounds carry are consecutive ranges of the same message, in the order of
// the rounds.
#pragma once

#include <vector>

#include "scheduler/traffic_matrix.h"
#include "scheduler/units.h"

namespace aurora {

struct Transfer {
  GpuId source;
  GpuId destination;
  Bytes bytes = 0;  // above zero
  bool operator==(const Transfer&) const = default;
};

struct Round {
  std::vector<Transfer> transfers;
  bool operator==(const Round&) const = default;
};

struct TransmissionOrder {
  std::vector<Round> rounds;
};

/// What the rounds carry in sum; equals the planned matrix for every correct order.
TrafficMatrix carried_traffic(const TransmissionOrder& order, int num_gpus);

}  // namespace aurora
