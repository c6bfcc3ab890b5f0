// What exchange.h does on a stream-ordered transport: a rank's part of a round begins when its part of the
// round before has ended, and ends when all of its messages have. Ranks without a part in a round do not wait
// for it. O(1) for every message.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "scheduler/transmission_order.h"

namespace aurora {

class BatchRecurrence {
 public:
  /// Bytes per microsecond, one per GPU; the caller keeps them.
  explicit BatchRecurrence(std::span<const double> ports) : ports_(ports), free_us_(ports.size(), 0.0) {}

  /// A round in which every rank sends to one peer at most and receives from one: a message begins when both
  /// of its ranks have come to the round and takes its bytes at the slower port and `extra_us(bytes)`.
  template <class ExtraUs>
  void add_messages(std::span<const Transfer> round, const ExtraUs& extra_us) {
    const std::vector<double> begin_us = free_us_;
    for (const Transfer& transfer : round) {
      const auto source = static_cast<std::size_t>(transfer.source.value);
      const auto destination = static_cast<std::size_t>(transfer.destination.value);
      const auto bytes = static_cast<double>(transfer.bytes);
      const double end_us = std::max(begin_us[source], begin_us[destination]) +
                            bytes / std::min(ports_[source], ports_[destination]) + extra_us(bytes);
      free_us_[source] = std::max(free_us_[source], end_us);
      free_us_[destination] = std::max(free_us_[destination], end_us);
    }
  }

  /// A round that takes `us` from when the last of its ranks has come to it.
  void add_group(std::span<const Transfer> round, double us) {
    double begin_us = 0;
    for (const Transfer& transfer : round) {
      begin_us = std::max({begin_us, free_us_[static_cast<std::size_t>(transfer.source.value)],
                           free_us_[static_cast<std::size_t>(transfer.destination.value)]});
    }
    for (const Transfer& transfer : round) {
      free_us_[static_cast<std::size_t>(transfer.source.value)] = begin_us + us;
      free_us_[static_cast<std::size_t>(transfer.destination.value)] = begin_us + us;
    }
  }

  double makespan_us() const { return *std::ranges::max_element(free_us_); }

 private:
  std::span<const double> ports_;
  std::vector<double> free_us_;  // [rank] when its part of the rounds so far has ended
};

}  // namespace aurora
