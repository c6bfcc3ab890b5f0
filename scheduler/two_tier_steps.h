// An exchange on two tiers as steps of hops: which bytes of which message go from where to where, over a link
// or through ports. Step t moves bytes over links to the GPUs that carry them in port round t, runs the ports
// of round t - 1, moves on over links what came in round t - 2, and has messages that stay within a node. All
// hops of a step may run at once; a step starts when the step before it has ended. How such orders are found:
// two_tier_order.h.
#pragma once

#include <vector>

#include "scheduler/transmission_order.h"
#include "scheduler/two_tier_network.h"
#include "scheduler/units.h"

namespace aurora {

/// Consecutive bytes of one message and the way they take. Hops whose ends are the same GPU do not exist:
/// straight bytes have carrier = source and arrival = destination.
struct Parcel {
  GpuId source;
  GpuId carrier;  // node-mate of `source`
  GpuId arrival;  // node-mate of `destination`
  GpuId destination;
  Bytes offset = 0;  // of the first byte within the message source -> destination
  Bytes bytes = 0;   // above zero
  bool operator==(const Parcel&) const = default;
};

struct TwoTierOrder {
  /// [round] what crosses between nodes.
  std::vector<std::vector<Parcel>> port_rounds;
  /// [step] what stays within a node: one hop over the link, carrier = source, arrival = destination.
  std::vector<std::vector<Parcel>> local_parcels;

  int num_steps() const;
};

/// Bytes [offset, offset + bytes) of the message source -> destination.
struct MessageRange {
  GpuId source;
  GpuId destination;
  Bytes offset = 0;
  Bytes bytes = 0;
};

/// One send of a step and what it carries. A link when both ends are in one node, otherwise ports.
struct Hop {
  GpuId from;
  GpuId to;
  Bytes bytes = 0;
  std::vector<MessageRange> ranges;
};

/// The hops of one step, at most one per tier and pair of GPUs; ordered by (from, to), links after ports.
std::vector<Hop> step_hops(const TwoTierOrder& order, int step, const TwoTierNetwork& network);

/// Steps that move something: what a start-up is paid for.
int num_busy_steps(const TwoTierOrder& order);

/// Whether some byte takes more than one hop.
bool is_relaying(const TwoTierOrder& order);

/// Sum over the busy steps of `round_cost_us` and the step's time under max-min fair sharing.
double predicted_two_tier_us(const TwoTierOrder& order, const TwoTierNetwork& network, double round_cost_us);

/// The rounds of a direct order as steps: the same transfers, the same prediction.
TwoTierOrder without_relays(const TransmissionOrder& order, const TwoTierNetwork& network);

/// Calls `use(from, to, parcel)` for the hops of the parcels that a step moves.
template <class Use>
void for_each_hop_through_ports(const TwoTierOrder& order, int step, const Use& use) {
  if (step < 1 || step > static_cast<int>(order.port_rounds.size())) return;
  for (const Parcel& parcel : order.port_rounds[step - 1]) use(parcel.carrier, parcel.arrival, parcel);
}

template <class Use>
void for_each_hop_over_links(const TwoTierOrder& order, int step, const Use& use) {
  const int num_rounds = static_cast<int>(order.port_rounds.size());
  if (step < num_rounds) {
    for (const Parcel& parcel : order.port_rounds[step]) {
      if (parcel.source != parcel.carrier) use(parcel.source, parcel.carrier, parcel);
    }
  }
  if (step >= 2 && step - 2 < num_rounds) {
    for (const Parcel& parcel : order.port_rounds[step - 2]) {
      if (parcel.arrival != parcel.destination) use(parcel.arrival, parcel.destination, parcel);
    }
  }
  if (step < static_cast<int>(order.local_parcels.size())) {
    for (const Parcel& parcel : order.local_parcels[step]) use(parcel.source, parcel.destination, parcel);
  }
}

}  // namespace aurora
