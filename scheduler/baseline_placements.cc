#include "scheduler/baseline_placements.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <stdexcept>
#include <string>

#include "scheduler/random.h"

namespace aurora {
namespace {

std::vector<int> sorted_indices(std::size_t count, const auto& is_before) {
  std::vector<int> indices(count);
  std::iota(indices.begin(), indices.end(), 0);
  std::stable_sort(indices.begin(), indices.end(), is_before);
  return indices;
}

/// Experts by descending load; equal ones by index.
std::vector<int> experts_by_load(const LayerDemand& demand) {
  return sorted_indices(demand.expert_pairs.size(),
                        [&](int a, int b) { return demand.expert_pairs[a] > demand.expert_pairs[b]; });
}

/// GPUs that `by_rank` lists, visited forth and back, each at most as often as its quota.
std::vector<int> assign_in_turns(const std::vector<int>& experts, const std::vector<int>& by_rank,
                                 std::vector<int> quotas) {
  std::vector<int> gpu_of(experts.size());
  std::size_t next = 0;
  for (bool is_forward = true; next < experts.size(); is_forward = !is_forward) {
    const std::size_t before = next;
    for (std::size_t position = 0; position < by_rank.size() && next < experts.size(); ++position) {
      const int gpu = by_rank[is_forward ? position : by_rank.size() - 1 - position];
      if (quotas[gpu] == 0) continue;
      --quotas[gpu];
      gpu_of[experts[next++]] = gpu;
    }
    if (next == before) throw std::logic_error("placement: the quotas do not cover all experts");
  }
  return gpu_of;
}

}  // namespace

std::vector<int> even_quotas(int num_experts, const std::vector<int>& slots) {
  std::vector<int> quotas(slots.size());
  int left = num_experts;
  while (left > 0) {
    // One level: every GPU with room gets as much as all of them can take, at least one expert as long as
    // they last.
    const auto num_open = static_cast<int>(
        std::count_if(slots.begin(), slots.end(),
                      [&, gpu = std::size_t{0}](int room) mutable { return quotas[gpu++] < room; }));
    if (num_open == 0) throw std::logic_error("placement: there are fewer slots than experts");
    const int level = std::max(1, left / num_open);
    for (std::size_t gpu = 0; gpu < slots.size() && left > 0; ++gpu) {
      const int taken = std::min({level, slots[gpu] - quotas[gpu], left});
      quotas[gpu] += taken;
      left -= taken;
    }
  }
  return quotas;
}

std::vector<int> contiguous_assignment(int num_experts, const std::vector<int>& slots) {
  const std::vector<int> quotas = even_quotas(num_experts, slots);
  std::vector<int> gpu_of;
  for (std::size_t gpu = 0; gpu < quotas.size(); ++gpu) {
    gpu_of.insert(gpu_of.end(), static_cast<std::size_t>(quotas[gpu]), static_cast<int>(gpu));
  }
  return gpu_of;
}

std::vector<int> round_robin_assignment(int num_experts, const std::vector<int>& slots) {
  std::vector<int> quotas = even_quotas(num_experts, slots);
  std::vector<int> gpu_of;
  for (std::size_t gpu = 0; gpu_of.size() < static_cast<std::size_t>(num_experts);
       gpu = (gpu + 1) % quotas.size()) {
    if (quotas[gpu] == 0) continue;
    --quotas[gpu];
    gpu_of.push_back(static_cast<int>(gpu));
  }
  return gpu_of;
}

std::vector<int> random_assignment(int num_experts, const std::vector<int>& slots, std::uint64_t seed) {
  std::vector<int> gpu_of = contiguous_assignment(num_experts, slots);
  Random random(seed);
  random.shuffle(gpu_of);
  return gpu_of;
}

std::vector<int> sorted_assignment(const LayerProblem& problem, std::size_t model) {
  const auto& gpus = problem.cluster->gpus;
  const std::vector<int> by_speed = sorted_indices(gpus.size(), [&](int a, int b) {
    if (gpus[a].compute != gpus[b].compute) return gpus[a].compute > gpus[b].compute;
    return gpus[a].port_gbps > gpus[b].port_gbps;
  });
  std::vector<int> quotas = even_quotas(problem.demands[model].num_experts, problem.slots[model]);
  // With fewer experts than GPUs the fastest take them.
  if (problem.demands[model].num_experts < problem.num_gpus()) {
    quotas.assign(quotas.size(), 0);
    int left = problem.demands[model].num_experts;
    while (left > 0) {
      for (const int gpu : by_speed) {
        if (left == 0 || quotas[gpu] >= problem.slots[model][gpu]) continue;
        ++quotas[gpu];
        --left;
      }
    }
  }
  return assign_in_turns(experts_by_load(problem.demands[model]), by_speed, std::move(quotas));
}

namespace {

/// What keeps the GPUs busy while experts are listed onto them.
class ListedLoads {
 public:
  explicit ListedLoads(const LayerProblem& problem)
      : problem_(problem), base_us_(static_cast<std::size_t>(problem.num_gpus())) {
    for (std::size_t model = 0; model < problem.num_models(); ++model) {
      const ModelTraffic& costs = *problem.models[model];
      const LayerDemand& demand = problem.demands[model];
      send_.emplace_back();
      receive_.emplace_back(base_us_.size());
      num_on_.emplace_back(base_us_.size());
      for (std::size_t gpu = 0; gpu < base_us_.size(); ++gpu) {
        send_[model].push_back(demand.tokens[gpu] * costs.top_k);
        base_us_[gpu] += demand.tokens[gpu] * (costs.attention_us + costs.gate_us + costs.aggregate_us) /
                         problem.cluster->gpus[gpu].compute;
      }
    }
  }

