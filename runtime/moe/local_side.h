// A MoE block's experts on a rank that is alone: its tokens meet them where they lie.
//
// What TokenSide and ExpertSide do together, without what they need to meet over a wire: no rows, no headers
// and no counts. The pairs (token, expert) are grouped straight from the gate's ids, the experts read the
// block's input in place, and one sum adds a token's results to the residual, in the order of its top-k and
// in float32. Nothing passes through the wire's dtype.
//
// Everything is submitted to the block's stream, once per block; nothing waits. `prepare` alone decides where
// things lie, and how many pairs there are follows from the number of tokens, so that all of it can be
// recorded in a graph.
#pragma once

#include "runtime/dispatch/workspace.h"
#include "runtime/moe/gate.h"
#include "runtime/moe/moe_context.h"

namespace aurora {

class LocalSide {
 public:
  LocalSide(const MoeContext& context, const Gate& gate);

  /// Begins a block; call when the gate is prepared. `experts` are all of the layer's.
  void prepare(const ExpertBank& experts);
  /// From ids and weights to the results of all pairs.
  void submit_experts(const ExpertBank& experts) const;
  /// residual += the weighted results of each token.
  void submit_aggregation(const Tensor& residual) const;

 private:
  const MoeContext* context_;
  const Gate* gate_;
  Tensor grouping_scratch_, expert_offsets_, row_indices_, term_offsets_, term_indices_;  // of GroupPairsArgs
  Tensor ffn_scratch_;
  Tensor output_;  // [num_pairs, hidden]

  Workspace grouping_scratch_space_, expert_offsets_space_, row_indices_space_, term_offsets_space_,
      term_indices_space_;
  Workspace ffn_scratch_space_, output_space_;
};

}  // namespace aurora
