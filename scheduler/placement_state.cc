#include "scheduler/placement_state.h"

#include <algorithm>
#include <limits>

#include "scheduler/search_score.h"

namespace aurora {

PlacementState::PlacementState(const LayerProblem& problem, Assignment assignment,
                               std::size_t max_sample_words)
    : problem_(problem),
      num_gpus_(static_cast<std::size_t>(problem.num_gpus())),
      assignment_(std::move(assignment)),
      current_(problem.num_models()),
      row_counts_(num_gpus_),
      sampled_after_(num_gpus_),
      rows_after_(num_gpus_),
      is_critical_(num_gpus_),
      maxima_(problem.num_models()),
      wire_send_us_(num_gpus_),
      wire_receive_us_(num_gpus_),
      busy_us_(num_gpus_) {
  for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
    inverse_compute_.push_back(1 / problem.cluster->gpus[gpu].compute);
    inverse_port_.push_back(1 / (problem.cluster->gpus[gpu].port_gbps * kBytesPerUsOfGbps));
    for (int peer = 0; peer < problem.num_gpus(); ++peer) {
      inverse_bandwidth_.push_back(1 / bandwidth_towards(*problem.cluster, gpu, peer));
      inverse_bandwidth_of_peer_.push_back(1 / bandwidth_towards(*problem.cluster, peer, gpu));
    }
  }
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    models_.push_back(describe(model, max_sample_words));
    for (auto* values : {&current_[model].expert_us, &current_[model].send, &current_[model].receive}) {
      values->assign(num_gpus_, 0);
    }
    for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) rebuild_gpu(model, gpu);
    rebuild_loads(model);
  }
  trial_ = current_;
}

PlacementState::Model PlacementState::describe(std::size_t model, std::size_t max_sample_words) const {
  const LayerDemand& demand = problem_.demands[model];
  const ModelTraffic& costs = *problem_.models[model];
  Model state;
  state.samples = SampleBits(demand, max_sample_words);
  state.needs_rows = problem_.cluster->link_gbps > 0 || !state.samples.is_empty();
  state.dispatch_bytes = costs.dispatch_bytes_per_token;
  state.combine_bytes = costs.combine_bytes_per_token;
  state.experts_on.resize(num_gpus_);
  for (auto* values : {&state.work_us, &state.received, &state.local}) values->assign(num_gpus_, 0);
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
    state.gate_us.push_back(demand.tokens[gpu] * (costs.attention_us + costs.gate_us) *
                            inverse_compute_[gpu]);
    state.all_pairs.push_back(demand.tokens[gpu] * costs.top_k);
    state.largest_gate_us = std::max(state.largest_gate_us, state.gate_us[gpu]);
    state.largest_aggregate_us =
        std::max(state.largest_aggregate_us, demand.tokens[gpu] * costs.aggregate_us * inverse_compute_[gpu]);
  }
  for (int expert = 0; expert < demand.num_experts; ++expert) {
    const double pairs = demand.expert_pairs[expert];
    state.expert_us.push_back(pairs > 0 ? pairs * costs.expert_us_per_token + costs.expert_us_per_hit : 0);
    state.experts_on[assignment_[model][expert]].push_back(expert);
  }
  if (!state.needs_rows) return state;
  state.pairs.assign(num_gpus_ * num_gpus_, 0);
  state.rows.assign(num_gpus_ * num_gpus_, 0);
  if (state.samples.is_empty()) return state;
  state.sampled_pairs.assign(num_gpus_ * num_gpus_, 0);
  state.used.assign(num_gpus_ * state.samples.num_words(), 0);
  state.used_by_rest.assign(demand.expert_pairs.size() * state.samples.num_words(), 0);
  return state;
}

