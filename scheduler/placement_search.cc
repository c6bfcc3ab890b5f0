#include "scheduler/placement_search.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>

#include "scheduler/bottleneck_matching.h"
#include "scheduler/random.h"

namespace aurora {
namespace {

/// Weight of the smooth term against the layer time.
constexpr double kSmoothWeight = 0.02;
/// The search ends when this many restarts in a row have found nothing better.
constexpr int kMaxFruitlessRestarts = 48;

/// An assignment with all loads, kept up to date move by move.
class SearchState {
 public:
  SearchState(const LayerProblem& problem, Assignment assignment);

  const Assignment& assignment() const { return assignment_; }
  int num_on(std::size_t model, int gpu) const { return models_[model].num_on[gpu]; }
  void move(std::size_t model, int expert, int to);
  double layer_time() const { return layer_time_us(loads_); }
  double score(double layer_time) const { return search_score(loads_, layer_time); }
  /// GPUs at which one of the loads, or their sum, is largest.
  std::vector<bool> critical_gpus() const;

 private:
  struct SampleUse {
    std::uint32_t hits_at;  // first of the sample's row in `sample_hits`
    std::int32_t weight;
  };

  /// Sums over the experts on each GPU by source, row-major [gpu][source], and how often each sample goes
  /// there.
  struct ModelState {
    std::vector<double> pairs;
    std::vector<double> sampled_pairs;
    std::vector<double> sampled_rows;
    std::vector<std::uint16_t> sample_hits;  // [sample][gpu]
    std::vector<double> rows;                // what is accounted for in the loads
    std::vector<int> num_on;
    // The samples of each expert, by ascending source and side by side in memory: the search spends most of
    // its time on them. Those of expert e and source s are [first_use[e * num_gpus + s], the next) of `uses`.
    std::vector<SampleUse> uses;
    std::vector<std::size_t> first_use;
  };

  std::size_t cell(int gpu, int source) const {
    return static_cast<std::size_t>(gpu) * num_gpus_ + static_cast<std::size_t>(source);
  }
  void place(std::size_t model, int expert, int gpu, int sign);
  void list_uses(const LayerDemand& demand, ModelState& state) const;
  void refresh_rows(std::size_t model, int gpu);

