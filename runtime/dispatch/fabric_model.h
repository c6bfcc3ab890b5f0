// What an exchange takes on the fabric that is there, and the order to choose by it: policy auto.
//
// The planner's model (fair_sharing.h, port_order.h) is exact about ports and knows of the rest one start-up
// cost. A fabric adds three things, which are measured (fabric_measurement.h): what a message costs beyond
// its bytes when a rank sends one after the other, by size; how much longer than fair sharing says a group
// takes in which a port serves several peers at once (queues that overflow, resent packets), by the number of
// peers and by how uneven what they get is; and by which factor the orders of a policy take longer than all
// that explains where all ports are busy. The last two count in proportion to how busy the peers of the
// busiest port are: where it is the only busy one it is never kept waiting, whatever the order.
//
// How exchange.h executes an order decides what it takes, so the model has both ways.
//
// Every rank must hold the same numbers and ports: then all choose the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "scheduler/order_policy.h"
#include "scheduler/traffic_matrix.h"
#include "scheduler/transmission_order.h"

namespace aurora {

enum class ExchangeExecution : std::uint8_t {
  kLanes,    // the host drives both sides of a port independently; neighbouring rounds overlap
  kBatches,  // stream-ordered: a rank's part of a round begins when its part of the round before has ended
};

struct FabricModel {
  /// A message of a chain, in which a rank sends to one peer after the other and receives likewise:
  /// `extra_us` beyond its bytes at the slower port. Between entries by linear interpolation, above the last
  /// size in proportion to it.
  struct MessageCost {
    double bytes = 0;
    double extra_us = 0;
  };
  /// A group in which some side of a port serves `peers`: `start_us` beyond that of any exchange, and
  /// `stretch` times its fair-share time. Between entries by linear interpolation.
  struct GroupCost {
    double peers = 0;
    double start_us = 0;
    double stretch = 1;
  };
  /// Orders of a policy take `stretch` times what the rest explains and `extra_us` more; of the latter those
  /// that end before `full_us` their share. Policies without an entry: as explained.
  struct OrderCost {
    OrderPolicy policy = OrderPolicy::kGroup;
    double stretch = 1;
    double extra_us = 0;
    double full_us = 0;

    double extra_of(double us) const { return us < full_us ? extra_us * us / full_us : extra_us; }
    /// Of an exchange whose busiest port's peers are as busy as `peer_busyness` says.
    double stretch_at(double busyness) const { return 1 + (stretch - 1) * busyness; }
    double total_us(double explained_us, double busyness) const {
      const double us = explained_us * stretch_at(busyness);
      return us + extra_of(us);
    }
  };
  ExchangeExecution execution = ExchangeExecution::kLanes;
  double start_us = 0;                // of any exchange, until all ranks are at it
  std::vector<MessageCost> messages;  // by growing size; empty: messages cost their bytes only
  std::vector<GroupCost> groups;      // by growing number of peers; empty: groups take their fair-share time
  /// Of a group at an unevenness of 2, over an even one: flows do not share as fairly as the model has them,
  /// and the largest end alone. In proportion to the unevenness above 1.
  double uneven_stretch = 1;
  std::vector<OrderCost> orders;

  double message_extra_us(double bytes) const;
  GroupCost group_cost(double peers) const;
  OrderCost order_cost(OrderPolicy policy) const;
};

/// Microseconds, with ports in bytes per microsecond, one per GPU; `orders` is not counted. By the clock, the
/// time that the plan has and the start of a group.
double predicted_exchange_us(const TransmissionOrder& order, std::span<const double> ports,
                             const FabricModel& fabric);
/// The same of an order that `policy` planned, `orders` counted.
double predicted_policy_us(OrderPolicy policy, const TransmissionOrder& order, std::span<const double> ports,
                           const FabricModel& fabric);

/// How busy, from 0 to 1, the peers of the busiest side of a port are compared with it, by the bytes that
/// it has to exchange with them. 1 where all ports are equally busy.
double peer_busyness(const TrafficMatrix& traffic, std::span<const double> ports);

/// How uneven the messages of the busiest side of a port are: their number times the sum of the squares of
/// their shares of its bytes, at most kMostUnevenness, which is about as much as is measured. 1 where all are
/// equal.
double unevenness(const TrafficMatrix& traffic, std::span<const double> ports);
inline constexpr double kMostUnevenness = 3;

/// What auto chooses among: the group, on lanes the paced group, the other orders of the table, and each of
/// these without its barriers where it has some.
struct OrderCandidate {
  OrderPolicy policy = OrderPolicy::kGroup;
  bool without_barriers = false;
};
inline constexpr std::size_t kNumOrderCandidates = 16;
std::span<const OrderCandidate, kNumOrderCandidates> order_candidates();
/// "rotation", "rotation without barriers".
std::string order_candidate_name(const OrderCandidate& candidate);

struct ChosenOrder {
  std::size_t candidate = 0;  // index among order_candidates()
  TransmissionOrder order;
  double predicted_us = 0;
};

/// The candidate that is predicted to end first; of equals the first, and the concurrent group unless another
/// is predicted to save 3 % of its time. When nothing could save that, or the price of planning, nothing else
/// is planned. `options.ports` as in order_policy.h; `options.round_cost_us` is not used: the fabric's
/// start-up is.
ChosenOrder choose_order(const TrafficMatrix& traffic, const OrderOptions& options,
                         const FabricModel& fabric);

}  // namespace aurora