/// Computes from scratch what depends on the experts of one GPU, so that nothing drifts.
void PlacementState::rebuild_gpu(std::size_t model, int gpu) {
  Model& state = models_[model];
  const LayerDemand& demand = problem_.demands[model];
  state.work_us[gpu] = state.received[gpu] = state.local[gpu] = 0;
  for (const int expert : state.experts_on[gpu]) {
    state.work_us[gpu] += state.expert_us[expert];
    state.received[gpu] += demand.expert_pairs[expert];
    state.local[gpu] += demand.pairs(gpu, expert);
  }
  if (!state.needs_rows) return;
  if (!state.samples.is_empty()) rebuild_unions(model, gpu);
  for (int source = 0; source < problem_.num_gpus(); ++source) {
    double pairs = 0;
    for (const int expert : state.experts_on[gpu]) pairs += demand.pairs(source, expert);
    double ratio = 1;
    if (!state.samples.is_empty()) {
      std::int32_t sampled = 0;
      for (const int expert : state.experts_on[gpu]) sampled += state.samples.pairs_of(expert)[source];
      state.sampled_pairs[cell(gpu, source)] = sampled;
      if (sampled > 0) ratio = row_counts_[source] * state.samples.reciprocal(sampled);
    }
    state.pairs[cell(gpu, source)] = pairs;
    state.rows[cell(gpu, source)] = pairs * ratio;
  }
}

/// The union of all experts of a GPU, whose sizes it leaves in `row_counts_`, and of all but each one.
void PlacementState::rebuild_unions(std::size_t model, int gpu) {
  Model& state = models_[model];
  const std::size_t num_words = state.samples.num_words();
  const auto& experts = state.experts_on[gpu];
  std::uint64_t* used = state.used.data() + static_cast<std::size_t>(gpu) * num_words;
  std::fill_n(used, num_words, 0);
  // What comes before an expert, then what comes after it.
  for (const int expert : experts) {
    std::uint64_t* rest = state.used_by_rest.data() + static_cast<std::size_t>(expert) * num_words;
    const auto tokens = state.samples.tokens_of(expert);
    for (std::size_t word = 0; word < num_words; ++word) {
      rest[word] = used[word];
      used[word] |= tokens[word];
    }
  }
  std::vector<std::uint64_t> after(num_words);
  for (auto expert = experts.rbegin(); expert != experts.rend(); ++expert) {
    std::uint64_t* rest = state.used_by_rest.data() + static_cast<std::size_t>(*expert) * num_words;
    const auto tokens = state.samples.tokens_of(*expert);
    for (std::size_t word = 0; word < num_words; ++word) {
      rest[word] |= after[word];
      after[word] |= tokens[word];
    }
  }
  state.samples.count_union(after, after, row_counts_);
}

void PlacementState::rebuild_loads(std::size_t model) {
  const Model& state = models_[model];
  Loads& loads = current_[model];
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
    loads.expert_us[gpu] = state.work_us[gpu] * inverse_compute_[gpu];
    if (!state.needs_rows) {
      loads.send[gpu] = (state.all_pairs[gpu] - state.local[gpu]) * inverse_port_[gpu];
      loads.receive[gpu] = (state.received[gpu] - state.local[gpu]) * inverse_port_[gpu];
    }
  }
  if (!state.needs_rows) return;
  std::fill(loads.send.begin(), loads.send.end(), 0);
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
    loads.receive[gpu] = 0;
    for (std::size_t source = 0; source < num_gpus_; ++source) {
      if (source == gpu) continue;
      const double rows = state.rows[gpu * num_gpus_ + source];
      loads.send[source] += rows * inverse_bandwidth_of_peer_[gpu * num_gpus_ + source];
      loads.receive[gpu] += rows * inverse_bandwidth_[gpu * num_gpus_ + source];
    }
  }
}

void PlacementState::relocate(const ExpertRef& expert, int to) {
  Model& state = models_[expert.model];
  int& gpu = assignment_[expert.model][expert.expert];
  std::erase(state.experts_on[gpu], expert.expert);
  state.experts_on[to].push_back(expert.expert);
  gpu = to;
}

