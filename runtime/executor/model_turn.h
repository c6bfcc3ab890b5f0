// What one rank does for one model between two commands of rank 0: a number of steps one after the other,
// each in one part or in halves that overlap. Tokens that a step has sampled go into the next one without
// rank 0.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/executor/model_step.h"
#include "runtime/executor/request_batcher.h"

namespace aurora {

/// One model's share of a turn; the same on all ranks that serve the model.
struct TurnShare {
  std::int32_t model_index = 0;
  std::int32_t num_parts = 1;  // at most as many as the model has lanes
  std::int64_t num_steps = 1;
  std::int64_t most_prefill_tokens = 0;  // of a step on one rank

  friend bool operator==(const TurnShare&, const TurnShare&) = default;
};

class ModelTurn {
 public:
  /// The model is loaded; both outlive the turn.
  ModelTurn(ServedModel& model, std::size_t model_index, TraceRecorder& trace);

  /// Begins the first step.
  void begin(const TurnShare& share);
  /// Ends the step whose parts are all done and begins the next; false when there was nothing to end.
  bool finish_step();
  bool is_done() const { return num_steps_left_ == 0; }

  std::size_t model_index() const { return static_cast<std::size_t>(share_.model_index); }
  std::int32_t num_parts() const { return share_.num_parts; }
  /// The parts of the step under way.
  std::span<const std::unique_ptr<ModelStep>> parts() const {
    return {steps_.data(), static_cast<std::size_t>(share_.num_parts)};
  }
  std::size_t num_lanes() const { return steps_.size(); }
  /// Exchanges that one part submits in the whole turn, the same on every rank.
  std::int64_t num_exchanges() const { return share_.num_steps * steps_.front()->num_exchanges(); }
  /// How much of the turn is behind `part`, from 0 to 1: who is behind goes first.
  double progress_of(const ModelStep& part) const;

  /// Once done: what it did for each request, step after step, and what its exchanges carried.
  std::vector<RequestProgress> take_progress() { return std::move(progress_); }
  const ExchangeStatistics& exchanges() const { return exchanges_; }

 private:
  void begin_step();

  ServedModel* model_;
  std::vector<std::unique_ptr<ModelStep>> steps_;  // [lane]
  TurnShare share_;
  std::int64_t num_steps_left_ = 0;
  std::vector<RequestProgress> progress_;
  ExchangeStatistics exchanges_;
};

}  // namespace aurora
