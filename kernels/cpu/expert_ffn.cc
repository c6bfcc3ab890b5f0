#include <vector>

#include "kernels/cpu/activations.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/gather_rows.h"
#include "kernels/cpu/gemm.h"

namespace aurora::cpu {
namespace {

// Scratch: the gathered inputs, gate and up of one expert's rows at a time, one after the other.
std::size_t scratch_floats(std::int64_t num_rows, std::int64_t hidden, std::int64_t inner) {
  return static_cast<std::size_t>(num_rows) * static_cast<std::size_t>(hidden + 2 * inner);
}

struct Problem {
  ExpertFfnArgs args;
  GemmOrder order = GemmOrder::kAny;
  std::int64_t hidden = 0;
};

void run_expert(const Problem& problem, const ExpertWeights& expert, std::int64_t begin,
                std::int64_t num_rows) {
  const ExpertFfnArgs& args = problem.args;
  const std::int64_t hidden = problem.hidden;
  const std::int64_t inner = expert.gate.dim(0);
  auto* gathered = reinterpret_cast<float*>(args.scratch.bytes());
  float* gate = gathered + num_rows * hidden;
  float* up = gate + num_rows * inner;
  copy_rows({.input = args.input,
             .indices = args.row_indices.i32() + begin,
             .num_rows = num_rows,
             .width = hidden,
             .output_dtype = DType::kFloat32,
             .output = args.scratch.bytes(),
             .output_row_bytes = hidden * static_cast<std::int64_t>(sizeof(float)),
             .name = "expert_ffn: row_indices"});
  Gemm product{.input = gathered,
               .weight = expert.gate.f32(),
               .output = gate,
               .num_rows = num_rows,
               .in_width = hidden,
               .out_width = inner};
  gemm(product, problem.order);
  product.weight = expert.up.f32();
  product.output = up;
  gemm(product, problem.order);
  silu_multiply(gate, up, gate, num_rows * inner);
  gemm({.input = gate,
        .weight = expert.down.f32(),
        .output = args.output.f32() + begin * hidden,
        .num_rows = num_rows,
        .in_width = inner,
        .out_width = hidden},
       problem.order);
}

void run_experts(const Problem& problem, std::span<const std::int32_t> offsets,
                 std::span<const ExpertWeights> experts) {
  for (std::size_t e = 0; e < experts.size(); ++e) {
    if (offsets[e + 1] > offsets[e]) run_expert(problem, experts[e], offsets[e], offsets[e + 1] - offsets[e]);
  }
}

}  // namespace

std::size_t CpuOps::expert_ffn_scratch_bytes(std::int64_t num_rows, std::int64_t hidden,
                                             std::int64_t inner) const {
  return scratch_floats(num_rows, hidden, inner) * sizeof(float);
}

void CpuOps::expert_ffn(Stream& stream, const ExpertFfnArgs& args) const {
  check_args(args, scratch_floats(1, args.output.dim(1), widest_inner(args)) * sizeof(float));
  if (args.output.dim(0) == 0) return;
  const Problem problem{args, deterministic_ ? GemmOrder::kFixed : GemmOrder::kAny, args.output.dim(1)};
  CpuStream& own = cpu_stream(stream);
  if (own.is_inline()) {
    return own.submit([&] { run_experts(problem, problem.args.expert_offsets, problem.args.experts); });
  }
  own.submit([problem, offsets = std::vector(args.expert_offsets.begin(), args.expert_offsets.end()),
              experts = std::vector(args.experts.begin(), args.experts.end())] {
    run_experts(problem, offsets, experts);
  });
}

}  // namespace aurora::cpu
