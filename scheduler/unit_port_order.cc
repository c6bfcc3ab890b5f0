#include "scheduler/unit_port_order.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "scheduler/birkhoff.h"

namespace aurora {
namespace {

/// Unit port p of GPU owner[p]; GPU i has the unit ports [first[i], first[i + 1]).
struct UnitPorts {
  explicit UnitPorts(const std::vector<int>& units) : first(units.size() + 1) {
    std::partial_sum(units.begin(), units.end(), first.begin() + 1);
    for (std::size_t gpu = 0; gpu < units.size(); ++gpu) {
      owner.insert(owner.end(), static_cast<std::size_t>(units[gpu]), static_cast<int>(gpu));
    }
  }
  int count() const { return first.back(); }

  std::vector<int> first;
  std::vector<int> owner;
};

/// Spreads every message over the unit ports of its two ends, as evenly as whole bytes allow. Successive
/// remainders start where the one before ended, so that lines stay even too.
std::vector<Bytes> split_traffic(const TrafficMatrix& traffic, const UnitPorts& ports) {
  const auto size = static_cast<std::size_t>(ports.count());
  std::vector<Bytes> entries(size * size);
  for (int source = 0; source < traffic.num_gpus(); ++source) {
    for (int destination = 0; destination < traffic.num_gpus(); ++destination) {
      const Bytes bytes = traffic.at(source, destination);
      if (bytes == 0) continue;
      const int rows = ports.first[source + 1] - ports.first[source];
      const int columns = ports.first[destination + 1] - ports.first[destination];
      const Bytes cells = Bytes{rows} * columns;
      Bytes extra = bytes % cells;
      // Walk the cells along diagonals, so that remainders touch all rows and columns in turn.
      for (int diagonal = 0; diagonal < columns; ++diagonal) {
        for (int row = 0; row < rows; ++row) {
          const auto r = static_cast<std::size_t>(ports.first[source] + row);
          const auto c = static_cast<std::size_t>(ports.first[destination] + (row + diagonal) % columns);
          entries[r * size + c] = bytes / cells + (extra > 0 ? 1 : 0);
          if (extra > 0) --extra;
        }
      }
    }
  }
  return entries;
}

/// A round of unit ports as one of ports: pieces of the same pair are merged.
Round merged_round(const UnitPorts& ports, std::span<const Piece> pieces) {
  Round round;
  std::size_t first_of_owner = 0;
  for (const Piece& piece : pieces) {
    const GpuId source{ports.owner[static_cast<std::size_t>(piece.row)]};
    const GpuId destination{ports.owner[static_cast<std::size_t>(piece.column)]};
    if (round.transfers.empty() || round.transfers.back().source != source) {
      first_of_owner = round.transfers.size();
    }
    const auto same = std::find_if(
        round.transfers.begin() + static_cast<std::ptrdiff_t>(first_of_owner), round.transfers.end(),
        [&](const Transfer& transfer) { return transfer.destination == destination; });
    if (same != round.transfers.end()) {
      same->bytes += piece.amount;
    } else {
      round.transfers.push_back({source, destination, piece.amount});
    }
  }
  return round;
}

}  // namespace

std::vector<int> unit_ports(std::span<const double> ports, int max_units) {
  const double total = std::accumulate(ports.begin(), ports.end(), 0.0);
  const double slowest = *std::min_element(ports.begin(), ports.end());
  std::vector<int> best;
  double least_error = std::numeric_limits<double>::infinity();
  for (int parts = 1; parts <= 16; ++parts) {
    const double unit = slowest / parts;
    if (parts > 1 && total / unit > max_units) break;
    std::vector<int> units;
    double error = 0;
    for (const double port : ports) {
      // Beyond `max_units` per port a coarse split is as good: the port is hardly ever the bottleneck.
      units.push_back(static_cast<int>(std::clamp(std::floor(port / unit + 1e-9), 1.0, double(max_units))));
      error = std::max(error, port / unit / units.back() - 1);
    }
    if (error < least_error - 1e-9) {
      least_error = error;
      best = std::move(units);
    }
  }
  return best;
}

void visit_unit_port_rounds(const TrafficMatrix& traffic, std::span<const double> ports,
                            const RoundVisitor& visit) {
  constexpr int kUnitsPerPort = 16;
  const UnitPorts units(unit_ports(ports, kUnitsPerPort * traffic.num_gpus()));
  peel_rounds(units.count(), split_traffic(traffic, units), RoundSequence::kLongestFirst,
              [&](std::span<const Piece> pieces) { return visit(merged_round(units, pieces)); });
}

}  // namespace aurora
