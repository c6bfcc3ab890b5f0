#include "runtime/moe/local_side.h"

namespace aurora {

LocalSide::LocalSide(const MoeContext& context, const Gate& gate)
    : context_(&context),
      gate_(&gate),
      grouping_scratch_space_(*context.backend),
      expert_offsets_space_(*context.backend),
      row_indices_space_(*context.backend),
      term_offsets_space_(*context.backend),
      term_indices_space_(*context.backend),
      ffn_scratch_space_(*context.backend),
      output_space_(*context.backend) {}

void LocalSide::prepare(const ExpertBank& experts) {
  const MoeShape& shape = context_->shape;
  check(experts.size() == shape.num_experts, "a rank that is alone has all experts");
  const std::int64_t num_tokens = gate_->expert_ids().dim(0);
  const std::int64_t num_pairs = num_tokens * shape.top_k;
  const Ops& ops = context_->ops();
  grouping_scratch_ =
      grouping_scratch_space_.bytes(ops.group_rows_scratch_bytes(num_tokens, shape.top_k, shape.num_experts));
  expert_offsets_ = expert_offsets_space_.vector(DType::kInt32, shape.num_experts + 1);
  row_indices_ = row_indices_space_.vector(DType::kInt32, num_pairs);
  term_offsets_ = term_offsets_space_.vector(DType::kInt32, num_tokens + 1);
  term_indices_ = term_indices_space_.vector(DType::kInt32, num_pairs);
  ffn_scratch_ =
      ffn_scratch_space_.bytes(ops.expert_ffn_scratch_bytes(num_pairs, shape.hidden, shape.expert_inner));
  output_ = output_space_.tensor(experts.dtype(), num_pairs, shape.hidden);
}

void LocalSide::submit_experts(const ExpertBank& experts) const {
  context_->ops().group_pairs(*context_->stream, {.expert_ids = gate_->expert_ids(),
                                                  .scratch = grouping_scratch_,
                                                  .expert_offsets = expert_offsets_,
                                                  .row_indices = row_indices_,
                                                  .term_offsets = term_offsets_,
                                                  .term_indices = term_indices_});
  context_->ops().expert_ffn(*context_->stream, {.input = gate_->normalized(),
                                                 .row_indices = row_indices_,
                                                 .expert_offsets = expert_offsets_,
                                                 .experts = &experts,
                                                 .scratch = ffn_scratch_,
                                                 .output = output_});
}

void LocalSide::submit_aggregation(const Tensor& residual) const {
  context_->ops().weighted_sum(*context_->stream, {.input = output_,
                                                   .offsets = term_offsets_,
                                                   .indices = term_indices_,
                                                   .weights = gate_->pair_weights(),
                                                   .initial = residual,
                                                   .output = residual});
}

}  // namespace aurora
