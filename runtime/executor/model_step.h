// One part of a model's step on one lane of one rank, as a resumable sequence of phases: attention, the MoE
// block's phases, layer after layer, then head. Records what it routed and when it did what (PhaseMarker).
//
// All ranks that serve the model step the same lanes at the same time, with tokens or without, because every
// one of them hosts experts.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/executor/layer_graphs.h"
#include "runtime/executor/served_model.h"
#include "runtime/executor/trace.h"
#include "runtime/moe/phase.h"
#include "runtime/transport/submission_order.h"

namespace aurora {

class ModelStep {
 public:
  struct Args {
    ServedModel* model = nullptr;
    std::size_t lane_index = 0;
    std::size_t model_index = 0;  // in the trace
    TraceRecorder* trace = nullptr;
  };
  /// All outlive the step.
  explicit ModelStep(const Args& args);

  /// Starts. `is_done` until then. The part must stay unchanged until it is done.
  void begin(const BatchPart& part);
  /// Does the next thing that can be done without blocking; false when there was none.
  bool advance(SubmissionOrder& order);
  bool is_done() const { return stage_ == Stage::kDone; }

  /// Exchanges that this step submits, the same on every rank.
  std::int64_t num_exchanges() const {
    return std::int64_t{lane_->moe_block->num_exchanges()} * model_->num_moe_layers();
  }
  std::size_t model_index() const { return model_index_; }
  std::size_t lane_index() const { return lane_index_; }
  /// Where it is among the computations of a step, in the order in which models take turns: gate, experts and
  /// aggregation of each layer, then the head. From 0 to `num_positions`.
  std::int64_t position() const;
  std::int64_t num_positions() const { return kPositionsOfLayer * (model_->config().num_layers + 1); }
  Phase phase() const;
  std::int64_t layer() const { return layer_; }
  /// What it waits for, as MoeBlock::awaits.
  std::string_view awaits(const SubmissionOrder& order);

  /// Once done: the tokens that it sampled, [num_outputs], and what its exchanges carried.
  std::span<const TokenId> sampled() const {
    return {host_sampled_.i32(), static_cast<std::size_t>(host_sampled_.num_elements())};
  }
  const ExchangeStatistics& exchanges() const { return exchanges_; }

 private:
  enum class Stage : std::uint8_t { kAttention, kMoe, kHead, kSampling, kDone };

  /// Of one layer: attention and gate, experts, aggregation, and the gate of the next, which comes after it.
  static constexpr std::int64_t kPositionsOfLayer = 4;

  const StepBatch& batch() const { return part_->batch; }
  Decoder& decoder() { return *lane_->decoder; }
  MoeBlock& moe_block() { return *lane_->moe_block; }
  Stream& stream() { return model_->stream(); }
  PhaseMarker& phases() { return moe_block().phases(); }
  void begin_graphs();
  void enter_layer();
  bool submit_layer();
  void submit_all_layers();
  void submit_layer_work();
  void leave_layer();
  bool is_moe_layer() const { return model_->config().is_moe_layer[static_cast<std::size_t>(layer_)]; }
  void begin_moe();
  bool advance_moe(SubmissionOrder& order);
  std::span<const std::int32_t> expert_ids(int moe_layer) const;
  bool submit_head();
  void sample_outputs();
  bool finish_sampling();
  void record_routing();
  void start_clock();
  void record_spans();

  ServedModel* model_;
  ModelLane* lane_;
  std::size_t lane_index_;
  std::size_t model_index_;
  TraceRecorder* trace_;

  Stage stage_ = Stage::kDone;
  const BatchPart* part_ = nullptr;
  std::int64_t layer_ = 0;
  int moe_layer_ = 0;
  LayerGraphs graphs_;
  std::vector<std::vector<std::int32_t>> given_ids_;  // [moe layer], while the step is under way
  // What the device leaves on the host during the step, read when `sampled_event_`, recorded last, is
  // complete.
  Workspace routed_space_, host_routed_space_;
  Tensor routed_, host_routed_;  // [num_moe_layers, num_tokens * top_k] the experts that were chosen
  std::unique_ptr<Event> sampled_event_;
  Workspace sampled_space_, host_sampled_space_;
  Tensor host_sampled_;  // [num_outputs]
  ExchangeStatistics exchanges_;
};

}  // namespace aurora
