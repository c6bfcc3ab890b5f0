// Orders without barriers (Pacing::kPorts): what they take, and what rounds become when their barriers go.
//
// Model: at one side of a port (sending, receiving) one message runs at a time. A message occupies the send
// side of its sender and the receive side of its receiver for its start-up cost plus its bytes at the slower
// of the two ports' bandwidths. This is a non-preemptive open shop in which every message is an operation of
// two machines at once; the list is a list schedule of it.
//
// A lower bound is the busiest side: the sum of bytes / min(B, B of the peer) and of the start-up costs of
// its messages. With no cost it is the one-to-one bound of makespan_bound.h.
//
// What executing such an order asks of a transport: sends and receives of a rank progress independently (full
// duplex), and a rank can hold one send and one receive under way to different peers, each followed by the
// next one of its side as soon as it has ended. Messages of one pair match in the order of posting. A
// transport that runs its operations in the order of one queue (a NCCL communicator on one stream) would make
// a receive wait for an unrelated send: it needs a communicator and stream for each of two classes of
// messages, or groups posted in the global order of the list.
#pragma once

#include <span>

#include "scheduler/transmission_order.h"

namespace aurora {

/// Microseconds until the last of `starts`, a start order, has ended. Ports in bytes per microsecond each
/// way, one per GPU. O(number of transfers).
double port_order_makespan_us(std::span<const Transfer> starts, std::span<const double> ports,
                              double message_cost_us);

/// The same on equal ports, as bytes of one port: exact, without a cost per message. Throws
/// std::overflow_error above 2^63 - 1.
Bytes port_order_makespan_bytes(std::span<const Transfer> starts);

/// The largest number of transfers at one side of one port.
int most_messages_of_a_side(std::span<const Transfer> starts);

/// The start order of all rounds one after the other, neighbours at both of their sides merged. When the
/// rounds are one to one, it takes no longer than they do, and no more messages at a side than rounds: by
/// induction no transfer starts later than its round would.
TransmissionOrder without_barriers(const TransmissionOrder& rounds);

}  // namespace aurora
