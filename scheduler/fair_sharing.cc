#include "scheduler/fair_sharing.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>

#include "scheduler/pace.h"
#include "scheduler/port_order.h"

namespace aurora {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// A flow within a billionth of its end has ended; rounding must not leave crumbs behind.
constexpr double kEnded = 1 - 1e-9;
/// Steps of the bound by which more than kExactFlows transfers are played.
constexpr double kCoarseSteps = 128;

/// Room for the number of a side.
constexpr std::uint64_t kSideBits = 2 * PairSet::kMaxGpus - 1;

std::uint64_t bit(std::size_t gpu) { return std::uint64_t{1} << gpu; }

/// Active transfers of any number of GPUs, several of a pair among them, between `2 n` port sides: side i < n
/// sends as GPU i, side n + i receives as GPU i.
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
    double share = kInfinity;
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
  double least = kInfinity;
  for (const Flow& flow : flows_) least = std::min(least, flow.bytes / flow.rate);
  return least;
}

void FairNetwork::advance(double microseconds) {
  std::erase_if(flows_, [&](Flow& flow) {
    const double moved = flow.rate * microseconds;
    const bool has_ended = moved >= flow.bytes * kEnded;
    flow.bytes -= moved;
    return has_ended;
  });
}

/// Largest time that a port side needs at its full bandwidth.
double busiest_side_us(std::span<const Transfer> transfers, std::span<const double> ports) {
  std::vector<double> load(2 * ports.size());
  for (const Transfer& transfer : transfers) {
    load[static_cast<std::size_t>(transfer.source.value)] += static_cast<double>(transfer.bytes);
    load[ports.size() + static_cast<std::size_t>(transfer.destination.value)] +=
        static_cast<double>(transfer.bytes);
  }
  double busiest = 0;
  for (std::size_t side = 0; side < load.size(); ++side) {
    busiest = std::max(busiest, load[side] / ports[side % ports.size()]);
  }
  return busiest;
}

}  // namespace

void PairSet::clear() {
  std::fill(peers_.begin(), peers_.end(), 0);
  std::fill(num_flows_.begin(), num_flows_.end(), 0);
}

FairFilling::FairFilling(std::span<const double> ports)
    : num_gpus_(static_cast<int>(ports.size())),
      ports_(ports),
      rates_(ports.size() * ports.size()),
      spare_(2 * ports.size()),
      offered_((2 * ports.size() + 3) / 4 * 4, kInfinity),
      num_open_(2 * ports.size()),
      open_peers_(2 * ports.size()),
      reciprocal_{} {
  for (std::size_t count = 1; count < reciprocal_.size(); ++count) {
    reciprocal_[count] = 1 / static_cast<double>(count);
  }
}

/// What `side` offers to each of its open flows, with the side's number in the lowest bits of the mantissa:
/// one chain of minima finds share and side without a branch, equal shares go to the side of the lowest
/// number, and a share is compared within 2^-45 of itself.
double FairFilling::offer(std::size_t side) const {
  if (num_open_[side] == 0) return kInfinity;
  const double share = spare_[side] * reciprocal_[static_cast<std::size_t>(num_open_[side])];
  return std::bit_cast<double>((std::bit_cast<std::uint64_t>(share) & ~kSideBits) | side);
}

void FairFilling::fix_side(std::size_t side) {
  const auto n = static_cast<std::size_t>(num_gpus_);
  const bool is_sender = side < n;
  const std::size_t gpu = is_sender ? side : side - n;
  const std::size_t first_peer_side = is_sender ? n : 0;
  const double share = spare_[side] / num_open_[side];
  for (std::uint64_t left = open_peers_[side]; left != 0; left &= left - 1) {
    const auto peer = static_cast<std::size_t>(std::countr_zero(left));
    rates_[is_sender ? gpu * n + peer : peer * n + gpu] = share;
    const std::size_t other = first_peer_side + peer;
    open_peers_[other] &= ~bit(gpu);
    --num_open_[other];
    spare_[other] = std::max(0.0, spare_[other] - share);
    offered_[other] = offer(other);
  }
  num_open_[side] = 0;
  spare_[side] = 0;
  offered_[side] = kInfinity;
}

