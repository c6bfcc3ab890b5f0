#include "scheduler/copy_state.h"

#include <algorithm>

#include "scheduler/replica_shares.h"

namespace aurora {
namespace {

/// Sampled tokens of all sources that are kept: with half as many, plans of DeepSeek-V2-Lite's routing with
/// 16 copies were 1 % slower, with all no better.
constexpr std::size_t kMaxTokens = 2048;
/// Sampled pairs below this are rounding.
constexpr double kNoPairs = 1e-6;

}  // namespace

CopyState::CopyState(const LayerProblem& problem, const std::vector<LayerPlacement>& placements)
    : problem_(problem),
      num_gpus_(static_cast<std::size_t>(problem.num_gpus())),
      wanted_(num_gpus_ * num_gpus_) {
  for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
    for (int peer = 0; peer < problem.num_gpus(); ++peer) {
      us_per_byte_.push_back(1 / bandwidth_towards(*problem.cluster, gpu, peer));
      us_per_byte_of_peer_.push_back(1 / bandwidth_towards(*problem.cluster, peer, gpu));
    }
  }
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    const LayerDemand& demand = problem.demands[model];
    models_.push_back(describe(model));
    // Gates and aggregations do not depend on copies; no copies give them alone.
    const LayerPlacement nothing{std::vector<std::vector<ExpertReplica>>(demand.expert_pairs.size())};
    loads_.push_back(layer_load(demand, nothing, *problem.models[model], *problem.cluster));
    for (int expert = 0; expert < demand.num_experts; ++expert) {
      set_copies(model, expert, placements[model].experts[expert]);
    }
  }
}

CopyState::Model CopyState::describe(std::size_t model) const {
  const LayerDemand& demand = problem_.demands[model];
  Model state;
  state.shares.assign(demand.expert_pairs.size() * num_gpus_ * num_gpus_, 0);
  for (auto* table : {&state.pairs, &state.rows, &state.sampled_pairs, &state.sampled_rows}) {
    table->assign(num_gpus_ * num_gpus_, 0);
  }
  state.send.assign(num_gpus_, 0);
  state.receive.assign(num_gpus_, 0);
  state.used_by.resize(demand.expert_pairs.size());
  const SampledTokens& samples = demand.samples;
  const std::size_t capacity = std::max<std::size_t>(1, kMaxTokens / num_gpus_);
  for (Users& users : state.used_by) users.first_of_source.push_back(0);
  for (std::size_t source = 0; source + 1 < samples.first_of_source.size(); ++source) {
    const std::size_t first = samples.first_of_source[source];
    const std::size_t num_tokens = samples.first_of_source[source + 1] - first;
    const std::size_t num_kept = std::min(num_tokens, capacity);
    for (std::size_t kept = 0; kept < num_kept; ++kept) {
      const auto token = static_cast<std::int32_t>(state.num_tokens++);
      for (const std::int32_t expert : samples.experts_of(first + kept * num_tokens / num_kept)) {
        state.used_by[expert].tokens.push_back(token);
      }
    }
    for (Users& users : state.used_by) users.first_of_source.push_back(users.tokens.size());
  }
  state.miss.assign(num_gpus_ * state.num_tokens, 1);
  state.num_full.assign(num_gpus_ * state.num_tokens, 0);
  return state;
}

void CopyState::set_copies(std::size_t model, int expert, std::span<const ExpertReplica> copies) {
  std::fill(wanted_.begin(), wanted_.end(), 0);
  for (std::size_t source = 0; source < num_gpus_ && !copies.empty(); ++source) {
    const GpuId from{static_cast<std::int32_t>(source)};
    const std::vector<double> shares = shares_from(copies, from, static_cast<int>(num_gpus_));
    for (std::size_t index = 0; index < copies.size(); ++index) {
      wanted_[static_cast<std::size_t>(copies[index].gpu.value) * num_gpus_ + source] = shares[index];
    }
  }
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
    set_shares(model, expert, gpu, {wanted_.data() + gpu * num_gpus_, num_gpus_});
  }
  update_load(model);
}

