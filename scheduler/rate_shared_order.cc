#include "scheduler/rate_shared_order.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "scheduler/fair_peeling.h"
#include "scheduler/round_mix.h"
#include "scheduler/unit_port_order.h"

namespace aurora {
namespace {

/// The linear program has a row for each pair and a dense inverse: 8 MB at this size.
constexpr int kMaxMixGpus = 32;

/// Styles of peeling, best first. The power of the tightness that does best is about the number of GPUs.
std::vector<PeelingStyle> peeling_styles(int num_gpus) {
  const int doublings = std::max(2, static_cast<int>(std::bit_width(static_cast<unsigned>(num_gpus))) - 1);
  return {{doublings, false},
          {doublings, true},
          {doublings + 1, true},
          {doublings - 1, true},
          {doublings + 1, false}};
}

/// The shortest complete peeling that the effort allows, or the incomplete first one; improved by the linear
/// program when it misses the target.
FairPeeling fair_rounds(const FairDemand& demand, const RateSharedEffort& effort) {
  std::int64_t fillings_left = effort.max_fillings;
  std::vector<FairPeeling> peelings;
  std::size_t best = 0;
  for (const PeelingStyle& style : peeling_styles(demand.num_gpus)) {
    FairPeeling peeling = peel_fair_rounds(demand, style, fillings_left);
    fillings_left -= peeling.num_fillings;
    if (!peeling.is_complete && !peelings.empty()) break;
    peelings.push_back(std::move(peeling));
    if (peelings.back().total_us < peelings[best].total_us) best = peelings.size() - 1;
    if (peelings[best].total_us <= effort.target_us || fillings_left <= 0) break;
  }
  if (peelings[best].total_us <= effort.target_us || fillings_left <= 0 || demand.num_gpus > kMaxMixGpus) {
    return std::move(peelings[best]);
  }
  RoundMix mix(demand, fillings_left);
  mix.start_from(peelings[best].rounds);
  for (const FairPeeling& peeling : peelings) mix.offer(peeling.rounds);
  mix.improve(effort.target_us);
  if (mix.total_us() < peelings[best].total_us) peelings[best].rounds = mix.rounds();
  return std::move(peelings[best]);
}

/// Fluid rounds in whole bytes: what a pair has carried after each round is rounded, so that errors do not
/// add up, and its last round carries all the rest.
class WholeBytes {
 public:
  WholeBytes(const TrafficMatrix& traffic, const FairPeeling& fluid, std::span<const double> ports)
      : fluid_(fluid),
        n_(traffic.num_gpus()),
        filling_(ports),
        left_(traffic),
        carried_(static_cast<std::size_t>(n_) * static_cast<std::size_t>(n_)),
        last_round_(carried_.size()) {
    for (std::size_t index = 0; index < fluid.rounds.size(); ++index) {
      for_each_pair(fluid.rounds[index].pairs,
                    [&](int source, int destination) { last_round_[pair_of(source, destination)] = index; });
    }
  }

  Round take(std::size_t index) {
    Round round;
    filling_.fill(fluid_.rounds[index].pairs);
    for_each_pair(fluid_.rounds[index].pairs, [&](int source, int destination) {
      const std::size_t pair = pair_of(source, destination);
      const Bytes left = left_.at(source, destination);
      const double before = std::nearbyint(carried_[pair]);
      carried_[pair] += filling_.rate(source, destination) * fluid_.rounds[index].duration_us;
      const bool is_last = fluid_.is_complete && last_round_[pair] == index;
      const auto rounded = static_cast<Bytes>(std::nearbyint(carried_[pair]) - before);
      const Bytes bytes = is_last ? left : std::min(left, rounded);
      if (bytes > 0) take_transfer({{source}, {destination}, bytes}, round);
    });
    return round;
  }
  Round take_rest() {
    Round round;
    for (int source = 0; source < n_; ++source) {
      for (int destination = 0; destination < n_; ++destination) {
        const Bytes bytes = left_.at(source, destination);
        if (bytes > 0) take_transfer({{source}, {destination}, bytes}, round);
      }
    }
    return round;
  }

 private:
  std::size_t pair_of(int source, int destination) const {
    return static_cast<std::size_t>(source) * static_cast<std::size_t>(n_) +
           static_cast<std::size_t>(destination);
  }
  template <class Visit>
  void for_each_pair(const PairSet& pairs, Visit visit) const {
    for (int source = 0; source < n_; ++source) {
      for (std::uint64_t left = pairs.peers(source); left != 0; left &= left - 1) {
        visit(source, std::countr_zero(left));
      }
    }
  }
  void take_transfer(const Transfer& transfer, Round& round) {
    left_.add(transfer.source.value, transfer.destination.value, -transfer.bytes);
    round.transfers.push_back(transfer);
  }

  const FairPeeling& fluid_;
  int n_;
  FairFilling filling_;
  TrafficMatrix left_;
  std::vector<double> carried_;          // [source][destination] in the fluid world
  std::vector<std::size_t> last_round_;  // [source][destination]
};

}  // namespace

int most_flows_of_a_side(std::span<const double> ports) {
  const auto [slowest, fastest] = std::minmax_element(ports.begin(), ports.end());
  const double ratio = std::min(*fastest / *slowest, static_cast<double>(ports.size()));
  return std::max(4, static_cast<int>(std::ceil(ratio)) + 1);
}

void visit_rate_shared_rounds(const TrafficMatrix& traffic, std::span<const double> ports,
                              const RateSharedEffort& effort, const RoundVisitor& visit) {
  if (traffic.total() == 0) return;
  if (traffic.num_gpus() > PairSet::kMaxGpus) {
    visit_unit_port_rounds(traffic, ports, visit);
    return;
  }
  const FairDemand demand = fair_demand(traffic, ports, most_flows_of_a_side(ports));
  const FairPeeling fluid = fair_rounds(demand, effort);
  WholeBytes bytes(traffic, fluid, ports);
  for (std::size_t index = 0; index < fluid.rounds.size(); ++index) {
    Round round = bytes.take(index);
    if (!round.transfers.empty() && !visit(std::move(round))) return;
  }
  Round rest = bytes.take_rest();
  if (!rest.transfers.empty()) visit(std::move(rest));
}

}  // namespace aurora
