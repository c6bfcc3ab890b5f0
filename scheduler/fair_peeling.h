// Rounds for unequal ports, peeled one by one in the fluid world.
//
// A round is a set of pairs that run at their max-min fair rates, each with exactly rate x duration bytes, so
// that all end together and the round takes its duration although nobody paces it. At any moment the bound of
// what is left is max over port sides of left / bandwidth; sides that attain it are tight and lose time
// whenever they are not full. Peeling takes, round by round, a set that fills the tight sides and runs it
// until a pair ends or a side with slack becomes tight. Pairs are added greedily, the heaviest side first: a
// side counts with (its time / the bound)^power / bandwidth, so that nearly tight sides are kept from
// becoming tight early, and a pair is kept when the weighted use of all sides grows. Every round ends a pair
// or uses up slack; about one round per pair in practice.
//
// A greedy choice: with the power near the number of GPUs it meets the bound on 8 of 10 instances
// (round_mix.h repairs the others).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/fair_sharing.h"
#include "scheduler/traffic_matrix.h"

namespace aurora {

/// What fair rounds have to carry, and within which limits.
struct FairDemand {
  int num_gpus = 0;
  std::vector<double> bytes;      // [source][destination]
  std::span<const double> ports;  // bytes per microsecond
  int max_flows = 0;              // at a port side, 1 or more
};

FairDemand fair_demand(const TrafficMatrix& traffic, std::span<const double> ports, int max_flows);

/// max over port sides of bytes / bandwidth.
double bound_us(const FairDemand& demand);

struct FairRound {
  PairSet pairs;
  double duration_us = 0;
};

/// How sets are chosen.
struct PeelingStyle {
  int tightness_doublings = 3;         // power = 2^doublings
  bool tries_half_full_pairs = false;  // also pairs of which one side is full already: slower, often better
};

struct FairPeeling {
  std::vector<FairRound> rounds;  // roughly longest first
  double total_us = 0;
  std::int64_t num_fillings = 0;  // the effort spent
  bool is_complete = true;        // false: the effort ended before all was carried
};

/// At most PairSet::kMaxGpus GPUs. Ends after `max_fillings` fillings with the rounds found so far.
/// Deterministic. For each round O(n^2 log n) and one filling for each pair tried: 0.3 ms in all at n = 8,
/// 8 ms at n = 16, 200 ms at n = 32; up to twice that with half full pairs.
FairPeeling peel_fair_rounds(const FairDemand& demand, const PeelingStyle& style, std::int64_t max_fillings);

}  // namespace aurora