void CopyState::set_shares(std::size_t model, int expert, std::size_t gpu, std::span<const double> shares) {
  Model& state = models_[model];
  const LayerDemand& demand = problem_.demands[model];
  const ModelTraffic& costs = *problem_.models[model];
  double* current = state.shares.data() + (static_cast<std::size_t>(expert) * num_gpus_ + gpu) * num_gpus_;
  if (std::equal(shares.begin(), shares.end(), current)) return;
  double pairs_before = 0;
  double pairs_after = 0;
  for (std::size_t source = 0; source < num_gpus_; ++source) {
    const double pairs = demand.pairs(static_cast<int>(source), expert);
    pairs_before += pairs * current[source];
    pairs_after += pairs * shares[source];
    state.pairs[gpu * num_gpus_ + source] += (shares[source] - current[source]) * pairs;
  }
  const double work_us = (pairs_after - pairs_before) * costs.expert_us_per_token +
                         ((pairs_after > 0) - (pairs_before > 0)) * costs.expert_us_per_hit;
  loads_[model].expert_us[gpu] += work_us / problem_.cluster->gpus[gpu].compute;
  count_tokens(state, expert, gpu, shares);
  std::copy(shares.begin(), shares.end(), current);
  update_rows(model, gpu);
}

/// What a change of shares does to the sampled tokens that use the expert.
void CopyState::count_tokens(Model& state, int expert, std::size_t gpu,
                             std::span<const double> shares) const {
  const std::size_t num_tokens = state.num_tokens;
  const double* current =
      state.shares.data() + (static_cast<std::size_t>(expert) * num_gpus_ + gpu) * num_gpus_;
  double* miss = state.miss.data() + gpu * num_tokens;
  std::int32_t* num_full = state.num_full.data() + gpu * num_tokens;
  const Users& users = state.used_by[expert];
  for (std::size_t source = 0; source + 1 < users.first_of_source.size(); ++source) {
    const double before = current[source];
    const double after = shares[source];
    if (before == after) continue;
    // Whole shares are counted apart: their factor 0 could not be divided away again.
    const std::int32_t full_change = (after == 1) - (before == 1);
    const double factor = (after == 1 ? 1 : 1 - after) / (before == 1 ? 1 : 1 - before);
    const std::size_t end = users.first_of_source[source + 1];
    double rows = 0;
    for (std::size_t index = users.first_of_source[source]; index < end; ++index) {
      const auto token = static_cast<std::size_t>(users.tokens[index]);
      const double missed = num_full[token] > 0 ? 0 : miss[token];
      miss[token] *= factor;
      num_full[token] += full_change;
      rows += missed - (num_full[token] > 0 ? 0 : miss[token]);
    }
    state.sampled_rows[gpu * num_gpus_ + source] += rows;
    state.sampled_pairs[gpu * num_gpus_ + source] +=
        (after - before) * static_cast<double>(end - users.first_of_source[source]);
  }
}

/// Rows of all sources to one GPU, and what they put on the ports.
void CopyState::update_rows(std::size_t model, std::size_t gpu) {
  Model& state = models_[model];
  state.receive[gpu] = 0;
  for (std::size_t source = 0; source < num_gpus_; ++source) {
    const std::size_t cell = gpu * num_gpus_ + source;
    double rows = state.pairs[cell];
    if (state.sampled_pairs[cell] > kNoPairs) rows *= state.sampled_rows[cell] / state.sampled_pairs[cell];
    if (source != gpu) {
      state.send[source] += (rows - state.rows[cell]) * us_per_byte_of_peer_[cell];
      state.receive[gpu] += rows * us_per_byte_[cell];
    }
    state.rows[cell] = rows;
  }
}

void CopyState::update_load(std::size_t model) {
  const Model& state = models_[model];
  const ModelTraffic& costs = *problem_.models[model];
  LayerLoad& load = loads_[model];
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
    load.dispatch_send_us[gpu] = state.send[gpu] * costs.dispatch_bytes_per_token;
    load.dispatch_receive_us[gpu] = state.receive[gpu] * costs.dispatch_bytes_per_token;
    load.combine_send_us[gpu] = state.receive[gpu] * costs.combine_bytes_per_token;
    load.combine_receive_us[gpu] = state.send[gpu] * costs.combine_bytes_per_token;
  }
}

}  // namespace aurora
