#include "scheduler/colocation.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "scheduler/bottleneck_matching.h"

namespace aurora {
namespace {

/// Experts that go to one GPU together, of all models merged so far.
struct Bundle {
  std::vector<std::vector<int>> experts;  // [model]
  WireLoad wire;
  double compute_us = 0;  // on a GPU of compute 1
  double exchanged = 0;   // bytes received in dispatch and sent back in combine
};

std::vector<std::vector<int>> bundle_experts(const LayerDemand& demand, std::size_t num_bundles) {
  std::vector<std::vector<int>> bundles(num_bundles);
  if (demand.expert_pairs.size() <= num_bundles) {
    for (std::size_t expert = 0; expert < demand.expert_pairs.size(); ++expert) {
      bundles[expert].push_back(static_cast<int>(expert));
    }
    return bundles;
  }
  std::vector<int> by_load(demand.expert_pairs.size());
  std::iota(by_load.begin(), by_load.end(), 0);
  std::stable_sort(by_load.begin(), by_load.end(),
                   [&](int a, int b) { return demand.expert_pairs[a] > demand.expert_pairs[b]; });
  for (std::size_t index = 0; index < by_load.size(); ++index) {
    const std::size_t turn = index / num_bundles;
    const std::size_t position = index % num_bundles;
    bundles[turn % 2 == 0 ? position : num_bundles - 1 - position].push_back(by_load[index]);
  }
  return bundles;
}

std::vector<Bundle> bundles_of(const LayerProblem& problem, std::size_t model) {
  const LayerDemand& demand = problem.demands[model];
  const ModelTraffic& costs = *problem.models[model];
  const auto num_bundles = static_cast<std::size_t>(problem.num_gpus());
  // In the paper, expert i's GPU is also where the tokens of source i are. That has a meaning only when there
  // are as many experts as GPUs; otherwise what a GPU sends does not depend on its experts and is left out.
  const bool has_sources = demand.expert_pairs.size() == num_bundles;
  std::vector<Bundle> bundles;
  for (const std::vector<int>& experts : bundle_experts(demand, num_bundles)) {
    const int index = static_cast<int>(bundles.size());
    Bundle& bundle = bundles.emplace_back();
    bundle.experts.resize(problem.num_models());
    bundle.experts[model] = experts;
    for (const int expert : experts) {
      const double pairs = demand.expert_pairs[expert];
      const double local = has_sources ? demand.pairs(index, expert) : 0;
      bundle.wire.receive += (pairs - local) * costs.dispatch_bytes_per_token;
      bundle.exchanged += pairs * (costs.dispatch_bytes_per_token + costs.combine_bytes_per_token);
      if (pairs > 0) bundle.compute_us += pairs * costs.expert_us_per_token + costs.expert_us_per_hit;
    }
    if (!has_sources) continue;
    const double own = demand.pairs(index, index);
    bundle.wire.send = (demand.tokens[index] * costs.top_k - own) * costs.dispatch_bytes_per_token;
  }
  return bundles;
}

void merge(Bundle& bundle, const Bundle& other, std::size_t model) {
  bundle.experts[model] = other.experts[model];
  bundle.wire.send += other.wire.send;
  bundle.wire.receive += other.wire.receive;
  bundle.compute_us += other.compute_us;
  bundle.exchanged += other.exchanged;
}

std::vector<WireLoad> wires(const std::vector<Bundle>& bundles) {
  std::vector<WireLoad> loads;
  for (const Bundle& bundle : bundles) loads.push_back(bundle.wire);
  return loads;
}

bool fits(const LayerProblem& problem, const Bundle& bundle, int gpu) {
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    if (static_cast<int>(bundle.experts[model].size()) > problem.slots[model][gpu]) return false;
  }
  return true;
}

}  // namespace

std::vector<int> pair_experts(const std::vector<WireLoad>& a, const std::vector<WireLoad>& b) {
  if (a.size() != b.size()) throw std::invalid_argument("pairing: the two sides differ in size");
  const auto is_symmetric = [](const std::vector<WireLoad>& loads) {
    return std::all_of(loads.begin(), loads.end(),
                       [](const WireLoad& load) { return load.send == load.receive; });
  };
  if (is_symmetric(a) && is_symmetric(b)) {
    std::vector<int> ascending(a.size());
    std::vector<int> descending(b.size());
    std::iota(ascending.begin(), ascending.end(), 0);
    std::iota(descending.begin(), descending.end(), 0);
    std::stable_sort(ascending.begin(), ascending.end(), [&](int i, int j) { return a[i].send < a[j].send; });
    std::stable_sort(descending.begin(), descending.end(),
                     [&](int i, int j) { return b[i].send > b[j].send; });
    std::vector<int> partner(a.size());
    for (std::size_t rank = 0; rank < a.size(); ++rank) partner[ascending[rank]] = descending[rank];
    return partner;
  }
  std::vector<double> weights;
  for (const WireLoad& x : a) {
    for (const WireLoad& y : b) weights.push_back(std::max(x.send + y.send, x.receive + y.receive));
  }
  return bottleneck_matching(static_cast<int>(a.size()), weights).column_of_row;
}

Assignment paper_colocation(const LayerProblem& problem) {
  std::vector<Bundle> bundles = bundles_of(problem, 0);
  for (std::size_t model = 1; model < problem.num_models(); ++model) {
    const std::vector<Bundle> next = bundles_of(problem, model);
    const std::vector<int> partner = pair_experts(wires(bundles), wires(next));
    for (std::size_t index = 0; index < bundles.size(); ++index)
      merge(bundles[index], next[partner[index]], model);
  }
  std::vector<double> weights;
  for (const Bundle& bundle : bundles) {
    for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
      const ClusterGpu& machine = problem.cluster->gpus[gpu];
      weights.push_back(fits(problem, bundle, gpu)
                            ? bundle.compute_us / machine.compute +
                                  bundle.exchanged / (machine.port_gbps * kBytesPerUsOfGbps)
                            : std::numeric_limits<double>::infinity());
    }
  }
  const Matching matching = bottleneck_matching(problem.num_gpus(), weights);
  if (matching.value == std::numeric_limits<double>::infinity()) {
    throw std::invalid_argument(
        "placement paper: it gives every GPU the same number of experts, for which the memory of some does "
        "not "
        "suffice; use auto");
  }
  Assignment assignment;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    std::vector<int>& gpu_of = assignment.emplace_back(problem.demands[model].expert_pairs.size());
    for (std::size_t index = 0; index < bundles.size(); ++index) {
      for (const int expert : bundles[index].experts[model]) gpu_of[expert] = matching.column_of_row[index];
    }
  }
  return assignment;
}

}  // namespace aurora
