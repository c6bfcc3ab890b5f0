// An assignment of experts to GPUs with what keeps every GPU busy, kept up to date change by change: what a
// local search evaluates tens of thousands of times.
//
// A change takes experts off some GPUs and puts them on others. It touches what these GPUs compute and
// receive, and what everybody sends to them. Without samples and without links inside nodes a row's cost does
// not depend on who else receives, so that a change costs a few operations for the GPUs it touches and one
// pass over all GPUs for the maxima; otherwise one pass over all sources for each GPU that it touches, with
// samples also one over the words of their union (sample_bits.h).
//
// The times are those of layer_time.h, except that of long samples a part is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "scheduler/layer_time.h"
#include "scheduler/placement_problem.h"
#include "scheduler/sample_bits.h"

namespace aurora {

/// An expert of one of the models of a problem.
struct ExpertRef {
  std::size_t model = 0;
  int expert = 0;
};

class PlacementState {
 public:
  /// `max_sample_words`: see SampleBits.
  PlacementState(const LayerProblem& problem, Assignment assignment,
                 std::size_t max_sample_words = SampleBits::kMaxWords);

  const Assignment& assignment() const { return assignment_; }
  int gpu_of(const ExpertRef& expert) const { return assignment_[expert.model][expert.expert]; }
  int num_on(std::size_t model, int gpu) const {
    return static_cast<int>(models_[model].experts_on[gpu].size());
  }
  double layer_time_us() const { return time_us(current_); }
  /// The layer time with a smooth term (search_score.h).
  double score_us() const { return score_us(current_, time_us(current_)); }
  /// GPUs at which one of the maxima that make up the layer time is attained; [gpu].
  const std::vector<bool>& critical_gpus();

  struct Trial {
    double layer_time_us = 0;
    double score_us = 0;  // only when the layer time is below the `limit` of the trial, else infinite
  };
  /// What a move, or a swap of two experts on different GPUs, would give. The state stays as it is.
  Trial try_move(const ExpertRef& expert, int to, double limit);
  Trial try_swap(const ExpertRef& a, const ExpertRef& b, double limit);
  void move(const ExpertRef& expert, int to);
  void swap(const ExpertRef& a, const ExpertRef& b);

 private:
  /// Microseconds of compute, and rows over bytes per microsecond, of one model on each GPU.
  struct Loads {
    std::vector<double> expert_us;
    std::vector<double> send;
    std::vector<double> receive;
  };
  struct Model {
    bool needs_rows = false;  // has samples, or there are links
    double dispatch_bytes = 0;
    double combine_bytes = 0;
    double largest_gate_us = 0;
    double largest_aggregate_us = 0;
    std::vector<double> gate_us;               // [gpu]
    std::vector<double> all_pairs;             // [gpu] that its tokens have
    std::vector<double> expert_us;             // [expert] on a GPU of compute 1
    std::vector<std::vector<int>> experts_on;  // [gpu]
    // Sums over the experts on a GPU.
    std::vector<double> work_us;   // [gpu] on a GPU of compute 1
    std::vector<double> received;  // [gpu] pairs, local ones included
    std::vector<double> local;     // [gpu] pairs of its own tokens
    // With `needs_rows`:
    std::vector<double> pairs;                // [gpu][source]
    std::vector<double> rows;                 // [gpu][source]
    SampleBits samples;                       // empty without samples
    std::vector<std::int32_t> sampled_pairs;  // [gpu][source]
    std::vector<std::uint64_t> used;          // [gpu][word] the union of its experts
    std::vector<std::uint64_t> used_by_rest;  // [expert][word] the union of the others on its GPU
  };
  /// One GPU's part of a change; -1: none.
  struct Exchange {
    std::size_t model;
    int gpu;
    int out = -1;
    int in = -1;
  };

  std::size_t cell(int gpu, int source) const {
    return static_cast<std::size_t>(gpu) * num_gpus_ + static_cast<std::size_t>(source);
  }
  Model describe(std::size_t model, std::size_t max_sample_words) const;
  void rebuild_gpu(std::size_t model, int gpu);
  void rebuild_unions(std::size_t model, int gpu);
  void rebuild_loads(std::size_t model);
  void relocate(const ExpertRef& expert, int to);
  void count_rows_after(const Exchange& change);
  void estimate_rows_after(const Exchange& change);
  void apply(const Exchange& change, Loads& loads);
  void apply_to_rows(const Exchange& change, Loads& loads);
  Trial evaluate_trial(double limit) const;
  double time_us(const std::vector<Loads>& loads) const;
  double exclusive_time_us(const Loads& loads) const;
  double colocated_time_us(const std::vector<Loads>& loads) const;
  double score_us(const std::vector<Loads>& loads, double time_us) const;

  const LayerProblem& problem_;
  std::size_t num_gpus_;
  Assignment assignment_;
  std::vector<Model> models_;
  std::vector<double> inverse_compute_;            // [gpu]
  std::vector<double> inverse_port_;               // [gpu] microseconds per byte
  std::vector<double> inverse_bandwidth_;          // [gpu][peer] microseconds per byte on the GPU's side
  std::vector<double> inverse_bandwidth_of_peer_;  // [gpu][peer] the same on the peer's side
  std::vector<Loads> current_;                     // [model]
  std::vector<Loads> trial_;                       // [model] scratch; equal to `current_` between trials
  std::vector<std::int32_t> row_counts_;           // [source] scratch
  std::vector<std::int32_t> sampled_after_;        // [source] scratch
  std::vector<double> rows_after_;                 // [source] scratch
  std::vector<bool> is_critical_;
  mutable std::vector<PhaseMaxima> maxima_;      // [model] scratch
  mutable std::vector<double> wire_send_us_;     // [gpu] scratch
  mutable std::vector<double> wire_receive_us_;  // [gpu] scratch
  mutable std::vector<double> busy_us_;          // [gpu] scratch
};

}  // namespace aurora
