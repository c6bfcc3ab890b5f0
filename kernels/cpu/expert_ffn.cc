#include <string>

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

/// The first group that does not begin where the one before it ends at the earliest, or ends beyond the rows.
void check_offsets(const ExpertFfnArgs& args) {
  const std::int32_t* offsets = args.expert_offsets.i32();
  const auto num_rows = static_cast<std::int32_t>(args.output.dim(0));
  check(offsets[0] == 0, "expert_ffn: expert_offsets begin with " + std::to_string(offsets[0]) + ", not 0");
  for (std::int64_t e = 0; e < args.experts->size(); ++e) {
    if (offsets[e] <= offsets[e + 1] && offsets[e + 1] <= num_rows) continue;
    check(false, "expert_ffn: expert_offsets: expert " + std::to_string(e) + " has rows " +
                     std::to_string(offsets[e]) + " to " + std::to_string(offsets[e + 1]) + " of " +
                     std::to_string(num_rows));
  }
}

void run_experts(const Problem& problem) {
  check_offsets(problem.args);
  const std::int32_t* offsets = problem.args.expert_offsets.i32();
  for (const ExpertWeights& expert : problem.args.experts->experts()) {
    if (offsets[1] > offsets[0]) run_expert(problem, expert, offsets[0], offsets[1] - offsets[0]);
    ++offsets;
  }
}

}  // namespace

std::size_t CpuOps::expert_ffn_scratch_bytes(std::int64_t num_rows, std::int64_t hidden,
                                             std::int64_t inner) const {
  return scratch_floats(num_rows, hidden, inner) * sizeof(float);
}

std::unique_ptr<ExpertBank> CpuOps::make_expert_bank(std::span<const ExpertWeights> experts) const {
  return std::make_unique<ExpertBank>(experts);
}

void CpuOps::expert_ffn(Stream& stream, const ExpertFfnArgs& args) const {
  const std::int64_t num_rows = args.output.dim(0);
  if (num_rows == 0) return;
  check(args.experts != nullptr, "expert_ffn: rows without experts");
  check_args(args, expert_ffn_scratch_bytes(num_rows, args.output.dim(1), args.experts->inner()));
  const Problem problem{args, deterministic_ ? GemmOrder::kFixed : GemmOrder::kAny, args.output.dim(1)};
  cpu_stream(stream).submit([problem] { run_experts(problem); });
}

}  // namespace aurora::cpu
