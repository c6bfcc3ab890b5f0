// The weights of one model on one rank: everything but the routed experts is held by every rank; routed
// experts are loaded one by one, as the placement asks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/ops.h"
#include "runtime/model/model_config.h"
#include "runtime/model/safetensors.h"
#include "runtime/moe/expert_store.h"
#include "runtime/moe/moe_block.h"

namespace aurora {

/// One decoder layer. Tensors without data are absent in this architecture.
struct DecoderLayerWeights {
  Tensor input_norm;         // [hidden]
  Tensor query, key, value;  // [heads * head_width, hidden], [kv_heads * head_width, hidden] twice
  Tensor query_bias, key_bias, value_bias;  // [rows of the matrix]
  Tensor query_norm, key_norm;              // [head_width] or [heads * head_width]
  Tensor output;                            // [hidden, heads * head_width]
  Tensor output_bias;                       // [hidden]
  Tensor post_attention_norm;               // [hidden]
  MoeLayerWeights moe;                      // MoE layers
  ExpertWeights dense;                      // the other layers
};

/// Views of everything but the routed experts.
struct SharedTensors {
  Tensor embedding;   // [vocabulary, hidden]
  Tensor final_norm;  // [hidden]
  Tensor head;        // [vocabulary, hidden]; the embedding itself when tied
  std::vector<DecoderLayerWeights> layers;
};

/// The shared tensors and the memory behind them.
class ModelWeights : public SharedTensors {
 public:
  /// Loads all but the routed experts, as `dtype`, into memory of `backend`. Throws Error naming folder and
  /// tensor.
  ModelWeights(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype, Backend& backend);

  std::size_t resident_bytes() const;

 private:
  std::vector<Buffer> memory_;
};

/// Checks that every tensor that `config` implies, the routed experts included, is in `checkpoint` with its
/// shape. Throws kNotFound or kFormat naming the first one that is not, with both shapes. Reads headers only.
void check_checkpoint(const ModelConfig& config, const Checkpoint& checkpoint);

/// Loads routed experts into `backend`; `config`, `checkpoint` and `backend` must outlive the loader.
ExpertLoader make_expert_loader(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype,
                                Backend& backend);

/// Takes the memory of one routed expert, laid out as the loader lays it out; `config` and `backend` must
/// outlive the allocator.
ExpertAllocator make_expert_allocator(const ModelConfig& config, DType dtype, Backend& backend);

/// Elements of everything but the routed experts.
std::int64_t num_shared_elements(const ModelConfig& config);

/// Bytes of one routed expert's weights.
std::int64_t expert_bytes(const ModelConfig& config, DType dtype);

}  // namespace aurora
