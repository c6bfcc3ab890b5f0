#include "scheduler/placement_search.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>

#include "scheduler/placement_state.h"
#include "scheduler/random.h"

namespace aurora {
namespace {

/// The search ends when this many restarts in a row have found nothing better.
constexpr int kMaxFruitlessRestarts = 48;

/// Insurance against drift: judge by the even problem, as long as the recorded one loses little.
struct Hedge {
  const LayerProblem* even = nullptr;
  double free_us = 0;   // of the recorded layer time; above it, what is lost counts in full
  double limit_us = 0;  // above it nothing is kept
};

/// An assignment and what it is judged by: its layer time, or with a hedge that of the even problem and what
/// the recorded one loses.
class JudgedState {
 public:
  JudgedState(const LayerProblem& problem, const Assignment& start, const std::optional<Hedge>& hedge)
      : hedge_(hedge), recorded_(problem, start) {
    if (hedge_) even_.emplace(*hedge_->even, start);
  }

  const Assignment& assignment() const { return recorded_.assignment(); }
  int gpu_of(const ExpertRef& expert) const { return recorded_.gpu_of(expert); }
  int num_on(std::size_t model, int gpu) const { return recorded_.num_on(model, gpu); }
  double time_us() const {
    return hedge_ ? even_->layer_time_us() + loss_us(recorded_.layer_time_us()) : recorded_.layer_time_us();
  }
  double score_us() const {
    return hedge_ ? even_->score_us() + loss_us(recorded_.layer_time_us()) : recorded_.score_us();
  }
  bool is_within_limit() const { return !hedge_ || recorded_.layer_time_us() <= hedge_->limit_us; }
  const std::vector<bool>& critical_gpus() {
    return hedge_ ? even_->critical_gpus() : recorded_.critical_gpus();
  }

  /// Score of a change that `attempt(state, limit)` tries on either state; infinite where not below `limit`.
  template <class Attempt>
  double score_of(const Attempt& attempt, double limit) {
    if (!hedge_) return attempt(recorded_, limit).score_us;
    const double loss = loss_us(attempt(recorded_, 0).layer_time_us);
    if (loss >= limit) return std::numeric_limits<double>::infinity();
    return attempt(*even_, limit - loss).score_us + loss;
  }
  void move(const ExpertRef& expert, int to) {
    recorded_.move(expert, to);
    if (even_) even_->move(expert, to);
  }
  void swap(const ExpertRef& a, const ExpertRef& b) {
    recorded_.swap(a, b);
    if (even_) even_->swap(a, b);
  }

 private:
  double loss_us(double recorded_us) const { return std::max(0.0, recorded_us - hedge_->free_us); }

  std::optional<Hedge> hedge_;
  PlacementState recorded_;
  std::optional<PlacementState> even_;
};

class LocalSearch {
 public:
  LocalSearch(const LayerProblem& problem, const Assignment& start, const SearchEffort& effort,
              const std::optional<Hedge>& hedge = {})
      : problem_(problem), state_(problem, start, hedge), effort_(effort), random_(effort.seed) {
    for (std::size_t model = 0; model < problem.num_models(); ++model) {
      for (int expert = 0; expert < problem.demands[model].num_experts; ++expert) {
        experts_.push_back({model, expert});
      }
    }
    accept();
    remember();
  }

  Assignment run() {
    if (problem_.num_gpus() == 1) return best_;
    for (int num_fruitless = 0;; ++num_fruitless) {
      descend();
      if (time_ < best_time_ * (1 - 1e-9)) num_fruitless = 0;
      const bool is_better =
          time_ < best_time_ * (1 - 1e-12) || (time_ <= best_time_ && score_ < best_score_);
      if (is_better && state_.is_within_limit()) remember();
      if (is_spent() || num_fruitless >= kMaxFruitlessRestarts) return best_;
      return_to_best();
      perturb();
    }
  }

 private:
  bool is_spent() const { return evaluations_ >= effort_.max_evaluations; }
  bool has_room(std::size_t model, int gpu) const {
    return state_.num_on(model, gpu) < problem_.slots[model][gpu];
  }

  void accept() {
    time_ = state_.time_us();
    score_ = state_.score_us();
  }
  void remember() {
    best_ = state_.assignment();
    best_time_ = time_;
    best_score_ = score_;
  }
  template <class Attempt>
  bool is_better(const Attempt& attempt) {
    ++evaluations_;
    return state_.score_of(attempt, score_) < score_ * (1 - 1e-12);
  }