void PlacementState::move(const ExpertRef& expert, int to) {
  const int from = gpu_of(expert);
  if (from == to) return;
  relocate(expert, to);
  for (const int gpu : {from, to}) rebuild_gpu(expert.model, gpu);
  rebuild_loads(expert.model);
  trial_[expert.model] = current_[expert.model];
}

void PlacementState::swap(const ExpertRef& a, const ExpertRef& b) {
  const int gpu_a = gpu_of(a);
  const int gpu_b = gpu_of(b);
  if (a.model != b.model) {
    move(a, gpu_b);
    move(b, gpu_a);
    return;
  }
  relocate(a, gpu_b);
  relocate(b, gpu_a);
  for (const int gpu : {gpu_a, gpu_b}) rebuild_gpu(a.model, gpu);
  rebuild_loads(a.model);
  trial_[a.model] = current_[a.model];
}

void PlacementState::apply(const Exchange& change, Loads& loads) {
  const Model& state = models_[change.model];
  const LayerDemand& demand = problem_.demands[change.model];
  const int gpu = change.gpu;
  double work_us = state.work_us[gpu];
  double received = state.received[gpu];
  double local = state.local[gpu];
  if (change.out >= 0) {
    work_us -= state.expert_us[change.out];
    received -= demand.expert_pairs[change.out];
    local -= demand.pairs(gpu, change.out);
  }
  if (change.in >= 0) {
    work_us += state.expert_us[change.in];
    received += demand.expert_pairs[change.in];
    local += demand.pairs(gpu, change.in);
  }
  loads.expert_us[gpu] = work_us * inverse_compute_[gpu];
  if (state.needs_rows) {
    apply_to_rows(change, loads);
    return;
  }
  loads.send[gpu] = (state.all_pairs[gpu] - local) * inverse_port_[gpu];
  loads.receive[gpu] = (received - local) * inverse_port_[gpu];
}

/// Sampled rows of each source into the changed GPU, in `row_counts_`.
void PlacementState::count_rows_after(const Exchange& change) {
  const Model& state = models_[change.model];
  const std::size_t num_words = state.samples.num_words();
  const auto words_of = [&](const std::vector<std::uint64_t>& sets, int index) {
    return std::span<const std::uint64_t>{sets.data() + static_cast<std::size_t>(index) * num_words,
                                          num_words};
  };
  const auto rest =
      change.out >= 0 ? words_of(state.used_by_rest, change.out) : words_of(state.used, change.gpu);
  state.samples.count_union(rest, change.in >= 0 ? state.samples.tokens_of(change.in) : rest, row_counts_);
}

/// Rows of each source to the changed GPU, in `rows_after_`.
void PlacementState::estimate_rows_after(const Exchange& change) {
  const Model& state = models_[change.model];
  const LayerDemand& demand = problem_.demands[change.model];
  // Plain loops over sources, one expert at a time, so that compilers can use vector code.
  const double* pairs = state.pairs.data() + cell(change.gpu, 0);
  std::copy(pairs, pairs + num_gpus_, rows_after_.begin());
  const auto add_pairs = [&](int expert, double sign) {
    const double* of_expert = demand.pairs_by_expert.data() + static_cast<std::size_t>(expert) * num_gpus_;
    for (std::size_t source = 0; source < num_gpus_; ++source)
      rows_after_[source] += sign * of_expert[source];
  };
  if (change.out >= 0) add_pairs(change.out, -1);
  if (change.in >= 0) add_pairs(change.in, 1);
  if (state.samples.is_empty()) return;
  count_rows_after(change);
  const std::int32_t* sampled = state.sampled_pairs.data() + cell(change.gpu, 0);
  std::copy(sampled, sampled + num_gpus_, sampled_after_.begin());
  const auto add_sampled = [&](int expert, std::int32_t sign) {
    const auto of_expert = state.samples.pairs_of(expert);
    for (std::size_t source = 0; source < num_gpus_; ++source)
      sampled_after_[source] += sign * of_expert[source];
  };
  if (change.out >= 0) add_sampled(change.out, -1);
  if (change.in >= 0) add_sampled(change.in, 1);
  for (std::size_t source = 0; source < num_gpus_; ++source) {
    if (sampled_after_[source] == 0) continue;
    rows_after_[source] *= row_counts_[source] * state.samples.reciprocal(sampled_after_[source]);
  }
}

