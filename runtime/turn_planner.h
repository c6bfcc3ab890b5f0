// Fairness between models that share the ranks: how many steps each takes in a turn, and how many tokens of
// prompts a step may take.
//
// A turn lasts about as long as its longest step. A model whose steps are shorter takes as many in the same
// turn as its weight asks for: while one model works through a chunk of a long prompt, another decodes
// several tokens. Start-time fair queueing over an estimate of each step's work: parameters per token times
// (tokens of the busiest rank + kFixedTokens). What rounding down to whole steps takes from a model it gets
// in later turns, so over many turns models that always have work take work in proportion to their weights,
// to within one step each, unless kMostStepsOfTurn limits them. A light model's chunks of prompts are cut in
// the same proportion, so that they do not hold up a heavy one's decoding for longer than its weight.
//
// While all requests decode, a turn is several of that: no rank waits for rank 0 between two tokens, and a
// model's last layers and first ones overlap the other's. While a prompt waits it is one, so that answers
// begin early.
//
// Counts alone decide, no clock, so equal requests give equal turns. Used by rank 0.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/executor/model_turn.h"
#include "runtime/model/model_config.h"

namespace aurora {

/// What does not change of a model.
struct ModelTraits {
  double weight = 1;
  double parameters_per_token = 1;  // that one token passes
  std::int64_t max_batch_tokens = 1;
};
double parameters_per_token(const ModelConfig& config);

/// What a model's requests would have its next steps do.
struct ModelDemand {
  std::int64_t num_requests = 0;      // running or assigned, on all ranks
  std::int64_t most_requests = 0;     // of them on the busiest rank
  std::int64_t decode_tokens = 0;     // of the next step, on the rank with the most
  std::int64_t prefill_tokens = 0;    // of prompts that have no answer yet, on the rank with the most
  std::int64_t remaining_tokens = 1;  // of the longest answer that is still to be given
};

class TurnPlanner {
 public:
  /// What a step takes apart from its tokens, in tokens: launches, messages, weights that are read for few
  /// rows. A rough figure, not a measured one: it only keeps models with one or two tokens from being given
  /// many steps for free.
  static constexpr std::int64_t kFixedTokens = 16;

  /// `decode_steps`: of each model in a turn of decoding, at most; from 1 to kMostStepsOfTurn.
  TurnPlanner(std::vector<ModelTraits> models, Schedule schedule, std::int64_t decode_steps = 1);

  /// The shares of all models with requests, ascending. Models without get none and save nothing up.
  std::vector<TurnShare> plan(std::span<const ModelDemand> demands);

 private:
  std::int64_t prefill_budget(std::size_t model, double most_weight) const;
  std::int64_t take_steps(std::size_t model, double due, std::int64_t most);
  void share_by_weight(std::span<const ModelDemand> demands, std::int64_t rounds,
                       std::vector<TurnShare>& shares);

  std::vector<ModelTraits> models_;
  Schedule schedule_;
  std::int64_t decode_steps_;
  std::vector<double> carried_;  // [model] parts of steps that rounding has withheld
};

}  // namespace aurora