void FairFilling::fill(const PairSet& pairs) {
  std::copy(pairs.all_peers().begin(), pairs.all_peers().end(), open_peers_.begin());
  std::copy(pairs.all_num_flows().begin(), pairs.all_num_flows().end(), num_open_.begin());
  for (std::size_t gpu = 0; gpu < ports_.size(); ++gpu) {
    spare_[gpu] = spare_[ports_.size() + gpu] = ports_[gpu];
    offered_[gpu] = offer(gpu);
    offered_[ports_.size() + gpu] = offer(ports_.size() + gpu);
  }
  // Invariant: the flows that have a rate hold their final one, and `spare_` is what they leave.
  for (;;) {
    std::array<double, 4> least{kInfinity, kInfinity, kInfinity, kInfinity};
    for (std::size_t side = 0; side < offered_.size(); side += 4) {
      for (std::size_t lane = 0; lane < 4; ++lane) {
        least[lane] = std::min(least[lane], offered_[side + lane]);
      }
    }
    const double tightest = std::min(std::min(least[0], least[1]), std::min(least[2], least[3]));
    if (tightest == kInfinity) return;
    fix_side(static_cast<std::size_t>(std::bit_cast<std::uint64_t>(tightest) & kSideBits));
  }
}

FairShareSimulator::FairShareSimulator(std::span<const double> ports)
    : ports_(ports),
      filling_(ports.size() <= PairSet::kMaxGpus ? ports : std::span<const double>{}),
      active_(filling_.num_gpus()) {}

/// False when a pair has two transfers.
bool FairShareSimulator::load_distinct_pairs(std::span<const Transfer> transfers) {
  active_.clear();
  flows_.clear();
  for (const Transfer& transfer : transfers) {
    const int source = transfer.source.value;
    const int destination = transfer.destination.value;
    if (active_.contains(source, destination)) return false;
    active_.add(source, destination);
    flows_.push_back({source, destination, static_cast<double>(transfer.bytes)});
  }
  return true;
}

/// The makespan when no port side has two of the flows, -1 otherwise.
double FairShareSimulator::one_to_one_us() const {
  double longest = 0;
  for (const Flow& flow : flows_) {
    if (active_.num_flows(flow.source) > 1) return -1;
    if (active_.num_flows(active_.num_gpus() + flow.destination) > 1) return -1;
    const double rate = std::min(ports_[static_cast<std::size_t>(flow.source)],
                                 ports_[static_cast<std::size_t>(flow.destination)]);
    longest = std::max(longest, flow.bytes / rate);
  }
  return longest;
}

double FairShareSimulator::run_to_the_end(double shortest_step) {
  double elapsed = 0;
  while (!flows_.empty()) {
    filling_.fill(active_);
    double step = kInfinity;
    for (const Flow& flow : flows_) {
      step = std::min(step, flow.bytes / filling_.rate(flow.source, flow.destination));
    }
    step = std::max(step, shortest_step);
    std::size_t kept = 0;
    for (const Flow& flow : flows_) {
      const double moved = filling_.rate(flow.source, flow.destination) * step;
      if (moved >= flow.bytes * kEnded) {
        active_.remove(flow.source, flow.destination);
      } else {
        flows_[kept++] = {flow.source, flow.destination, flow.bytes - moved};
      }
    }
    flows_.resize(kept);
    elapsed += step;
  }
  return elapsed;
}

double FairShareSimulator::makespan_us(std::span<const Transfer> transfers) {
  const double shortest_step =
      transfers.size() > kExactFlows ? busiest_side_us(transfers, ports_) / kCoarseSteps : 0;
  if (ports_.size() <= PairSet::kMaxGpus && load_distinct_pairs(transfers)) {
    const double alone_us = one_to_one_us();
    return alone_us >= 0 ? alone_us : run_to_the_end(shortest_step);
  }
  FairNetwork network(transfers, ports_);
  double elapsed = 0;
  while (!network.is_idle()) {
    network.compute_rates();
    const double step = std::max(network.microseconds_to_next_end(), shortest_step);
    network.advance(step);
    elapsed += step;
  }
  return elapsed;
}

double fair_share_makespan_us(std::span<const Transfer> transfers, std::span<const double> ports) {
  return FairShareSimulator(ports).makespan_us(transfers);
}

double predicted_makespan_us(const TransmissionOrder& order, std::span<const double> ports,
                             double round_cost_us) {
  if (!order.spans.empty()) return round_cost_us * num_rounds(order) + paced_end_us(order);
  if (order.pacing == Pacing::kPorts) {
    return order.rounds.empty()
               ? 0
               : port_order_makespan_us(order.rounds.front().transfers, ports, round_cost_us);
  }
  FairShareSimulator simulator(ports);
  double elapsed = 0;
  for (const Round& round : order.rounds) elapsed += round_cost_us + simulator.makespan_us(round.transfers);
  return elapsed;
}

std::vector<double> fair_rates(std::span<const Transfer> transfers, std::span<const double> ports) {
  FairNetwork network(transfers, ports);
  network.compute_rates();
  return network.rates();
}

}  // namespace aurora
