#include "scheduler/exact_order.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

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

std::vector<Bytes> entries_of(const TrafficMatrix& traffic) {
  std::vector<Bytes> entries;
  entries.reserve(static_cast<std::size_t>(traffic.num_gpus()) *
                  static_cast<std::size_t>(traffic.num_gpus()));
  for (int source = 0; source < traffic.num_gpus(); ++source) {
    const auto row = traffic.row(source);
    entries.insert(entries.end(), row.begin(), row.end());
  }
  return entries;
}

/// Decomposes `durations` and visits the rounds. `bytes_of(source, destination, part, left)` are the bytes
/// that a part of a duration carries after which `left` are left; none for a part of zero.
template <class BytesOf>
void visit_rounds(int size, std::vector<Bytes> durations, const RoundVisitor& visit, BytesOf bytes_of) {
  const auto n = static_cast<std::size_t>(size);
  const Bytes line_sum = largest_line(size, durations);
  std::vector<Bytes> padded = padding_to_line_sum(size, durations, line_sum);
  for (std::size_t index = 0; index < padded.size(); ++index) padded[index] += durations[index];
  auto num_left =
      durations.size() - static_cast<std::size_t>(std::count(durations.begin(), durations.end(), 0));
  peel_perfect_matchings(size, std::move(padded), [&](Bytes length, std::span<const int> column_of_row) {
    Round round;
    round.transfers.resize(n);
    std::size_t num_transfers = 0;
    for (std::size_t row = 0; row < n; ++row) {
      const int column = column_of_row[row];
      // What a matched entry carries is of its real part first, then of its padding.
      Bytes& left = durations[row * n + static_cast<std::size_t>(column)];
      const Bytes part = std::min(left, length);
      left -= part;
      const auto source = static_cast<int>(row);
      const Bytes bytes = bytes_of(source, column, part, left);
      round.transfers[num_transfers] = {{source}, {column}, bytes};
      num_transfers += static_cast<std::size_t>(bytes > 0);
      num_left -= static_cast<std::size_t>(part > 0 && left == 0);
    }
    round.transfers.resize(num_transfers);
    return (num_transfers == 0 || visit(std::move(round))) && num_left > 0;
  });
}

/// Bytes that a tick carries between each pair: durations of bytes, and bytes of durations.
class Ticks {
 public:
  Ticks(const TrafficMatrix& traffic, std::span<const double> ports)
      : size_(static_cast<std::size_t>(traffic.num_gpus())), left_(traffic), bytes_per_tick_(size_ * size_) {
    const double bound_us =
        one_to_one_bound_us(traffic, {.ports = std::vector<double>(ports.begin(), ports.end())});
    for (std::size_t index = 0; index < bytes_per_tick_.size(); ++index) {
      const double rate = std::min(ports[index / size_], ports[index % size_]);
      bytes_per_tick_[index] = rate * bound_us / kTicksOfBound;
    }
  }

  std::vector<Bytes> durations() const {
    std::vector<Bytes> durations = entries_of(left_);
    for (std::size_t index = 0; index < durations.size(); ++index) {
      if (durations[index] == 0) continue;
      durations[index] =
          static_cast<Bytes>(std::ceil(static_cast<double>(durations[index]) / bytes_per_tick_[index]));
    }
    return durations;
  }

  /// The bytes of `ticks`; all that are left when no ticks are.
  Bytes take(int source, int destination, Bytes ticks, Bytes ticks_left) {
    const Bytes left = left_.at(source, destination);
    const double rate =
        bytes_per_tick_[static_cast<std::size_t>(source) * size_ + static_cast<std::size_t>(destination)];
    const Bytes bytes =
        ticks_left == 0 ? left : std::min(left, static_cast<Bytes>(static_cast<double>(ticks) * rate));
    left_.set(source, destination, left - bytes);
    return bytes;
  }

 private:
  std::size_t size_;
  TrafficMatrix left_;
  std::vector<double> bytes_per_tick_;
};

}  // namespace

void visit_exact_rounds(const TrafficMatrix& traffic, std::span<const double> ports,
                        const RoundVisitor& visit) {
  const int size = traffic.num_gpus();
  if (has_equal_ports(ports)) {
    visit_rounds(size, entries_of(traffic), visit, [](int, int, Bytes part, Bytes) { return part; });
    return;
  }
  Ticks ticks(traffic, ports);
  visit_rounds(size, ticks.durations(), visit, [&](int source, int destination, Bytes part, Bytes left) {
    return ticks.take(source, destination, part, left);
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