  bool has_room(std::size_t model, int gpu) const { return num_on_[model][gpu] < problem_.slots[model][gpu]; }

  /// When the GPU would be done with all it has and one more expert.
  double done_us(std::size_t model, int expert, int gpu) const {
    double busy = base_us_[gpu] + expert_us(model, expert) / problem_.cluster->gpus[gpu].compute;
    for (std::size_t other = 0; other < problem_.num_models(); ++other) {
      const ModelTraffic& costs = *problem_.models[other];
      const LayerDemand& demand = problem_.demands[other];
      const double local = other == model ? demand.pairs(gpu, expert) : 0;
      const double total = other == model ? demand.expert_pairs[expert] : 0;
      busy += std::max(send_[other][gpu] - local, receive_[other][gpu] + total - local) *
              (costs.dispatch_bytes_per_token + costs.combine_bytes_per_token) /
              (problem_.cluster->gpus[gpu].port_gbps * kBytesPerUsOfGbps);
    }
    return busy;
  }

  void add(std::size_t model, int expert, int gpu) {
    const LayerDemand& demand = problem_.demands[model];
    base_us_[gpu] += expert_us(model, expert) / problem_.cluster->gpus[gpu].compute;
    send_[model][gpu] -= demand.pairs(gpu, expert);
    receive_[model][gpu] += demand.expert_pairs[expert] - demand.pairs(gpu, expert);
    ++num_on_[model][gpu];
  }

  double expert_us(std::size_t model, int expert) const {
    const double pairs = problem_.demands[model].expert_pairs[expert];
    const ModelTraffic& costs = *problem_.models[model];
    return pairs > 0 ? pairs * costs.expert_us_per_token + costs.expert_us_per_hit : 0;
  }

 private:
  const LayerProblem& problem_;
  std::vector<double> base_us_;               // [gpu] compute
  std::vector<std::vector<double>> send_;     // [model][gpu] rows
  std::vector<std::vector<double>> receive_;  // [model][gpu] rows
  std::vector<std::vector<int>> num_on_;      // [model][gpu]
};

}  // namespace

Assignment listed_assignment(const LayerProblem& problem) {
  struct Listed {
    std::size_t model;
    int expert;
    double work_us;
  };
  ListedLoads loads(problem);
  std::vector<Listed> list;
  Assignment assignment;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    const ModelTraffic& costs = *problem.models[model];
    const double bytes_per_pair = costs.dispatch_bytes_per_token + costs.combine_bytes_per_token;
    const double us_per_pair = bytes_per_pair / (problem.cluster->gpus[0].port_gbps * kBytesPerUsOfGbps);
    assignment.emplace_back(problem.demands[model].expert_pairs.size());
    for (int expert = 0; expert < problem.demands[model].num_experts; ++expert) {
      const double wire_us = problem.demands[model].expert_pairs[expert] * us_per_pair;
      list.push_back({model, expert, loads.expert_us(model, expert) + wire_us});
    }
  }
  std::stable_sort(list.begin(), list.end(),
                   [](const Listed& a, const Listed& b) { return a.work_us > b.work_us; });
  for (const Listed& next : list) {
    int best = -1;
    double best_us = 0;
    for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
      if (!loads.has_room(next.model, gpu)) continue;
      const double done_us = loads.done_us(next.model, next.expert, gpu);
      if (best < 0 || done_us < best_us) {
        best = gpu;
        best_us = done_us;
      }
    }
    if (best < 0) throw std::logic_error("placement: there are fewer slots than experts");
    loads.add(next.model, next.expert, best);
    assignment[next.model][next.expert] = best;
  }
  return assignment;
}

