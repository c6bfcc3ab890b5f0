// Qwen2-MoE's shared expert: one more feed-forward network that every token passes, on the token's own rank,
// while the dispatch is under way if there is one.
#pragma once

#include <cstdint>

#include "runtime/dispatch/workspace.h"
#include "runtime/moe/moe_context.h"

namespace aurora {

class SharedExpert {
 public:
  explicit SharedExpert(const MoeContext& context);

  /// Begins a block of so many tokens; `submit` then only submits.
  void prepare(const MoeLayerWeights& weights, std::int64_t num_tokens);
  /// residual += gate * expert(normalized), both [num_tokens, hidden]; nothing when the weights have none.
  void submit(const MoeLayerWeights& weights, const Tensor& normalized, const Tensor& residual) const;

 private:
  const MoeContext* context_;
  Tensor gate_, up_, output_, gate_logits_;
  Workspace gate_space_, up_space_, output_space_, gate_logits_space_;
};

}  // namespace aurora
