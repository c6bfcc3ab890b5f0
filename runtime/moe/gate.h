// The gate of a MoE block: which experts each of this rank's tokens wants, and with what weights.
//
// `prepare` alone decides where things lie; what is submitted depends on its arguments and on nothing that
// the host learns later, so that it can be recorded in a graph.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/dispatch/workspace.h"
#include "runtime/moe/moe_context.h"

namespace aurora {

class Gate {
 public:
  explicit Gate(const MoeContext& context);

  /// Begins a block. The ids of the experts are left in `expert_ids`, [num_tokens, top_k], or in memory of
  /// this object when it has no data.
  void prepare(const Tensor& normalized, const Tensor& expert_ids);
  /// Router logits and top-k. `given_expert_ids` is replayed routing, [num_tokens, top_k], or empty.
  void submit(const Tensor& router, std::span<const std::int32_t> given_expert_ids) const;

  // Device memory, of the current or last block.
  const Tensor& normalized() const { return normalized_; }  // [num_tokens, hidden], as prepared
  const Tensor& logits() const { return logits_; }          // [num_tokens, num_experts]
  const Tensor& expert_ids() const { return expert_ids_; }  // [num_tokens, top_k]
  const Tensor& weights() const { return weights_; }        // [num_tokens, top_k]
  /// The weights of all pairs (token, expert), [num_tokens * top_k].
  Tensor pair_weights() const { return {weights_.bytes(), DType::kFloat32, {weights_.num_elements()}}; }

 private:
  const MoeContext* context_;
  Tensor normalized_, logits_, expert_ids_, weights_;
  Workspace logits_space_, ids_space_, weights_space_;
};

}  // namespace aurora