  const LayerProblem& problem_;
  std::size_t num_gpus_;
  Assignment assignment_;
  std::vector<ModelState> models_;
  std::vector<LayerLoad> loads_;
};

SearchState::SearchState(const LayerProblem& problem, Assignment assignment)
    : problem_(problem),
      num_gpus_(static_cast<std::size_t>(problem.num_gpus())),
      assignment_(std::move(assignment)),
      models_(problem.num_models()) {
  for (std::size_t model = 0; model < models_.size(); ++model) {
    ModelState& state = models_[model];
    const LayerDemand& demand = problem.demands[model];
    for (auto* values : {&state.pairs, &state.sampled_pairs, &state.sampled_rows, &state.rows}) {
      values->assign(num_gpus_ * num_gpus_, 0);
    }
    state.sample_hits.assign(demand.samples.size() * num_gpus_, 0);
    state.num_on.assign(num_gpus_, 0);
    list_uses(demand, state);
    LayerPlacement nowhere;
    nowhere.experts.resize(static_cast<std::size_t>(demand.num_experts));
    loads_.push_back(layer_load(demand, nowhere, *problem.models[model], *problem.cluster));
    for (int expert = 0; expert < demand.num_experts; ++expert) {
      place(model, expert, assignment_[model][expert], 1);
    }
    for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) refresh_rows(model, gpu);
  }
}

void SearchState::list_uses(const LayerDemand& demand, ModelState& state) const {
  state.first_use.push_back(0);
  for (std::vector<int> indices : demand.samples_of_expert) {
    std::stable_sort(indices.begin(), indices.end(),
                     [&](int a, int b) { return demand.samples[a].source < demand.samples[b].source; });
    std::size_t next = 0;
    for (int source = 0; source < demand.num_gpus; ++source) {
      for (; next < indices.size() && demand.samples[indices[next]].source == source; ++next) {
        const auto row = static_cast<std::size_t>(indices[next]) * num_gpus_;
        state.uses.push_back({static_cast<std::uint32_t>(row),
                              static_cast<std::int32_t>(demand.samples[indices[next]].weight)});
      }
      state.first_use.push_back(state.uses.size());
    }
  }
}

/// Adds an expert to a GPU, or takes it away (sign -1); the rows are refreshed by the caller.
void SearchState::place(std::size_t model, int expert, int gpu, int sign) {
  ModelState& state = models_[model];
  const LayerDemand& demand = problem_.demands[model];
  const ModelTraffic& costs = *problem_.models[model];
  state.num_on[gpu] += sign;
  const double total = demand.expert_pairs[expert];
  if (total > 0) {
    loads_[model].expert_us[gpu] += sign * (total * costs.expert_us_per_token + costs.expert_us_per_hit) /
                                    problem_.cluster->gpus[gpu].compute;
  }
  for (int source = 0; source < problem_.num_gpus(); ++source) {
    state.pairs[cell(gpu, source)] += sign * demand.pairs(source, expert);
  }
  const std::size_t first_run = static_cast<std::size_t>(expert) * num_gpus_;
  for (int source = 0; source < problem_.num_gpus() && !state.uses.empty(); ++source) {
    const std::size_t run = first_run + static_cast<std::size_t>(source);
    std::int64_t num_pairs = 0;
    std::int64_t num_rows = 0;
    // A row appears with the first of its experts and goes with the last.
    const std::uint16_t changing_at = sign > 0 ? 0 : 1;
    for (std::size_t use = state.first_use[run]; use < state.first_use[run + 1]; ++use) {
      const SampleUse& sample = state.uses[use];
      std::uint16_t& hits = state.sample_hits[sample.hits_at + static_cast<std::size_t>(gpu)];
      num_pairs += sample.weight;
      num_rows += hits == changing_at ? sample.weight : 0;
      hits = static_cast<std::uint16_t>(hits + sign);
    }
    state.sampled_pairs[cell(gpu, source)] += static_cast<double>(sign * num_pairs);
    state.sampled_rows[cell(gpu, source)] += static_cast<double>(sign * num_rows);
  }
}

/// Brings the exchange loads up to date with what one GPU now receives.
void SearchState::refresh_rows(std::size_t model, int gpu) {
  ModelState& state = models_[model];
  const ModelTraffic& costs = *problem_.models[model];
  LayerLoad& load = loads_[model];
  double change_here = 0;  // rows over bytes per microsecond
  for (int source = 0; source < problem_.num_gpus(); ++source) {
    if (source == gpu) continue;
    const std::size_t at = cell(gpu, source);
    double rows = state.pairs[at];
    if (state.sampled_pairs[at] > 0) rows *= state.sampled_rows[at] / state.sampled_pairs[at];
    const double change = rows - state.rows[at];
    if (change == 0) continue;
    state.rows[at] = rows;
    const double source_side = bandwidth_towards(*problem_.cluster, source, gpu);
    load.dispatch_send_us[source] += change * costs.dispatch_bytes_per_token / source_side;
    load.combine_receive_us[source] += change * costs.combine_bytes_per_token / source_side;
    change_here += change / bandwidth_towards(*problem_.cluster, gpu, source);
  }
  load.dispatch_receive_us[gpu] += change_here * costs.dispatch_bytes_per_token;
  load.combine_send_us[gpu] += change_here * costs.combine_bytes_per_token;
}

void SearchState::move(std::size_t model, int expert, int to) {
  int& gpu = assignment_[model][expert];
  const int from = gpu;
  place(model, expert, from, -1);
  place(model, expert, to, 1);
  gpu = to;
  refresh_rows(model, from);
  refresh_rows(model, to);
}

std::vector<bool> SearchState::critical_gpus() const {
  std::vector<bool> is_critical(num_gpus_);
  const auto mark_largest = [&](const auto& value_of) {
    double largest = 0;
    for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) largest = std::max(largest, value_of(gpu));
    for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
      if (value_of(gpu) >= largest * (1 - 1e-9)) is_critical[gpu] = true;
    }
  };
  for (const LayerLoad& load : loads_) {
    mark_largest([&](std::size_t gpu) { return load.expert_us[gpu]; });
    mark_largest([&](std::size_t gpu) {
      return load.gate_us[gpu] + std::max(load.dispatch_send_us[gpu], load.dispatch_receive_us[gpu]);
    });
    mark_largest([&](std::size_t gpu) {
      return load.expert_us[gpu] + std::max(load.combine_send_us[gpu], load.combine_receive_us[gpu]);
    });
  }
  if (loads_.size() > 1) {
    const auto wire = [&](std::vector<double> LayerLoad::*dispatch, std::vector<double> LayerLoad::*combine) {
      mark_largest([&](std::size_t gpu) {
        double sum = 0;
        for (const LayerLoad& load : loads_) sum += (load.*dispatch)[gpu] + (load.*combine)[gpu];
        return sum;
      });
    };
    wire(&LayerLoad::dispatch_send_us, &LayerLoad::combine_send_us);
    wire(&LayerLoad::dispatch_receive_us, &LayerLoad::combine_receive_us);
  }
  return is_critical;
}

