#include "runtime/moe/shared_expert.h"

namespace aurora {

SharedExpert::SharedExpert(const MoeContext& context)
    : context_(&context),
      gate_space_(*context.backend),
      up_space_(*context.backend),
      output_space_(*context.backend),
      gate_logits_space_(*context.backend) {}

void SharedExpert::submit(const MoeLayerWeights& weights, const Tensor& normalized, const Tensor& residual) {
  const std::int64_t num_tokens = normalized.dim(0);
  if (!weights.shared.gate.has_data() || num_tokens == 0) return;
  const Ops& ops = context_->ops();
  Stream& stream = *context_->stream;
  const MoeShape& shape = context_->shape;
  const Tensor gate = gate_space_.tensor(normalized.dtype(), num_tokens, shape.shared_inner);
  const Tensor up = up_space_.tensor(normalized.dtype(), num_tokens, shape.shared_inner);
  ops.linear(stream, {normalized, weights.shared.gate, {}, gate});
  ops.linear(stream, {normalized, weights.shared.up, {}, up});
  ops.silu_multiply(stream, {gate, up, gate});
  if (!weights.shared_expert_gate.has_data()) {
    ops.linear(stream, {gate, weights.shared.down, {}, residual, /*accumulate=*/true});
    return;
  }
  const Tensor output = output_space_.tensor(DType::kFloat32, num_tokens, shape.hidden);
  const Tensor gate_logits = gate_logits_space_.tensor(DType::kFloat32, num_tokens, 1);
  ops.linear(stream, {gate, weights.shared.down, {}, output});
  ops.linear(stream, {normalized, weights.shared_expert_gate, {}, gate_logits});
  ops.sigmoid_gated_add(stream, {output, gate_logits, residual});
}

}  // namespace aurora