void PlacementState::apply_to_rows(const Exchange& change, Loads& loads) {
  const Model& state = models_[change.model];
  estimate_rows_after(change);
  rows_after_[change.gpu] = state.rows[cell(change.gpu, change.gpu)];  // local: neither sent nor received
  const double* here = inverse_bandwidth_.data() + cell(change.gpu, 0);
  const double* there = inverse_bandwidth_of_peer_.data() + cell(change.gpu, 0);
  const double* before = state.rows.data() + cell(change.gpu, 0);
  double received = 0;
  for (std::size_t source = 0; source < num_gpus_; ++source) {
    received += rows_after_[source] * here[source];
    loads.send[source] += (rows_after_[source] - before[source]) * there[source];
  }
  loads.receive[change.gpu] = received - rows_after_[change.gpu] * here[change.gpu];
}

PlacementState::Trial PlacementState::evaluate_trial(double limit) const {
  Trial trial{time_us(trial_), std::numeric_limits<double>::infinity()};
  // The score is never below the time, so that most candidates need only the time.
  if (trial.layer_time_us < limit) trial.score_us = score_us(trial_, trial.layer_time_us);
  return trial;
}

PlacementState::Trial PlacementState::try_move(const ExpertRef& expert, int to, double limit) {
  Loads& loads = trial_[expert.model];
  apply({.model = expert.model, .gpu = gpu_of(expert), .out = expert.expert}, loads);
  apply({.model = expert.model, .gpu = to, .in = expert.expert}, loads);
  const Trial trial = evaluate_trial(limit);
  loads = current_[expert.model];
  return trial;
}

PlacementState::Trial PlacementState::try_swap(const ExpertRef& a, const ExpertRef& b, double limit) {
  const int gpu_a = gpu_of(a);
  const int gpu_b = gpu_of(b);
  if (a.model == b.model) {
    apply({a.model, gpu_a, a.expert, b.expert}, trial_[a.model]);
    apply({a.model, gpu_b, b.expert, a.expert}, trial_[a.model]);
  } else {
    apply({.model = a.model, .gpu = gpu_a, .out = a.expert}, trial_[a.model]);
    apply({.model = a.model, .gpu = gpu_b, .in = a.expert}, trial_[a.model]);
    apply({.model = b.model, .gpu = gpu_b, .out = b.expert}, trial_[b.model]);
    apply({.model = b.model, .gpu = gpu_a, .in = b.expert}, trial_[b.model]);
  }
  const Trial trial = evaluate_trial(limit);
  trial_[a.model] = current_[a.model];
  if (a.model != b.model) trial_[b.model] = current_[b.model];
  return trial;
}

double PlacementState::time_us(const std::vector<Loads>& loads) const {
  return loads.size() == 1 ? exclusive_time_us(loads.front()) : colocated_time_us(loads);
}

double PlacementState::exclusive_time_us(const Loads& loads) const {
  const Model& state = models_.front();
  double before = 0;
  double after = 0;
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
    const double busiest_side = std::max(loads.send[gpu], loads.receive[gpu]);
    before = std::max(before, state.gate_us[gpu] + busiest_side * state.dispatch_bytes);
    after = std::max(after, loads.expert_us[gpu] + busiest_side * state.combine_bytes);
  }
  return before + after + state.largest_aggregate_us;
}