class LocalSearch {
 public:
  LocalSearch(const LayerProblem& problem, Assignment start, const SearchEffort& effort)
      : problem_(problem), state_(problem, std::move(start)), effort_(effort), random_(effort.seed) {
    for (std::size_t model = 0; model < problem.num_models(); ++model) {
      for (int expert = 0; expert < problem.demands[model].num_experts; ++expert) {
        experts_.push_back({model, expert});
      }
    }
    accept(state_.layer_time());
    best_ = state_.assignment();
    best_time_ = time_;
    best_score_ = score_;
  }

  Assignment run() {
    if (problem_.num_gpus() == 1) return best_;
    for (int num_fruitless = 0;; ++num_fruitless) {
      descend();
      if (time_ < best_time_ * (1 - 1e-9)) num_fruitless = 0;
      if (time_ < best_time_ * (1 - 1e-12) || (time_ <= best_time_ && score_ < best_score_)) {
        best_ = state_.assignment();
        best_time_ = time_;
        best_score_ = score_;
      }
      if (evaluations_ >= effort_.max_evaluations || num_fruitless >= kMaxFruitlessRestarts) return best_;
      return_to_best();
      perturb();
    }
  }

 private:
  struct Place {
    std::size_t model;
    int expert;
  };

  int gpu_of(const Place& place) const { return state_.assignment()[place.model][place.expert]; }
  bool has_room(std::size_t model, int gpu) const {
    return state_.num_on(model, gpu) < problem_.slots[model][gpu];
  }

  void accept(double time) {
    time_ = time;
    score_ = state_.score(time);
  }

  /// Keeps the state as it is now when it is better than the accepted one.
  bool keep_if_better() {
    ++evaluations_;
    const double time = state_.layer_time();
    // The score is never below the time, so that most candidates need only the time.
    if (time >= score_) return false;
    const double score = state_.score(time);
    if (score >= score_ * (1 - 1e-12)) return false;
    time_ = time;
    score_ = score;
    return true;
  }

  bool try_move(const Place& place, int to) {
    const int from = gpu_of(place);
    if (from == to || !has_room(place.model, to)) return false;
    state_.move(place.model, place.expert, to);
    if (keep_if_better()) return true;
    state_.move(place.model, place.expert, from);
    return false;
  }

  bool try_swap(const Place& a, const Place& b) {
    const int gpu_a = gpu_of(a);
    const int gpu_b = gpu_of(b);
    if (gpu_a == gpu_b) return false;
    if (a.model != b.model && (!has_room(a.model, gpu_b) || !has_room(b.model, gpu_a))) return false;
    state_.move(a.model, a.expert, gpu_b);
    state_.move(b.model, b.expert, gpu_a);
    if (keep_if_better()) return true;
    state_.move(a.model, a.expert, gpu_a);
    state_.move(b.model, b.expert, gpu_b);
    return false;
  }

  bool improve_once();

  void descend() {
    while (evaluations_ < effort_.max_evaluations && improve_once()) {
    }
  }

  void return_to_best() {
    for (const Place& place : experts_) {
      const int gpu = best_[place.model][place.expert];
      if (gpu_of(place) != gpu) state_.move(place.model, place.expert, gpu);
    }
  }

  /// Two to four random swaps within a model; they count as evaluations so that the search always ends.
  void perturb() {
    const std::size_t num_swaps = 2 + random_.below(3);
    for (std::size_t swap = 0; swap < num_swaps; ++swap) {
      ++evaluations_;
      const Place a = experts_[random_.below(experts_.size())];
      const int other = static_cast<int>(random_.below(problem_.demands[a.model].expert_pairs.size()));
      const int gpu_a = gpu_of(a);
      const int gpu_b = gpu_of({a.model, other});
      if (gpu_a == gpu_b) {
        const int to = static_cast<int>(random_.below(static_cast<std::size_t>(problem_.num_gpus())));
        if (to != gpu_a && has_room(a.model, to)) state_.move(a.model, a.expert, to);
        continue;
      }
      state_.move(a.model, a.expert, gpu_b);
      state_.move(a.model, other, gpu_a);
    }
    accept(state_.layer_time());
  }

  const LayerProblem& problem_;
  SearchState state_;
  SearchEffort effort_;
  Random random_;
  std::vector<Place> experts_;
  double time_ = 0;
  double score_ = 0;
  Assignment best_;
  double best_time_ = 0;
  double best_score_ = 0;
  std::int64_t evaluations_ = 0;
};

