// Search for orders without barriers (port_order.h): non-preemptive open shop with coupled machines, NP-hard
// in general, close to its bound in practice.
//
// Few GPUs (up to kMaxBeamGpus): beam search over dense schedules. A partial schedule is extended where a
// port side falls idle first; each of its remaining partners is tried. Partial schedules are compared by the
// sum over all sides of (idle so far + load + idle that is certain to come, over the bound)^32, a smooth
// maximum; the idle time that is certain to come is the wait until the first of the side's remaining partners
// is free. That look ahead is worth a beam ten times as wide. A beam of width 1 is a greedy; doubling the
// width doubles the time, and wider beams usually find better orders. Every schedule in which no side waits
// for a partner who meanwhile serves another is reached by exactly one path, so there are no duplicates.
//
// Many GPUs: the dense list schedule in which the side that falls idle first goes on with the partner, of
// those that are free, with the largest load to come. With many messages at a port it is close to the bound.
//
// All decisions are made in integers (2^-20 of the bound), so that ranks on different machines agree.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/transmission_order.h"

namespace aurora {

inline constexpr int kMaxBeamGpus = 16;

class PortSearch {
 public:
  /// `messages`: what to order; the parts of one pair's message are entries of their own and of nearly equal
  /// size. `ports` in bytes per microsecond, one per GPU, all above zero; `message_cost_us` is paid once for
  /// each entry.
  PortSearch(std::vector<Transfer> messages, std::span<const double> ports, double message_cost_us);

  /// The busiest side of a port, start-up costs included: no order of these messages takes less.
  double lower_bound_us() const { return lower_bound_us_; }
  /// The largest number of messages at one side of a port.
  int most_messages() const { return most_messages_; }

  struct Found {
    std::vector<Transfer> starts;  // empty: none below the limit
    double makespan_us = 0;
  };
  /// The best schedule that a beam of `width` finds, if it takes less than `limit_us`. More than kMaxBeamGpus
  /// GPUs: the list schedule, whatever the width. O(messages * n * width) evaluations of O(n).
  Found find(int width, double limit_us);

  /// Extensions of partial schedules that were weighed so far: the effort, the same on every machine.
  std::int64_t num_evaluations() const { return num_evaluations_; }

 private:
  std::vector<std::int32_t> start_list(int width, std::int64_t limit_ticks);

  std::vector<Transfer> messages_;
  std::vector<std::int64_t> ticks_;  // duration of each message
  std::vector<double> ports_;
  double message_cost_us_;
  double lower_bound_us_ = 0;
  int most_messages_ = 0;
  std::int64_t num_evaluations_ = 0;
};

/// Cuts the longest messages into equal parts until no part takes more than `longest_us` (its start-up cost
/// not counted) or a side of a port has `max_messages`. Whole messages come out as they are.
std::vector<Transfer> cut_messages(std::span<const Transfer> messages, std::span<const double> ports,
                                   double longest_us, int max_messages);

}  // namespace aurora
