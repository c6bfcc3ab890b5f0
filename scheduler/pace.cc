#include "scheduler/pace.h"

#include <algorithm>
#include <vector>

namespace aurora {
namespace {

/// Both sides of every port.
struct Sides {
  std::vector<double> sending, receiving;
  explicit Sides(std::size_t num_gpus) : sending(num_gpus), receiving(num_gpus) {}
};

double round_us(const Round& round, std::span<const double> ports) {
  Sides busy(ports.size());
  double longest = 0;
  for (const Transfer& transfer : round.transfers) {
    const auto bytes = static_cast<double>(transfer.bytes);
    const auto source = static_cast<std::size_t>(transfer.source.value);
    const auto destination = static_cast<std::size_t>(transfer.destination.value);
    longest = std::max({longest, busy.sending[source] += bytes / ports[source],
                        busy.receiving[destination] += bytes / ports[destination]});
  }
  return longest;
}

std::vector<TransferSpan> list_spans(const Round& list, std::span<const double> ports) {
  Sides free(ports.size());
  std::vector<TransferSpan> spans;
  for (const Transfer& transfer : list.transfers) {
    const auto source = static_cast<std::size_t>(transfer.source.value);
    const auto destination = static_cast<std::size_t>(transfer.destination.value);
    const double start = std::max(free.sending[source], free.receiving[destination]);
    const double end =
        start + static_cast<double>(transfer.bytes) / std::min(ports[source], ports[destination]);
    spans.push_back({start, end});
    free.sending[source] = free.receiving[destination] = end;
  }
  return spans;
}

}  // namespace

double paced_end_us(const TransmissionOrder& order) {
  double end = 0;
  for (const std::vector<TransferSpan>& round : order.spans) {
    for (const TransferSpan& span : round) end = std::max(end, span.end_us);
  }
  return end;
}

void pace(TransmissionOrder& order, std::span<const double> ports) {
  order.spans.clear();
  double now = 0;
  for (const Round& round : order.rounds) {
    if (order.pacing == Pacing::kPorts) {
      order.spans.push_back(list_spans(round, ports));
      continue;
    }
    const double end = now + round_us(round, ports);
    order.spans.emplace_back(round.transfers.size(), TransferSpan{now, end});
    now = end;
  }
}

}  // namespace aurora