/// One pass over the moves and swaps that touch a critical GPU; true when one was kept.
bool LocalSearch::improve_once() {
  const std::vector<bool> is_critical = state_.critical_gpus();
  random_.shuffle(experts_);
  bool has_improved = false;
  for (std::size_t index = 0; index < experts_.size(); ++index) {
    if (evaluations_ >= effort_.max_evaluations) return has_improved;
    const Place place = experts_[index];
    const bool is_here_critical = is_critical[gpu_of(place)];
    for (int gpu = 0; gpu < problem_.num_gpus(); ++gpu) {
      if (is_here_critical || is_critical[gpu]) has_improved = try_move(place, gpu) || has_improved;
    }
    for (std::size_t other = index + 1; other < experts_.size(); ++other) {
      if (!is_critical[gpu_of(place)] && !is_critical[gpu_of(experts_[other])]) continue;
      has_improved = try_swap(place, experts_[other]) || has_improved;
    }
  }
  return has_improved;
}

}  // namespace

double search_score(std::span<const LayerLoad> loads, double layer_time) {
  const std::size_t num_gpus = loads.front().gate_us.size();
  double squares = 0;
  for (std::size_t gpu = 0; gpu < num_gpus; ++gpu) {
    double busy = 0;
    for (const LayerLoad& load : loads) {
      busy += load.expert_us[gpu] + std::max(load.dispatch_send_us[gpu], load.dispatch_receive_us[gpu]) +
              std::max(load.combine_send_us[gpu], load.combine_receive_us[gpu]);
    }
    squares += busy * busy;
  }
  return layer_time + kSmoothWeight * std::sqrt(squares / static_cast<double>(num_gpus));
}

Assignment improve_assignment(const LayerProblem& problem, Assignment start, const SearchEffort& effort) {
  return LocalSearch(problem, std::move(start), effort).run();
}

Assignment best_assignment_by_force(const LayerProblem& problem) {
  // Every expert starts on GPU 0; leaves of the search tree within the slots are evaluated.
  Assignment start;
  std::vector<std::pair<std::size_t, int>> experts;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    start.emplace_back(problem.demands[model].expert_pairs.size(), 0);
    for (int expert = 0; expert < problem.demands[model].num_experts; ++expert)
      experts.emplace_back(model, expert);
  }
  SearchState state(problem, start);
  double best_time = std::numeric_limits<double>::infinity();
  Assignment best;
  const auto fits = [&] {
    for (std::size_t model = 0; model < problem.num_models(); ++model) {
      for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
        if (state.num_on(model, gpu) > problem.slots[model][gpu]) return false;
      }
    }
    return true;
  };
  const std::function<void(std::size_t)> place_from = [&](std::size_t next) {
    if (next == experts.size()) {
      const double time = state.layer_time();
      if (time >= best_time || !fits()) return;
      best_time = time;
      best = state.assignment();
      return;
    }
    const auto [model, expert] = experts[next];
    for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
      state.move(model, expert, gpu);
      place_from(next + 1);
    }
    state.move(model, expert, 0);
  };
  place_from(0);
  return best;
}

std::vector<int> best_single_assignment(const LayerProblem& problem) {
  const LayerDemand& demand = problem.demands.front();
  const ModelTraffic& model = *problem.models.front();
  const int n = problem.num_gpus();
  std::vector<double> before(static_cast<std::size_t>(n) * static_cast<std::size_t>(n));
  std::vector<double> after(before.size());
  // Rows beyond the experts stand for GPUs that host none.
  for (int expert = 0; expert < n; ++expert) {
    for (int gpu = 0; gpu < n; ++gpu) {
      const ClusterGpu& machine = problem.cluster->gpus[gpu];
      const bool is_real = expert < demand.num_experts;
      const double port = machine.port_gbps * kBytesPerUsOfGbps;
      const double local = is_real ? demand.pairs(gpu, expert) : 0;
      const double received = is_real ? demand.expert_pairs[expert] - local : 0;
      const double sent = demand.tokens[gpu] * model.top_k - local;
      const double rows = std::max(sent, received) / port;
      const double total = is_real ? demand.expert_pairs[expert] : 0;
      const double experts_us = total > 0 ? total * model.expert_us_per_token + model.expert_us_per_hit : 0;
      const auto at = static_cast<std::size_t>(expert * n + gpu);
      before[at] = demand.tokens[gpu] * (model.attention_us + model.gate_us) / machine.compute +
                   rows * model.dispatch_bytes_per_token;
      after[at] = experts_us / machine.compute + rows * model.combine_bytes_per_token;
      if (is_real && problem.slots.front()[gpu] == 0) {
        before[at] = after[at] = std::numeric_limits<double>::infinity();
      }
    }
  }
  std::vector<int> gpu_of = bottleneck_sum_matching(n, before, after).column_of_row;
  gpu_of.resize(static_cast<std::size_t>(demand.num_experts));
  return gpu_of;
}

}  // namespace aurora
