// Copies of experts on GPUs, each with its share of the expert's tokens, and what they make GPUs and ports
// do, kept up to date change by change: what a search for replicas evaluates thousands of times.
//
// A row goes to a GPU with the probability that at least one of its token's pairs does. For every GPU and
// sampled token the state keeps the probability that none does, so that a change of one share looks only at
// the tokens that use the expert. (placement_state.h does the same for whole experts, whose unions are bits.)
// Of long samples an even part is used; a result is to be judged by layer_time.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/layer_time.h"
#include "scheduler/placement_problem.h"

namespace aurora {

class CopyState {
 public:
  CopyState(const LayerProblem& problem, const std::vector<LayerPlacement>& placements);

  /// Replaces all copies of an expert.
  void set_copies(std::size_t model, int expert, std::span<const ExpertReplica> copies);
  /// [model]
  const std::vector<LayerLoad>& loads() const { return loads_; }

 private:
  /// Kept sampled tokens that use an expert, source by source.
  struct Users {
    std::vector<std::int32_t> tokens;
    std::vector<std::size_t> first_of_source;  // [source], then the end
  };
  struct Model {
    std::vector<double> shares;          // [expert][gpu][source]; of the source's tokens (replica_shares.h)
    std::vector<double> pairs;           // [gpu][source]
    std::vector<double> rows;            // [gpu][source]
    std::vector<double> sampled_pairs;   // [gpu][source]
    std::vector<double> sampled_rows;    // [gpu][source]
    std::size_t num_tokens = 0;          // kept samples of all sources
    std::vector<Users> used_by;          // [expert]
    std::vector<double> miss;            // [gpu][kept token] no copy with a part share is taken
    std::vector<std::int32_t> num_full;  // [gpu][kept token] copies with all of their expert
    std::vector<double> send;            // [gpu] rows over bytes per microsecond
    std::vector<double> receive;         // [gpu]
  };

  Model describe(std::size_t model) const;
  void set_shares(std::size_t model, int expert, std::size_t gpu, std::span<const double> shares);
  void count_tokens(Model& state, int expert, std::size_t gpu, std::span<const double> shares) const;
  void update_rows(std::size_t model, std::size_t gpu);
  void update_load(std::size_t model);

  const LayerProblem& problem_;
  std::size_t num_gpus_;
  std::vector<double> us_per_byte_;          // [gpu][peer] on the GPU's side
  std::vector<double> us_per_byte_of_peer_;  // [gpu][peer] on the peer's
  std::vector<Model> models_;
  std::vector<LayerLoad> loads_;
  std::vector<double> wanted_;  // [gpu][source] scratch
};

}  // namespace aurora
