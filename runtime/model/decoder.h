// The decoder layers of one model on one rank, phase by phase: what happens between one MoE block and the
// next.
//
// A step is `begin`, then per layer `attend` followed by `dense_ffn` or by a MoE block of the caller's over
// `normalized` and `residual`, then `head`. Everything is submitted to one stream; nothing waits, and nothing
// here reads or writes device memory on the host.
//
// Dtypes: weights, cache and what enters a matrix product are of the compute dtype, the weights' own. The
// residual stream is float32 whatever that is, so that the sums of many layers are rounded once each and not
// twice; so are the logits.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "kernels/ops.h"
#include "runtime/dispatch/workspace.h"
#include "runtime/model/kv_cache.h"
#include "runtime/model/model_config.h"
#include "runtime/model/model_weights.h"
#include "runtime/model/rope_table.h"

namespace aurora {

/// The tokens of one step, of any number of sequences; host memory.
struct StepBatch {
  std::vector<std::int32_t> token_ids;       // [num_tokens]
  std::vector<std::int32_t> positions;       // [num_tokens]
  std::vector<std::int32_t> slots;           // [num_tokens] cache slot of each token
  std::vector<std::int32_t> sequence_index;  // [num_tokens] row of block_tables
  std::vector<std::int32_t> block_tables;    // [num_sequences, max_blocks], padded with 0
  std::int64_t num_sequences = 0;
  std::int64_t max_blocks = 0;
  std::vector<std::int32_t> output_rows;  // [num_outputs] tokens whose logits are wanted

  std::int64_t num_tokens() const { return static_cast<std::int64_t>(token_ids.size()); }
  std::int64_t num_outputs() const { return static_cast<std::int64_t>(output_rows.size()); }
};

class Decoder {
 public:
  /// `rope` covers the longest sequence that will be decoded. References but `rope` must outlive the decoder.
  Decoder(const ModelConfig& config, const SharedTensors& weights, const KvCache& cache,
          const RopeTable& rope, Backend& backend, Stream& stream);

  /// Uploads the batch, which must stay unchanged until the step is over, and embeds its tokens. The work of
  /// the step before must be done.
  void begin(const StepBatch& batch);
  /// Attention of `layer` with its residual, then the norm before the FFN.
  void attend(std::int64_t layer);
  /// FFN of a layer that is not MoE.
  void dense_ffn(std::int64_t layer);
  /// Logits of the wanted rows: [num_outputs, vocabulary] float32.
  Tensor head();

  /// Input of the FFN or MoE block: [num_tokens, hidden], compute dtype.
  Tensor normalized() const { return normalized_; }
  /// Residual stream, to which the FFN or MoE block adds its output: [num_tokens, hidden] float32.
  Tensor residual() const { return residual_; }

 private:
  void upload(const StepBatch& batch);
  void project(const DecoderLayerWeights& layer);
  void normalize_heads(const DecoderLayerWeights& layer);
  void rotate_and_attend(std::int64_t layer);

  const ModelConfig* config_;
  const SharedTensors* weights_;
  const KvCache* cache_;
  Backend* backend_;
  Stream* stream_;
  const Ops* ops_;
  DType dtype_;  // compute dtype
  Buffer rope_memory_;
  Tensor cosine_, sine_;  // [max_positions, head_width / 2]

  const StepBatch* batch_ = nullptr;
  Tensor token_ids_, positions_, slots_, sequence_index_, block_tables_, output_rows_;
  Tensor residual_, normalized_, query_, key_, value_, attended_;
  Workspace host_batch_space_, batch_space_;  // the batch's arrays one after the other
  Workspace residual_space_, normalized_space_, query_space_, key_space_, value_space_, attended_space_;
  Workspace gate_space_, up_space_, output_space_, head_input_space_, logits_space_;
};

}  // namespace aurora
