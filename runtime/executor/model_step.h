// One step of one model on one rank as a resumable sequence of phases: attention, the MoE block's phases,
// layer after layer, then head. Records what it routed and how long each phase took.
//
// Times are the host's: a phase lasts from when this step came to it to when it went on. Where events are
// kept and streams run behind the host, that says little; there the device's times are recorded when the step
// is over (PhaseMarker), and the host's for exchanges that the host drives. The two clocks are compared at
// the beginning of each step, to within half the time of one event's way to the device and back, some 10 us.
//
// All ranks step the same models at the same time, with tokens or without, because every rank hosts experts.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/executor/layer_graphs.h"
#include "runtime/executor/served_model.h"
#include "runtime/executor/trace.h"
#include "runtime/moe/phase.h"
#include "runtime/transport/submission_order.h"

namespace aurora {

class ModelStep {
 public:
  ModelStep(ServedModel& model, std::size_t model_index, TraceRecorder& trace);

  /// Forms the batch and starts. `is_done` until then.
  void begin();
  /// Does the next thing that can be done without blocking; false when there was none.
  bool advance(SubmissionOrder& order);
  bool is_done() const { return stage_ == Stage::kDone; }

  /// Exchanges that this step submits, the same on every rank.
  std::int64_t num_exchanges() const {
    return std::int64_t{MoeBlock::kNumExchanges} * model_->num_moe_layers();
  }
  std::size_t model_index() const { return model_index_; }
  Phase phase() const;
  std::int64_t layer() const { return layer_; }

  /// After the step: what it did for each request, and what its exchanges carried.
  std::vector<RequestProgress> take_progress() { return std::move(progress_); }
  const ExchangeStatistics& exchanges() const { return exchanges_; }
  std::int64_t num_tokens() const { return batch_ == nullptr ? 0 : batch_->num_tokens(); }

 private:
  enum class Stage : std::uint8_t { kAttention, kMoe, kHead, kSampling, kDone };

  PhaseMarker& phases() { return model_->moe_block().phases(); }
  void begin_graphs();
  void enter_layer();
  void submit_layer();
  void begin_moe();
  bool advance_moe(SubmissionOrder& order);
  std::span<const std::int32_t> expert_ids(int moe_layer) const;
  void submit_head();
  void sample_outputs();
  bool finish_sampling();
  void record_routing();
  void start_clock();
  bool is_timed_by_device(Phase phase) const;
  void mark(Phase phase, std::int64_t bytes = 0);
  void record_spans();

  ServedModel* model_;
  std::size_t model_index_;
  TraceRecorder* trace_;

  Stage stage_ = Stage::kDone;
  const StepBatch* batch_ = nullptr;
  std::int64_t layer_ = 0;
  int moe_layer_ = 0;
  LayerGraphs graphs_;
  std::vector<std::int32_t> given_ids_;
  // What the device leaves on the host during the step, read when `sampled_event_`, recorded last, is
  // complete.
  Workspace routed_space_, host_routed_space_;
  Tensor routed_, host_routed_;  // [num_moe_layers, num_tokens * top_k] the experts that were chosen
  std::unique_ptr<Event> sampled_event_;
  Workspace sampled_space_, host_sampled_space_;
  Tensor host_sampled_;  // [num_outputs]
  std::vector<RequestProgress> progress_;
  ExchangeStatistics exchanges_;
  bool uses_device_times_;
  std::int64_t clock_ns_ = 0;      // trace clock when the device's clock was started
  std::int64_t mark_ns_ = 0;       // end of the last recorded phase
  std::int64_t marked_bytes_ = 0;  // of the step's exchanges, already recorded
};

}  // namespace aurora
