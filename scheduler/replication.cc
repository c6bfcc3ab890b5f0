#include "scheduler/replication.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "scheduler/copy_state.h"
#include "scheduler/search_score.h"

namespace aurora {
namespace {

/// Of a placement with these loads; see search_score.h.
double score_us(const std::vector<LayerLoad>& loads) {
  std::vector<double> busy_us(loads.front().gate_us.size());
  for (std::size_t gpu = 0; gpu < busy_us.size(); ++gpu) {
    for (const LayerLoad& load : loads) {
      busy_us[gpu] += load.expert_us[gpu] +
                      std::max(load.dispatch_send_us[gpu], load.dispatch_receive_us[gpu]) +
                      std::max(load.combine_send_us[gpu], load.combine_receive_us[gpu]);
    }
  }
  return search_score_us(layer_time_us(loads), busy_us);
}

using Replicas = std::vector<ExpertReplica>;

/// Least gain for which a change is kept, relative.
constexpr double kLeastGain = 1e-6;

void share_equally(Replicas& replicas) {
  for (ExpertReplica& replica : replicas) replica.share = 1.0 / static_cast<double>(replicas.size());
}

void sort_by_gpu(Replicas& replicas) {
  std::sort(replicas.begin(), replicas.end(),
            [](const ExpertReplica& a, const ExpertReplica& b) { return a.gpu < b.gpu; });
}

class ReplicaSearch {
 public:
  ReplicaSearch(const LayerProblem& problem, std::vector<LayerPlacement> start, const ReplicationArgs& args)
      : problem_(problem),
        placements_(std::move(start)),
        max_evaluations_(args.max_evaluations),
        state_(problem, placements_) {
    for (std::size_t model = 0; model < problem.num_models(); ++model) {
      std::vector<int>& count = num_on_.emplace_back(static_cast<std::size_t>(problem.num_gpus()));
      for (const Replicas& replicas : placements_[model].experts) {
        for (const ExpertReplica& replica : replicas) ++count[replica.gpu.value];
      }
    }
    if (args.is_hedged) {
      even_ = with_even_popularity(problem);
      even_state_.emplace(even_, placements_);
    }
    score_ = score();
  }

  bool add_best_copy(std::size_t model);
  void rearrange();
  void tune_shares();
  std::vector<LayerPlacement> take() { return std::move(placements_); }

 private:
  Replicas& replicas(std::size_t model, int expert) { return placements_[model].experts[expert]; }
  bool has_room(std::size_t model, int gpu) const { return num_on_[model][gpu] < problem_.slots[model][gpu]; }
  bool is_spent() const { return evaluations_ >= max_evaluations_; }
  /// Score of the placements as they are now, of which only the copies of `expert` may have changed.
  double rescore(std::size_t model, int expert) {
    ++evaluations_;
    restore(model, expert);
    return score();
  }
  double score() const {
    return score_us(state_.loads()) + (even_state_ ? score_us(even_state_->loads()) : 0);
  }
  void restore(std::size_t model, int expert) {
    state_.set_copies(model, expert, placements_[model].experts[expert]);
    if (even_state_) even_state_->set_copies(model, expert, placements_[model].experts[expert]);
  }
  /// Replaces the replicas of an expert if that lowers the score.
  bool try_replicas(std::size_t model, int expert, Replicas changed);
  bool try_swap(std::size_t model, int expert_a, std::size_t index_a, int expert_b, std::size_t index_b);
  std::vector<int> experts_worth_copying(std::size_t model) const;

