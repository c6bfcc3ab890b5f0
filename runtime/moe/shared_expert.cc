#include "runtime/moe/shared_expert.h"

namespace aurora {

SharedExpert::SharedExpert(const MoeContext& context)
    : context_(&context),
      gate_space_(*context.backend),
      up_space_(*context.backend),
      output_space_(*context.backend),
      gate_logits_space_(*context.backend) {}

void SharedExpert::prepare(const MoeLayerWeights& weights, std::int64_t num_tokens) {
  if (!weights.shared.gate.has_data()) return;
  const MoeShape& shape = context_->shape;
  gate_ = gate_space_.tensor(shape.dtype, num_tokens, shape.shared_inner);
  up_ = up_space_.tensor(shape.dtype, num_tokens, shape.shared_inner);
  if (!weights.shared_expert_gate.has_data()) return;
  output_ = output_space_.tensor(DType::kFloat32, num_tokens, shape.hidden);
  gate_logits_ = gate_logits_space_.tensor(DType::kFloat32, num_tokens, 1);
}

void SharedExpert::submit(const MoeLayerWeights& weights, const Tensor& normalized,
                          const Tensor& residual) const {
  if (!weights.shared.gate.has_data() || normalized.dim(0) == 0) return;
  const Ops& ops = context_->ops();
  Stream& stream = *context_->stream;
  ops.linear(stream, {normalized, weights.shared.gate, {}, gate_});
  ops.linear(stream, {normalized, weights.shared.up, {}, up_});
  ops.silu_multiply(stream, {gate_, up_, gate_});
  if (!weights.shared_expert_gate.has_data()) {
    ops.linear(stream, {gate_, weights.shared.down, {}, residual, /*accumulate=*/true});
    return;
  }
  ops.linear(stream, {gate_, weights.shared.down, {}, output_});
  ops.linear(stream, {normalized, weights.shared_expert_gate, {}, gate_logits_});
  ops.sigmoid_gated_add(stream, {output_, gate_logits_, residual});
}

}  // namespace aurora