Assignment lina_assignment(const LayerProblem& problem) {
  const auto num_models = problem.num_models();
  const auto num_gpus = static_cast<std::size_t>(problem.num_gpus());
  Assignment assignment;
  for (std::size_t model = 0; model < num_models; ++model) {
    std::size_t first = 0;
    std::size_t last = num_gpus;
    if (num_gpus >= num_models) {
      first = model * num_gpus / num_models;
      last = (model + 1) * num_gpus / num_models;
    }
    std::vector<int> slots = problem.slots[model];
    for (std::size_t gpu = 0; gpu < num_gpus; ++gpu) {
      if (gpu < first || gpu >= last) slots[gpu] = 0;
    }
    const int room = std::accumulate(slots.begin(), slots.end(), 0);
    // Where the part is too small for the model, it may use the rest too.
    if (room < problem.demands[model].num_experts) slots = problem.slots[model];
    std::vector<int> order(num_gpus);
    std::iota(order.begin(), order.end(), 0);
    assignment.push_back(assign_in_turns(experts_by_load(problem.demands[model]), order,
                                         even_quotas(problem.demands[model].num_experts, slots)));
  }
  return assignment;
}

LayerPlacement eplb_placement(const LayerProblem& problem, std::size_t model, int num_copies) {
  const LayerDemand& demand = problem.demands[model];
  const auto num_gpus = static_cast<std::size_t>(problem.num_gpus());
  const auto num_experts = demand.expert_pairs.size();
  const auto per_gpu =
      (static_cast<std::size_t>(std::max(num_copies, demand.num_experts)) + num_gpus - 1) / num_gpus;
  std::vector<int> copies(num_experts, 1);
  const auto load_of_copy = [&](int expert) { return demand.expert_pairs[expert] / copies[expert]; };
  for (int made = demand.num_experts; made < num_copies; ++made) {
    int hottest = 0;
    for (int expert = 1; expert < demand.num_experts; ++expert) {
      if (load_of_copy(expert) > load_of_copy(hottest)) hottest = expert;
    }
    ++copies[hottest];
  }
  std::vector<int> expert_of_copy;
  for (int expert = 0; expert < demand.num_experts; ++expert) {
    expert_of_copy.insert(expert_of_copy.end(), static_cast<std::size_t>(copies[expert]), expert);
  }
  std::stable_sort(expert_of_copy.begin(), expert_of_copy.end(),
                   [&](int a, int b) { return load_of_copy(a) > load_of_copy(b); });
  std::vector<double> load(num_gpus);
  std::vector<std::size_t> count(num_gpus);
  std::vector<std::vector<int>> copies_on(num_experts, std::vector<int>(num_gpus));
  for (const int expert : expert_of_copy) {
    std::size_t best = num_gpus;
    for (std::size_t gpu = 0; gpu < num_gpus; ++gpu) {
      if (count[gpu] < per_gpu && (best == num_gpus || load[gpu] < load[best])) best = gpu;
    }
    load[best] += load_of_copy(expert);
    ++count[best];
    ++copies_on[expert][best];
  }
  LayerPlacement placement;
  std::vector<int> used(num_gpus);
  for (std::size_t expert = 0; expert < num_experts; ++expert) {
    auto& replicas = placement.experts.emplace_back();
    for (std::size_t gpu = 0; gpu < num_gpus; ++gpu) {
      if (copies_on[expert][gpu] == 0) continue;
      replicas.push_back(
          {{static_cast<int>(gpu)}, static_cast<double>(copies_on[expert][gpu]) / copies[expert]});
      if (++used[gpu] > problem.slots[model][gpu]) {
        throw std::invalid_argument("placement eplb: GPU " + std::to_string(gpu) + " has room for " +
                                    std::to_string(problem.slots[model][gpu]) + " experts of model \"" +
                                    problem.models[model]->model + "\"; eplb, which gives every GPU " +
                                    std::to_string(per_gpu) + ", needs more");
      }
    }
  }
  return placement;
}

}  // namespace aurora
