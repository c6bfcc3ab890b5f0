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

/// Decomposes `durations` and visits the rounds. `bytes_of(piece)` are the bytes that a piece of a duration
/// carries.
template <class BytesOf>
void visit_rounds(int size, std::vector<Bytes> durations, RoundSequence sequence, const RoundVisitor& visit,
                  BytesOf bytes_of) {
  peel_rounds(size, std::move(durations), sequence, [&](std::span<const Piece> pieces) {
    Round round;
    round.transfers.resize(pieces.size());
    std::size_t num_transfers = 0;
    for (const Piece& piece : pieces) {
      const Bytes bytes = bytes_of(piece);
      round.transfers[num_transfers] = {{piece.row}, {piece.column}, bytes};
      num_transfers += static_cast<std::size_t>(bytes > 0);
    }
    round.transfers.resize(num_transfers);
    return num_transfers == 0 || visit(std::move(round));
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

  /// The bytes of a piece of a duration; all that are left when no ticks are.
  Bytes take(const Piece& piece) {
    const Bytes left = left_.at(piece.row, piece.column);
    const double rate =
        bytes_per_tick_[static_cast<std::size_t>(piece.row) * size_ + static_cast<std::size_t>(piece.column)];
    const Bytes bytes =
        piece.left == 0 ? left : std::min(left, static_cast<Bytes>(static_cast<double>(piece.amount) * rate));
    left_.set(piece.row, piece.column, left - bytes);
    return bytes;
  }

 private:
  std::size_t size_;
  TrafficMatrix left_;
  std::vector<double> bytes_per_tick_;
};

void visit_rounds_in(RoundSequence sequence, const TrafficMatrix& traffic, std::span<const double> ports,
                     const RoundVisitor& visit) {
  const int size = traffic.num_gpus();
  if (has_equal_ports(ports)) {
    visit_rounds(size, entries_of(traffic), sequence, visit, [](const Piece& piece) { return piece.amount; });
    return;
  }
  Ticks ticks(traffic, ports);
  visit_rounds(size, ticks.durations(), sequence, visit,
               [&](const Piece& piece) { return ticks.take(piece); });
}

}  // namespace

void visit_exact_rounds(const TrafficMatrix& traffic, std::span<const double> ports,
                        const RoundVisitor& visit) {
  visit_rounds_in(RoundSequence::kLongestFirst, traffic, ports, visit);
}

TransmissionOrder exact_order(const TrafficMatrix& traffic, std::span<const double> ports) {
  TransmissionOrder order;
  visit_rounds_in(RoundSequence::kAny, traffic, ports, [&](Round&& round) {
    order.rounds.push_back(std::move(round));
    return true;
  });
  return order;
}

}  // namespace aurora
