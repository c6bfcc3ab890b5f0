#include "scheduler/exact_order.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "scheduler/birkhoff.h"
#include "scheduler/makespan_bound.h"

namespace aurora {
namespace {

/// Longest line of a matrix of times, in ticks. A tick is 2^-40 of the bound.
constexpr double kTicksOfBound = 1099511627776.0;

Bytes largest_line(int size, std::span<const Bytes> entries) {
  const auto n = static_cast<std::size_t>(size);
  Bytes largest = 0;
  std::vector<Bytes> column_sums(n);
  for (std::size_t row = 0; row < n; ++row) {
    Bytes row_sum = 0;
    for (std::size_t column = 0; column < n; ++column) {
      row_sum += entries[row * n + column];
      column_sums[column] += entries[row * n + column];
    }
    largest = std::max(largest, row_sum);
  }
  for (const Bytes sum : column_sums) largest = std::max(largest, sum);
  return largest;
}

/// Durations to decompose and what a duration carries: bytes themselves with equal ports, otherwise ticks.
class Durations {
 public:
  Durations(const TrafficMatrix& traffic, std::span<const double> ports)
      : size_(traffic.num_gpus()), left_(traffic) {
    for (int source = 0; source < size_; ++source) {
      const auto row = traffic.row(source);
      entries_.insert(entries_.end(), row.begin(), row.end());
    }
    if (has_equal_ports({ports.begin(), ports.end()})) return;
    const double bound_us =
        one_to_one_bound_us(traffic, {.ports = std::vector<double>(ports.begin(), ports.end())});
    bytes_per_tick_.resize(entries_.size());
    for (std::size_t index = 0; index < entries_.size(); ++index) {
      const auto source = index / static_cast<std::size_t>(size_);
      const auto destination = index % static_cast<std::size_t>(size_);
      bytes_per_tick_[index] = std::min(ports[source], ports[destination]) * bound_us / kTicksOfBound;
      if (entries_[index] > 0) {
        entries_[index] =
            static_cast<Bytes>(std::ceil(static_cast<double>(entries_[index]) / bytes_per_tick_[index]));
      }
    }
  }

  int size() const { return size_; }
  const std::vector<Bytes>& entries() const { return entries_; }

  /// Takes what a matched entry carries in `length`, of its real part first: 0 when only padding is left.
  Bytes take(int source, int destination, Bytes length) {
    const std::size_t index = static_cast<std::size_t>(source) * static_cast<std::size_t>(size_) +
                              static_cast<std::size_t>(destination);
    Bytes& duration = entries_[index];
    const Bytes spent = std::min(duration, length);
    if (spent == 0) return 0;
    duration -= spent;
    const Bytes left = left_.at(source, destination);
    Bytes bytes = left;
    if (bytes_per_tick_.empty()) {
      bytes = spent;
    } else if (duration > 0) {
      bytes = std::min(left, static_cast<Bytes>(static_cast<double>(spent) * bytes_per_tick_[index]));
    }
    left_.set(source, destination, left - bytes);
    return bytes;
  }

 private:
  int size_;
  TrafficMatrix left_;
  std::vector<Bytes> entries_;
  std::vector<double> bytes_per_tick_;  // empty: 1
};

}  // namespace

void visit_exact_rounds(const TrafficMatrix& traffic, std::span<const double> ports,
                        const RoundVisitor& visit) {
  Durations durations(traffic, ports);
  const int size = durations.size();
  const Bytes line_sum = largest_line(size, durations.entries());
  if (line_sum == 0) return;
  std::vector<Bytes> padded = padding_to_line_sum(size, durations.entries(), line_sum);
  for (std::size_t index = 0; index < padded.size(); ++index) padded[index] += durations.entries()[index];
  peel_perfect_matchings(size, std::move(padded), [&](Bytes length, std::span<const int> column_of_row) {
    Round round;
    round.transfers.reserve(column_of_row.size());
    for (int source = 0; source < size; ++source) {
      const int destination = column_of_row[static_cast<std::size_t>(source)];
      const Bytes bytes = durations.take(source, destination, length);
      if (bytes > 0) round.transfers.push_back({{source}, {destination}, bytes});
    }
    return round.transfers.empty() || visit(std::move(round));
  });
}

TransmissionOrder exact_order(const TrafficMatrix& traffic, std::span<const double> ports) {
  TransmissionOrder order;
  visit_exact_rounds(traffic, ports, [&](Round&& round) {
    order.rounds.push_back(std::move(round));
    return true;
  });
  return order;
}

}  // namespace aurora
