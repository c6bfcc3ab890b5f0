#include "scheduler/one_expert_per_gpu.h"

#include <algorithm>
#include <limits>

#include "scheduler/bottleneck_matching.h"

namespace aurora {

bool can_place_one_per_gpu(const LayerProblem& problem) {
  if (problem.cluster->link_gbps > 0) return false;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    const auto num_usable = std::count_if(problem.slots[model].begin(), problem.slots[model].end(),
                                          [](int slots) { return slots > 0; });
    if (problem.demands[model].num_experts > num_usable) return false;
  }
  return true;
}

HostingTerms hosting_terms(const LayerProblem& problem, std::size_t model) {
  const LayerDemand& demand = problem.demands[model];
  const ModelTraffic& costs = *problem.models[model];
  const auto n = static_cast<std::size_t>(problem.num_gpus());
  HostingTerms terms;
  terms.num_gpus = n;
  for (std::size_t expert = 0; expert < n; ++expert) {
    const bool is_real = expert < demand.expert_pairs.size();
    const double total = is_real ? demand.expert_pairs[expert] : 0;
    const double expert_us = total > 0 ? total * costs.expert_us_per_token + costs.expert_us_per_hit : 0;
    for (std::size_t gpu = 0; gpu < n; ++gpu) {
      const ClusterGpu& machine = problem.cluster->gpus[gpu];
      const double port = machine.port_gbps * kBytesPerUsOfGbps;
      const double local = is_real ? demand.pairs(static_cast<int>(gpu), static_cast<int>(expert)) : 0;
      terms.expert_us.push_back(expert_us / machine.compute);
      terms.send.push_back((demand.tokens[gpu] * costs.top_k - local) / port);
      terms.receive.push_back((total - local) / port);
      terms.is_allowed.push_back(!is_real || problem.slots[model][gpu] > 0);
    }
  }
  return terms;
}

std::vector<int> best_single_assignment(const LayerProblem& problem) {
  const LayerDemand& demand = problem.demands.front();
  const ModelTraffic& costs = *problem.models.front();
  const HostingTerms terms = hosting_terms(problem, 0);
  const auto n = terms.num_gpus;
  std::vector<double> before(n * n, std::numeric_limits<double>::infinity());
  std::vector<double> after(before);
  for (std::size_t expert = 0; expert < n; ++expert) {
    for (std::size_t gpu = 0; gpu < n; ++gpu) {
      const std::size_t at = terms.at(expert, gpu);
      if (!terms.is_allowed[at]) continue;
      const double rows = std::max(terms.send[at], terms.receive[at]);
      const double gate_us = demand.tokens[gpu] * (costs.attention_us + costs.gate_us);
      before[at] = gate_us / problem.cluster->gpus[gpu].compute + rows * costs.dispatch_bytes_per_token;
      after[at] = terms.expert_us[at] + rows * costs.combine_bytes_per_token;
    }
  }
  std::vector<int> gpu_of = bottleneck_sum_matching(static_cast<int>(n), before, after).column_of_row;
  gpu_of.resize(static_cast<std::size_t>(demand.num_experts));
  return gpu_of;
}

}  // namespace aurora
