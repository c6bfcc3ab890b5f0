// One model as one rank serves it: configuration, tokenizer, weights, cache, queue, and what was recorded.
//
// Built in two stages, so that all ranks can agree on success in between: the constructor reads headers and
// checks everything that can be checked without memory; `load` takes the memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "runtime/executor/request_batcher.h"
#include "runtime/executor/routing_replay.h"
#include "runtime/executor/traffic_recorder.h"
#include "runtime/model/decoder.h"
#include "runtime/model/kv_cache.h"
#include "runtime/model/model_config.h"
#include "runtime/model/model_weights.h"
#include "runtime/model/safetensors.h"
#include "runtime/model/tokenizer.h"
#include "runtime/model_options.h"
#include "runtime/moe/expert_store.h"
#include "runtime/moe/moe_block.h"
#include "runtime/transport/transport.h"
#include "scheduler/plan.h"

namespace aurora {

/// The cache that a model gets: as many blocks as its bytes hold, and no more than its requests can fill.
KvCacheShape planned_cache(const ModelOptions& options, const ModelConfig& config);

/// What one part of a model's batch runs on: its own scratch and tags. Weights and cache are shared.
struct ModelLane {
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<MoeBlock> moe_block;
};

/// What `ServedModel::load` works with. Everything outlives the model.
struct LoadArgs {
  const ModelPlacement* placement = nullptr;  // on the ranks of `transport`
  std::span<const MoeSettings> lanes;         // at least one
  Transport* transport = nullptr;             // of the ranks that serve the model
  Backend* backend = nullptr;
  Stream* stream = nullptr;  // of the rank: all its models submit to it
};

class ServedModel {
 public:
  /// Reads and checks config.json, tensor names and shapes, tokenizer.json and limits. Throws Error naming
  /// the file, or the option with its value and limit.
  explicit ServedModel(const ModelOptions& options);
  ~ServedModel();

  /// Loads the weights that this rank needs under the placement and allocates the cache. Ranks that have no
  /// part in the model never call it.
  void load(const LoadArgs& args);
  bool is_loaded() const { return batcher_ != nullptr; }
  /// Waits until the device is done with what was submitted, in whatever state the model is. Errors of that
  /// work are dropped: whoever failed has reported them.
  void finish_work(Deadline deadline) noexcept;
  /// Takes memory for what `placement` adds to this rank, to be filled, then committed or discarded
  /// (ExpertStore). Throws kOutOfMemory; nothing has changed then.
  void reserve_experts(const ModelPlacement& placement, RankOf self);
  /// From now on traffic is recorded a second time, to be taken and cleared now and then: for re-planning.
  void record_windows();
  void record_routing() { collector_.emplace(num_moe_layers(), static_cast<int>(config_.top_k)); }

  const ModelOptions& options() const { return options_; }
  const ModelConfig& config() const { return config_; }
  int num_moe_layers() const { return static_cast<int>(config_.num_moe_layers()); }
  /// Null when the checkpoint has no tokenizer.json; then prompts are token ids and answers have no text.
  const Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }
  /// Prompt and answer together: the least of what the model, the options and the cache allow.
  std::int64_t max_sequence_tokens() const;
  std::int64_t num_cache_blocks() const;
  /// `wire_dtype`: see EngineOptions.
  RowLayout row_layout(std::optional<DType> wire_dtype) const {
    return RowLayout(config_.hidden, wire_types(wire_dtype, options_.dtype), static_cast<int>(config_.top_k));
  }
  /// Bytes that `load` takes on a rank with `num_experts` routed experts in total over its layers.
  std::int64_t expert_weight_bytes() const { return expert_bytes(config_, options_.dtype); }
  std::size_t resident_weight_bytes() const {
    return weights_->resident_bytes() + experts_->resident_bytes();
  }

  /// 0 on a rank that has no part in the model.
  std::int64_t num_preemptions() const { return is_loaded() ? batcher_->num_preemptions() : 0; }

  // After `load`.
  RequestBatcher& batcher() { return *batcher_; }
  std::size_t num_lanes() const { return lanes_.size(); }
  ModelLane& lane(std::size_t index) { return lanes_[index]; }
  ExpertStore& experts() { return *experts_; }
  const ModelWeights& weights() const { return *weights_; }
  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }
  TrafficRecorder& traffic() { return *traffic_; }
  /// Null unless windows are recorded.
  TrafficRecorder* window() { return window_ ? &*window_ : nullptr; }
  RoutingCollector* collector() { return collector_ ? &*collector_ : nullptr; }
  const RoutingReplay* replay() const { return replay_ ? &*replay_ : nullptr; }

 private:
  void check_limits() const;
  ModelLane make_lane(const MoeSettings& settings, const LoadArgs& args);

  ModelOptions options_;
  ModelConfig config_;
  Checkpoint checkpoint_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<RoutingReplay> replay_;
  std::optional<RoutingCollector> collector_;
  std::optional<TrafficRecorder> traffic_;
  std::optional<TrafficRecorder> window_;
  Backend* backend_ = nullptr;
  Stream* stream_ = nullptr;
  std::unique_ptr<ModelWeights> weights_;
  std::unique_ptr<ExpertStore> experts_;
  std::unique_ptr<KvCache> cache_;
  std::vector<ModelLane> lanes_;
  std::unique_ptr<RequestBatcher> batcher_;
};

}  // namespace aurora