double PlacementState::colocated_time_us(const std::vector<Loads>& loads) const {
  std::fill(wire_send_us_.begin(), wire_send_us_.end(), 0);
  std::fill(wire_receive_us_.begin(), wire_receive_us_.end(), 0);
  for (std::size_t model = 0; model < loads.size(); ++model) {
    const Model& state = models_[model];
    const Loads& load = loads[model];
    PhaseMaxima maxima{.gate_us = state.largest_gate_us, .aggregate_us = state.largest_aggregate_us};
    double busiest_side = 0;
    for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
      maxima.expert_us = std::max(maxima.expert_us, load.expert_us[gpu]);
      busiest_side = std::max(busiest_side, std::max(load.send[gpu], load.receive[gpu]));
      wire_send_us_[gpu] += load.send[gpu] * state.dispatch_bytes;
      wire_receive_us_[gpu] += load.receive[gpu] * state.dispatch_bytes;
      maxima.dispatch_wire_us =
          std::max(maxima.dispatch_wire_us, std::max(wire_send_us_[gpu], wire_receive_us_[gpu]));
    }
    maxima.dispatch_us = busiest_side * state.dispatch_bytes;
    maxima.combine_us = busiest_side * state.combine_bytes;
    maxima_[model] = maxima;
  }
  for (std::size_t model = 0; model < loads.size(); ++model) {
    double busiest = 0;
    for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
      wire_send_us_[gpu] += loads[model].receive[gpu] * models_[model].combine_bytes;
      wire_receive_us_[gpu] += loads[model].send[gpu] * models_[model].combine_bytes;
      busiest = std::max(busiest, std::max(wire_send_us_[gpu], wire_receive_us_[gpu]));
    }
    maxima_[model].combine_wire_us = busiest;
  }
  return colocated_layer_time_us(std::span<const PhaseMaxima>(maxima_));
}

double PlacementState::score_us(const std::vector<Loads>& loads, double time_us) const {
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
    double& busy = busy_us_[gpu] = 0;
    for (std::size_t model = 0; model < loads.size(); ++model) {
      const Loads& load = loads[model];
      busy += load.expert_us[gpu] + std::max(load.send[gpu], load.receive[gpu]) *
                                        (models_[model].dispatch_bytes + models_[model].combine_bytes);
    }
  }
  return search_score_us(time_us, busy_us_);
}

const std::vector<bool>& PlacementState::critical_gpus() {
  std::fill(is_critical_.begin(), is_critical_.end(), false);
  const auto mark_largest = [&](const auto& value_of) {
    double largest = 0;
    for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) largest = std::max(largest, value_of(gpu));
    for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
      if (value_of(gpu) >= largest * (1 - 1e-9)) is_critical_[gpu] = true;
    }
  };
  for (std::size_t model = 0; model < current_.size(); ++model) {
    const Loads& load = current_[model];
    const Model& state = models_[model];
    const auto busiest_side = [&](std::size_t gpu) { return std::max(load.send[gpu], load.receive[gpu]); };
    mark_largest([&](std::size_t gpu) { return load.expert_us[gpu]; });
    mark_largest(
        [&](std::size_t gpu) { return state.gate_us[gpu] + busiest_side(gpu) * state.dispatch_bytes; });
    mark_largest(
        [&](std::size_t gpu) { return load.expert_us[gpu] + busiest_side(gpu) * state.combine_bytes; });
  }
  if (current_.size() > 1) {
    const auto mark_wire = [&](std::vector<double> Loads::*dispatch, std::vector<double> Loads::*combine) {
      mark_largest([&](std::size_t gpu) {
        double sum = 0;
        for (std::size_t model = 0; model < current_.size(); ++model) {
          sum += (current_[model].*dispatch)[gpu] * models_[model].dispatch_bytes +
                 (current_[model].*combine)[gpu] * models_[model].combine_bytes;
        }
        return sum;
      });
    };
    mark_wire(&Loads::send, &Loads::receive);
    mark_wire(&Loads::receive, &Loads::send);
  }
  return is_critical_;
}

}  // namespace aurora