  const LayerProblem& problem_;
  std::vector<LayerPlacement> placements_;
  std::int64_t max_evaluations_;
  CopyState state_;
  LayerProblem even_;
  std::optional<CopyState> even_state_;
  std::vector<std::vector<int>> num_on_;  // [model][gpu]
  double score_ = 0;
  std::int64_t evaluations_ = 0;
};

bool ReplicaSearch::try_replicas(std::size_t model, int expert, Replicas changed) {
  Replicas& current = replicas(model, expert);
  std::swap(current, changed);
  const double score = rescore(model, expert);
  if (score < score_ * (1 - kLeastGain)) {
    score_ = score;
    for (const ExpertReplica& replica : changed) --num_on_[model][replica.gpu.value];
    for (const ExpertReplica& replica : current) ++num_on_[model][replica.gpu.value];
    return true;
  }
  std::swap(current, changed);
  restore(model, expert);
  return false;
}

/// The experts with the most load per copy; a copy of any other cannot help much.
std::vector<int> ReplicaSearch::experts_worth_copying(std::size_t model) const {
  constexpr std::size_t kMaxCandidates = 6;
  const LayerDemand& demand = problem_.demands[model];
  std::vector<int> experts;
  for (int expert = 0; expert < demand.num_experts; ++expert) experts.push_back(expert);
  const auto load_per_copy = [&](int expert) {
    return demand.expert_pairs[expert] / static_cast<double>(placements_[model].experts[expert].size());
  };
  std::stable_sort(experts.begin(), experts.end(),
                   [&](int a, int b) { return load_per_copy(a) > load_per_copy(b); });
  experts.resize(std::min(experts.size(), kMaxCandidates));
  return experts;
}

bool ReplicaSearch::add_best_copy(std::size_t model) {
  struct Candidate {
    int expert;
    Replicas replicas;
    double score;
  };
  std::optional<Candidate> best;
  for (const int expert : experts_worth_copying(model)) {
    for (int gpu = 0; gpu < problem_.num_gpus(); ++gpu) {
      if (!has_room(model, gpu) || placements_[model].hosts({gpu}, {expert})) continue;
      Replicas changed = replicas(model, expert);
      changed.push_back({{gpu}, 0});
      sort_by_gpu(changed);
      share_equally(changed);
      std::swap(replicas(model, expert), changed);
      const double score = rescore(model, expert);
      std::swap(replicas(model, expert), changed);
      restore(model, expert);
      if (!best || score < best->score) best = Candidate{expert, std::move(changed), score};
    }
  }
  return best && try_replicas(model, best->expert, std::move(best->replicas));
}

bool ReplicaSearch::try_swap(std::size_t model, int expert_a, std::size_t index_a, int expert_b,
                             std::size_t index_b) {
  Replicas& a = replicas(model, expert_a);
  Replicas& b = replicas(model, expert_b);
  const GpuId gpu_a = a[index_a].gpu;
  const GpuId gpu_b = b[index_b].gpu;
  if (gpu_a == gpu_b || placements_[model].hosts(gpu_b, {expert_a}) ||
      placements_[model].hosts(gpu_a, {expert_b})) {
    return false;
  }
  const Replicas old_a = a;
  const Replicas old_b = b;
  a[index_a].gpu = gpu_b;
  b[index_b].gpu = gpu_a;
  sort_by_gpu(a);
  sort_by_gpu(b);
  restore(model, expert_a);
  const double score = rescore(model, expert_b);
  if (score < score_ * (1 - kLeastGain)) {
    score_ = score;
    return true;
  }
  a = old_a;
  b = old_b;
  restore(model, expert_a);
  restore(model, expert_b);
  return false;
}

/// Moves of one copy and swaps of two, over and over while any of them helps.
void ReplicaSearch::rearrange() {
  for (bool has_improved = true; has_improved && !is_spent();) {
    has_improved = false;
    for (std::size_t model = 0; model < problem_.num_models(); ++model) {
      const int num_experts = problem_.demands[model].num_experts;
      for (int expert = 0; expert < num_experts; ++expert) {
        for (std::size_t index = 0; index < replicas(model, expert).size() && !is_spent(); ++index) {
          for (int gpu = 0; gpu < problem_.num_gpus() && !is_spent(); ++gpu) {
            if (!has_room(model, gpu) || placements_[model].hosts({gpu}, {expert})) continue;
            Replicas changed = replicas(model, expert);
            changed[index].gpu = {gpu};
            sort_by_gpu(changed);
            has_improved = try_replicas(model, expert, std::move(changed)) || has_improved;
          }
          for (int other = expert + 1; other < num_experts && !is_spent(); ++other) {
            for (std::size_t at = 0; at < replicas(model, other).size(); ++at) {
              has_improved = try_swap(model, expert, index, other, at) || has_improved;
            }
          }
        }
      }
    }
  }
}

/// Shifts share between two copies of an expert, in steps of a quarter down to a 512th.
void ReplicaSearch::tune_shares() {
  for (double step = 0.25; step > 1.0 / 1024; step /= 2) {
    for (bool has_improved = true; has_improved;) {
      has_improved = false;
      for (std::size_t model = 0; model < problem_.num_models(); ++model) {
        for (int expert = 0; expert < problem_.demands[model].num_experts; ++expert) {
          const std::size_t num_copies = replicas(model, expert).size();
          for (std::size_t from = 0; from < num_copies; ++from) {
            for (std::size_t to = 0; to < num_copies; ++to) {
              if (from == to || replicas(model, expert)[from].share <= step + 1e-9) continue;
              Replicas changed = replicas(model, expert);
              changed[from].share -= step;
              changed[to].share += step;
              has_improved = try_replicas(model, expert, std::move(changed)) || has_improved;
            }
          }
        }
      }
    }
  }
}

}  // namespace

std::vector<LayerPlacement> replicate_experts(const LayerProblem& problem, std::vector<LayerPlacement> start,
                                              const ReplicationArgs& args) {
  ReplicaSearch search(problem, start, args);
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    for (int copy = 0; copy < args.num_replicas && search.add_best_copy(model); ++copy) {
    }
  }
  search.rearrange();
  search.tune_shares();
  // The search may have looked at a part of the samples only.
  std::vector<LayerPlacement> found = search.take();
  return layer_time_us(problem, found) <= layer_time_us(problem, start) ? std::move(found) : std::move(start);
}

}  // namespace aurora