  bool try_move(const ExpertRef& expert, int to) {
    if (state_.gpu_of(expert) == to || !has_room(expert.model, to)) return false;
    const auto attempt = [&](PlacementState& state, double limit) {
      return state.try_move(expert, to, limit);
    };
    if (!is_better(attempt)) return false;
    state_.move(expert, to);
    accept();
    return true;
  }

  bool try_swap(const ExpertRef& a, const ExpertRef& b) {
    const int gpu_a = state_.gpu_of(a);
    const int gpu_b = state_.gpu_of(b);
    if (gpu_a == gpu_b) return false;
    if (a.model != b.model && (!has_room(a.model, gpu_b) || !has_room(b.model, gpu_a))) return false;
    const auto attempt = [&](PlacementState& state, double limit) { return state.try_swap(a, b, limit); };
    if (!is_better(attempt)) return false;
    state_.swap(a, b);
    accept();
    return true;
  }

  bool improve_once();
  bool improve_by(std::size_t index, const std::vector<bool>& is_critical);

  void descend() {
    while (!is_spent() && improve_once()) {
    }
  }

  void return_to_best() {
    for (const ExpertRef& expert : experts_) state_.move(expert, best_[expert.model][expert.expert]);
  }

  /// Two to four random swaps within a model; they count as evaluations so that the search always ends.
  void perturb() {
    const std::size_t num_swaps = 2 + random_.below(3);
    for (std::size_t swap = 0; swap < num_swaps; ++swap) {
      ++evaluations_;
      const ExpertRef a = experts_[random_.below(experts_.size())];
      const ExpertRef b{a.model,
                        static_cast<int>(random_.below(problem_.demands[a.model].expert_pairs.size()))};
      if (state_.gpu_of(a) != state_.gpu_of(b)) {
        state_.swap(a, b);
        continue;
      }
      const int to = static_cast<int>(random_.below(static_cast<std::size_t>(problem_.num_gpus())));
      if (has_room(a.model, to)) state_.move(a, to);
    }
    accept();
  }

  const LayerProblem& problem_;
  JudgedState state_;
  SearchEffort effort_;
  Random random_;
  std::vector<ExpertRef> experts_;
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
  for (std::size_t index = 0; index < experts_.size() && !is_spent(); ++index) {
    has_improved = improve_by(index, is_critical) || has_improved;
  }
  return has_improved;
}

/// Tries to move one expert and to swap it with those after it in the pass.
bool LocalSearch::improve_by(std::size_t index, const std::vector<bool>& is_critical) {
  const ExpertRef expert = experts_[index];
  bool has_improved = false;
  const bool is_here_critical = is_critical[state_.gpu_of(expert)];
  for (int gpu = 0; gpu < problem_.num_gpus(); ++gpu) {
    if (is_here_critical || is_critical[gpu]) has_improved = try_move(expert, gpu) || has_improved;
  }
  for (std::size_t other = index + 1; other < experts_.size(); ++other) {
    if (!is_critical[state_.gpu_of(expert)] && !is_critical[state_.gpu_of(experts_[other])]) continue;
    has_improved = try_swap(expert, experts_[other]) || has_improved;
  }
  return has_improved;
}

}  // namespace

Assignment improve_assignment(const LayerProblem& problem, Assignment start, const SearchEffort& effort) {
  Assignment found = LocalSearch(problem, start, effort).run();
  // The search may have looked at a part of the samples only.
  return layer_time_us(problem, found) <= layer_time_us(problem, start) ? found : std::move(start);
}

Assignment hedge_assignment(const LayerProblem& problem, const Assignment& start, double price,
                            const SearchEffort& effort) {
  // Half of the price is free. Below it nothing would hold the search back from ever more loss; a hard limit
  // alone leaves it few ways to go.
  const LayerProblem even = with_even_popularity(problem);
  const double start_us = layer_time_us(problem, start);
  const Hedge hedge{&even, start_us * (1 + price / 2), start_us * (1 + price)};
  const Assignment found = LocalSearch(problem, start, effort, hedge).run();
  // The search may have looked at a part of the samples only.
  return layer_time_us(problem, found) <= hedge.limit_us ? found : start;
}

}  // namespace aurora
