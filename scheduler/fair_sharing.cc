#include "scheduler/fair_sharing.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>

namespace aurora {
namespace {

/// Active transfers between `2 n` port sides: side i < n sends as GPU i, side n + i receives as GPU i.
class FairNetwork {
 public:
  FairNetwork(std::span<const Transfer> transfers, std::span<const double> ports)
      : num_gpus_(ports.size()), ports_(ports) {
    flows_.reserve(transfers.size());
    for (const Transfer& transfer : transfers) {
      flows_.push_back({static_cast<std::size_t>(transfer.source.value),
                        num_gpus_ + static_cast<std::size_t>(transfer.destination.value),
                        static_cast<double>(transfer.bytes), 0});
    }
    const std::size_t num_sides = 2 * num_gpus_;
    capacity_.resize(num_sides);
    num_open_.resize(num_sides);
    first_.resize(num_sides + 1);
  }

  bool is_idle() const { return flows_.empty(); }

  void compute_rates();
  double microseconds_to_next_end() const;
  void advance(double microseconds);
  double busiest_us() const;
  std::vector<double> rates() const {
    std::vector<double> result;
    for (const Flow& flow : flows_) result.push_back(flow.rate);
    return result;
  }

 private:
  struct Flow {
    std::size_t sender;
    std::size_t receiver;
    double bytes;
    double rate;  // negative while open
  };

  void list_flows_of_sides();
  void fix_side(std::size_t side, double share);

  std::size_t num_gpus_;
  std::span<const double> ports_;
  std::vector<Flow> flows_;
  std::vector<double> capacity_;       // [side] not yet given away
  std::vector<std::size_t> num_open_;  // [side] flows without a rate
  std::vector<std::size_t> first_;     // [side + 1] into members_
  std::vector<std::size_t> members_;   // flows of each side
  std::vector<std::size_t> open_sides_;
};

void FairNetwork::list_flows_of_sides() {
  std::fill(first_.begin(), first_.end(), 0);
  for (const Flow& flow : flows_) {
    ++first_[flow.sender + 1];
    ++first_[flow.receiver + 1];
  }
  for (std::size_t side = 0; side < num_open_.size(); ++side) num_open_[side] = first_[side + 1];
  std::partial_sum(first_.begin(), first_.end(), first_.begin());
  members_.resize(2 * flows_.size());
  std::vector<std::size_t> next(first_.begin(), first_.end() - 1);
  for (std::size_t index = 0; index < flows_.size(); ++index) {
    members_[next[flows_[index].sender]++] = index;
    members_[next[flows_[index].receiver]++] = index;
  }
}

void FairNetwork::fix_side(std::size_t side, double share) {
  for (std::size_t member = first_[side]; member < first_[side + 1]; ++member) {
    Flow& flow = flows_[members_[member]];
    if (flow.rate >= 0) continue;
    flow.rate = share;
    const std::size_t other = flow.sender == side ? flow.receiver : flow.sender;
    capacity_[other] = std::max(0.0, capacity_[other] - share);
    --num_open_[other];
  }
  num_open_[side] = 0;
}

void FairNetwork::compute_rates() {
  list_flows_of_sides();
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) capacity_[gpu] = capacity_[num_gpus_ + gpu] = ports_[gpu];
  for (Flow& flow : flows_) flow.rate = -1;
  open_sides_.clear();
  for (std::size_t side = 0; side < num_open_.size(); ++side) {
    if (num_open_[side] > 0) open_sides_.push_back(side);
  }
  // Invariant: the flows that have a rate hold their final one, and `capacity_` is what they leave.
  while (!open_sides_.empty()) {
    std::size_t tightest = open_sides_.front();
    double share = std::numeric_limits<double>::infinity();
    std::size_t kept = 0;
    for (const std::size_t side : open_sides_) {
      if (num_open_[side] == 0) continue;
      open_sides_[kept++] = side;
      const double offered = capacity_[side] / static_cast<double>(num_open_[side]);
      if (offered < share) {
        share = offered;
        tightest = side;
      }
    }
    open_sides_.resize(kept);
    if (kept > 0) fix_side(tightest, share);
  }
}

double FairNetwork::microseconds_to_next_end() const {
  double least = std::numeric_limits<double>::infinity();
  for (const Flow& flow : flows_) least = std::min(least, flow.bytes / flow.rate);
  return least;
}

void FairNetwork::advance(double microseconds) {
  // A flow within a billionth of its end has ended; rounding must not leave crumbs behind.
  std::erase_if(flows_, [&](Flow& flow) {
    const double moved = flow.rate * microseconds;
    const bool has_ended = moved >= flow.bytes * (1 - 1e-9);
    flow.bytes -= moved;
    return has_ended;
  });
}

double FairNetwork::busiest_us() const {
  std::vector<double> load(2 * num_gpus_);
  for (const Flow& flow : flows_) {
    load[flow.sender] += flow.bytes;
    load[flow.receiver] += flow.bytes;
  }
  double busiest = 0;
  for (std::size_t side = 0; side < load.size(); ++side) {
    busiest = std::max(busiest, load[side] / ports_[side % num_gpus_]);
  }
  return busiest;
}

/// Whether every port side has at most one of the transfers, in which case they do not share.
bool is_one_to_one(std::span<const Transfer> transfers, std::size_t num_gpus) {
  std::vector<bool> is_sending(num_gpus);
  std::vector<bool> is_receiving(num_gpus);
  for (const Transfer& transfer : transfers) {
    if (is_sending[transfer.source.value] || is_receiving[transfer.destination.value]) return false;
    is_sending[transfer.source.value] = is_receiving[transfer.destination.value] = true;
  }
  return true;
}

}  // namespace

double fair_share_makespan_us(std::span<const Transfer> transfers, std::span<const double> ports) {
  if (is_one_to_one(transfers, ports.size())) {
    double longest = 0;
    for (const Transfer& transfer : transfers) {
      const double rate = std::min(ports[transfer.source.value], ports[transfer.destination.value]);
      longest = std::max(longest, static_cast<double>(transfer.bytes) / rate);
    }
    return longest;
  }
  FairNetwork network(transfers, ports);
  constexpr double kCoarseSteps = 128;
  const double shortest_step = transfers.size() > kExactFlows ? network.busiest_us() / kCoarseSteps : 0;
  double elapsed = 0;
  while (!network.is_idle()) {
    network.compute_rates();
    const double step = std::max(network.microseconds_to_next_end(), shortest_step);
    network.advance(step);
    elapsed += step;
  }
  return elapsed;
}

double predicted_makespan_us(const TransmissionOrder& order, std::span<const double> ports,
                             double round_cost_us) {
  double elapsed = 0;
  for (const Round& round : order.rounds) {
    elapsed += round_cost_us + fair_share_makespan_us(round.transfers, ports);
  }
  return elapsed;
}

std::vector<double> fair_rates(std::span<const Transfer> transfers, std::span<const double> ports) {
  FairNetwork network(transfers, ports);
  network.compute_rates();
  return network.rates();
}

}  // namespace aurora
