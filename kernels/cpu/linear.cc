#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/gemm.h"

namespace aurora::cpu {

void CpuOps::linear(Stream& stream, const LinearArgs& args) const {
  const std::int64_t num_rows = args.input.dim(0);
  const std::int64_t in_width = args.input.dim(1);
  const std::int64_t out_width = args.weight.dim(0);
  check_args(args);
  if (num_rows == 0) return;
  const Gemm product{.input = args.input.f32(),
                     .weight = args.weight.f32(),
                     .bias = args.bias.has_data() ? args.bias.f32() : nullptr,
                     .output = args.output.f32(),
                     .num_rows = num_rows,
                     .in_width = in_width,
                     .out_width = out_width,
                     .accumulate = args.accumulate};
  const GemmOrder order = deterministic_ ? GemmOrder::kFixed : GemmOrder::kAny;
  cpu_stream(stream).submit([product, order] { gemm(product, order); });
}

}  // namespace aurora::cpu
