#include "runtime/moe/gate.h"

namespace aurora {

Gate::Gate(const MoeContext& context)
    : context_(&context),
      logits_space_(*context.backend),
      ids_space_(*context.backend),
      weights_space_(*context.backend) {}

void Gate::prepare(const Tensor& normalized, const Tensor& expert_ids) {
  normalized_ = normalized;
  const std::int64_t num_tokens = normalized.dim(0);
  const std::int64_t top_k = context_->shape.top_k;
  logits_ = logits_space_.tensor(DType::kFloat32, num_tokens, context_->shape.num_experts);
  const bool is_wanted = expert_ids.has_data();
  check(!is_wanted || expert_ids.num_elements() == num_tokens * top_k, "expert ids are [num_tokens, top_k]");
  expert_ids_ = is_wanted ? expert_ids : ids_space_.tensor(DType::kInt32, num_tokens, top_k);
  weights_ = weights_space_.tensor(DType::kFloat32, num_tokens, top_k);
}

void Gate::submit(const Tensor& router, std::span<const std::int32_t> given_expert_ids) const {
  context_->ops().linear(*context_->stream, {normalized_, router, {}, logits_});
  const bool is_replayed = !given_expert_ids.empty();
  if (is_replayed) {
    check(given_expert_ids.size_bytes() == expert_ids_.size_bytes(), "replayed ids are [num_tokens, top_k]");
    context_->backend->copy(*context_->stream, expert_ids_.bytes(), given_expert_ids.data(),
                            expert_ids_.size_bytes());
  }
  context_->ops().route(*context_->stream, {.logits = logits_,
                                            .scoring = RouterScoring::kSoftmax,
                                            .normalize = context_->shape.normalize_top_k,
                                            .ids_are_given = is_replayed,
                                            .expert_ids = expert_ids_,
                                            .weights = weights_});
}

}  // namespace aurora
