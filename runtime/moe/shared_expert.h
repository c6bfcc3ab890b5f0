// Qwen2-MoE's shared expert: one more feed-forward network that every token passes, on the token's own rank,
// while the dispatch is under way.
#pragma once

#include "runtime/dispatch/workspace.h"
#include "runtime/moe/moe_context.h"

namespace aurora {

class SharedExpert {
 public:
  explicit SharedExpert(const MoeContext& context);

  /// residual += gate * expert(normalized), both [num_tokens, hidden]; nothing when the weights have none.
  void submit(const MoeLayerWeights& weights, const Tensor& normalized, const Tensor& residual);

 private:
  const MoeContext* context_;
  Workspace gate_space_, up_space_, output_space_, gate_logits_space_;
};

}  // namespace aurora
