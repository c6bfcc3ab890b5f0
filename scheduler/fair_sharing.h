// What the network does when nobody paces the flows: every moment's rates are max-min fair over the send and
// receive side of each port. This predicts rounds in which a port serves several peers, one concurrent group
// of everything among them. A model of the network, not a plan: plans are judged by it.
//
// Progressive filling (Bertsekas and Gallager, Data Networks, 6.5): the port side with the smallest equal
// share fixes the rates of its flows; repeat on what is left. Rates change only when a transfer ends, so the
// time of F transfers is exact after at most F fillings of at most 2 n sides each.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/transmission_order.h"

namespace aurora {

/// At most one flow for each pair of up to kMaxGpus GPUs. Side i < n sends as GPU i, side n + i receives as
/// GPU i.
class PairSet {
 public:
  static constexpr int kMaxGpus = 64;

  explicit PairSet(int num_gpus)
      : num_gpus_(num_gpus),
        peers_(2 * static_cast<std::size_t>(num_gpus)),
        num_flows_(2 * static_cast<std::size_t>(num_gpus)) {}

  int num_gpus() const { return num_gpus_; }
  bool contains(int source, int destination) const {
    return ((peers_[static_cast<std::size_t>(source)] >> destination) & 1) != 0;
  }
  /// The pair must not be in the set.
  void add(int source, int destination) {
    flip(source, destination);
    ++num_flows_[static_cast<std::size_t>(source)];
    ++num_flows_[static_cast<std::size_t>(num_gpus_ + destination)];
  }
  /// The pair must be in the set.
  void remove(int source, int destination) {
    flip(source, destination);
    --num_flows_[static_cast<std::size_t>(source)];
    --num_flows_[static_cast<std::size_t>(num_gpus_ + destination)];
  }
  void clear();

  /// Bit p is set when the side has a flow with GPU p.
  std::uint64_t peers(int side) const { return peers_[static_cast<std::size_t>(side)]; }
  int num_flows(int side) const { return num_flows_[static_cast<std::size_t>(side)]; }
  std::span<const std::uint64_t> all_peers() const { return peers_; }
  std::span<const std::int32_t> all_num_flows() const { return num_flows_; }

  bool operator==(const PairSet&) const = default;

 private:
  void flip(int source, int destination) {
    peers_[static_cast<std::size_t>(source)] ^= std::uint64_t{1} << destination;
    peers_[static_cast<std::size_t>(num_gpus_ + destination)] ^= std::uint64_t{1} << source;
  }

  int num_gpus_;
  std::vector<std::uint64_t> peers_;     // [side]
  std::vector<std::int32_t> num_flows_;  // [side]
};

/// Max-min fair rates of the flows of a PairSet. Holds its buffers, so that one object fills any number of
/// sets without allocating; every object belongs to one thread.
class FairFilling {
 public:
  /// Bandwidths in bytes per microsecond, all above zero; the caller keeps them.
  explicit FairFilling(std::span<const double> ports);

  int num_gpus() const { return num_gpus_; }
  /// Computes the rates of `pairs`. O(n (n + number of flows)), about 0.1 us for n = 8.
  void fill(const PairSet& pairs);

  /// Of the last filling, in bytes per microsecond; of a pair in the set only.
  double rate(int source, int destination) const { return rates_[index(source, destination)]; }
  /// Bandwidth of `side` that the last filling left unused.
  double spare(int side) const { return spare_[static_cast<std::size_t>(side)]; }

 private:
  std::size_t index(int source, int destination) const {
    return static_cast<std::size_t>(source) * static_cast<std::size_t>(num_gpus_) +
           static_cast<std::size_t>(destination);
  }
  double offer(std::size_t side) const;
  void fix_side(std::size_t side);

  int num_gpus_;
  std::span<const double> ports_;
  std::vector<double> rates_;              // [source][destination]
  std::vector<double> spare_;              // [side] not yet given away
  std::vector<double> offered_;            // [side, padded to a multiple of 4] see offer()
  std::vector<std::int32_t> num_open_;     // [side] flows that have no rate yet
  std::vector<std::uint64_t> open_peers_;  // [side] peers of these
  std::array<double, PairSet::kMaxGpus + 1> reciprocal_;
};

/// Plays rounds on the network. Holds its buffers: prefer one object to many calls of the functions below.
class FairShareSimulator {
 public:
  /// Bandwidths in bytes per microsecond, one per GPU, all above zero; the caller keeps them.
  explicit FairShareSimulator(std::span<const double> ports);

  /// Microseconds until all transfers, started together, have ended. A pair may have several transfers; each
  /// is then a flow of its own. With more than `kExactFlows` transfers, those that end within 1/128 of the
  /// bound end together, which over-estimates by about as much.
  double makespan_us(std::span<const Transfer> transfers);

 private:
  struct Flow {
    std::int32_t source;
    std::int32_t destination;
    double bytes;
  };

  bool load_distinct_pairs(std::span<const Transfer> transfers);
  double one_to_one_us() const;
  double run_to_the_end(double shortest_step);

  std::span<const double> ports_;
  FairFilling filling_;  // of no GPUs when there are more than PairSet::kMaxGpus
  PairSet active_;
  std::vector<Flow> flows_;
};

inline constexpr std::size_t kExactFlows = 1024;

/// FairShareSimulator::makespan_us, once.
double fair_share_makespan_us(std::span<const Transfer> transfers, std::span<const double> ports);

/// Sum over rounds of the round's fair-share time and `round_cost_us`. Without barriers the time of
/// port_order.h, every message costing `round_cost_us`. By the clock the plan's end, and `round_cost_us` for
/// each time that a port starts over.
double predicted_makespan_us(const TransmissionOrder& order, std::span<const double> ports,
                             double round_cost_us);

/// Max-min fair rate of each of `transfers` while all of them are active, bytes per microsecond.
std::vector<double> fair_rates(std::span<const Transfer> transfers, std::span<const double> ports);

}  // namespace aurora
