// The order of one exchange, in one of two pacings.
//
// *Rounds*: all transfers of a round may run at once; a round starts when the round before it has ended. A
// port may serve several peers in one round.
//
// *Ports*: no barriers. The transfers are listed in one global start order, and every GPU works through its
// own part of the list: one send and one receive at a time, independent of each other. A transfer starts when
// all earlier sends of its sender and all earlier receives of its receiver have ended. Because all sides
// follow the same list, this cannot deadlock: of the transfers that have not ended, the first in the list
// waits for nobody. port_order.h says what executing it asks of a transport.
//
// *By the clock*: either may say when each transfer is to be under way (pace.h); the sender then hands its
// bytes over evenly within that time, and no earlier.
//
// The bytes of a pair (source, destination) that several transfers carry are consecutive ranges of the same
// message, in the order of the rounds or of the list.
#pragma once

#include <cstdint>
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

/// Microseconds after the start of the exchange.
struct TransferSpan {
  double start_us = 0;
  double end_us = 0;
  bool operator==(const TransferSpan&) const = default;
};

enum class Pacing : std::uint8_t { kRounds, kPorts };

struct TransmissionOrder {
  /// With Pacing::kPorts one entry, the start order of all transfers, or none when there is nothing to send.
  std::vector<Round> rounds;
  Pacing pacing = Pacing::kRounds;
  /// Of each transfer of each round; empty: as fast as the ports take them.
  std::vector<std::vector<TransferSpan>> spans = {};
  bool operator==(const TransmissionOrder&) const = default;
};

/// What the order carries in sum; equals the planned matrix for every correct order.
TrafficMatrix carried_traffic(const TransmissionOrder& order, int num_gpus);

/// How often a port has to start over: the number of rounds or, without barriers, the largest number of
/// messages at one side (sending, receiving) of a port.
int num_rounds(const TransmissionOrder& order);

}  // namespace aurora
