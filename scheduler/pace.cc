#include "scheduler/pace.h"

#include <algorithm>
#include <vector>

namespace aurora {
namespace {

/// What carries a GPU's bytes: its port, and its link where the peer is a node-mate that it reaches over one.
/// Ports come first, then links.
class Interfaces {
 public:
  Interfaces(std::span<const double> ports, const TwoTierNetwork* tiers)
      : rates_(ports.begin(), ports.end()), num_gpus_(ports.size()), tiers_(tiers) {
    if (tiers_ != nullptr) rates_.resize(2 * num_gpus_, tiers_->link);
  }

  std::size_t size() const { return rates_.size(); }
  double rate(std::size_t interface) const { return rates_[interface]; }
  std::size_t of(GpuId gpu, GpuId peer) const {
    const bool is_link = tiers_ != nullptr && tiers_->is_local(gpu, peer);
    return static_cast<std::size_t>(gpu.value) + (is_link ? num_gpus_ : 0);
  }

 private:
  std::vector<double> rates_;  // bytes per microsecond
  std::size_t num_gpus_;
  const TwoTierNetwork* tiers_;
};

/// Both sides of every interface.
struct Sides {
  std::vector<double> sending, receiving;
  explicit Sides(std::size_t num_interfaces) : sending(num_interfaces), receiving(num_interfaces) {}
};

double round_us(const Round& round, const Interfaces& interfaces) {
  Sides busy(interfaces.size());
  double longest = 0;
  for (const Transfer& transfer : round.transfers) {
    const auto bytes = static_cast<double>(transfer.bytes);
    const std::size_t source = interfaces.of(transfer.source, transfer.destination);
    const std::size_t destination = interfaces.of(transfer.destination, transfer.source);
    longest = std::max({longest, busy.sending[source] += bytes / interfaces.rate(source),
                        busy.receiving[destination] += bytes / interfaces.rate(destination)});
  }
  return longest;
}

std::vector<TransferSpan> list_spans(const Round& list, const Interfaces& interfaces) {
  Sides free(interfaces.size());
  std::vector<TransferSpan> spans;
  for (const Transfer& transfer : list.transfers) {
    const std::size_t source = interfaces.of(transfer.source, transfer.destination);
    const std::size_t destination = interfaces.of(transfer.destination, transfer.source);
    const double start = std::max(free.sending[source], free.receiving[destination]);
    const double rate = std::min(interfaces.rate(source), interfaces.rate(destination));
    const double end = start + static_cast<double>(transfer.bytes) / rate;
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

void pace(TransmissionOrder& order, std::span<const double> ports, const TwoTierNetwork* tiers) {
  const Interfaces interfaces(ports, tiers);
  order.spans.clear();
  double now = 0;
  for (const Round& round : order.rounds) {
    if (order.pacing == Pacing::kPorts) {
      order.spans.push_back(list_spans(round, interfaces));
      continue;
    }
    const double end = now + round_us(round, interfaces);
    order.spans.emplace_back(round.transfers.size(), TransferSpan{now, end});
    now = end;
  }
}

}  // namespace aurora
