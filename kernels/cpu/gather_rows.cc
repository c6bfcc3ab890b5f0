#include "kernels/cpu/gather_rows.h"

#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows.h"

namespace aurora::cpu {
namespace {

template <typename To, typename From>
struct ConvertRows {
  template <typename L>
  AURORA_INLINE static void run(const RowCopy* args, const From* input) {
    const std::int64_t stride = args->input.dim(1);
    for (std::int64_t row = 0; row < args->num_rows; ++row) {
      auto* output = reinterpret_cast<To*>(args->output + row * args->output_row_bytes);
      copy_row<L>(output, input + args->indices[row] * stride, args->width);
    }
  }
};

void copy_equal_rows(const RowCopy& args) {
  const auto element_bytes = static_cast<std::int64_t>(dtype_bytes(args.output_dtype));
  const std::int64_t stride_bytes = args.input.dim(1) * element_bytes;
  const auto row_bytes = static_cast<std::size_t>(args.width * element_bytes);
  for (std::int64_t row = 0; row < args.num_rows; ++row) {
    std::memcpy(args.output + row * args.output_row_bytes,
                args.input.bytes() + args.indices[row] * stride_bytes, row_bytes);
  }
}

}  // namespace

void check_indices(const RowCopy& args) {
  for (std::int64_t row = 0; row < args.num_rows; ++row) {
    check_index(args.indices[row], args.input.dim(0), row, args.name);
  }
}

void copy_rows(const RowCopy& args) {
  check_indices(args);
  const DType from = args.input.dtype();
  if (from == args.output_dtype) return copy_equal_rows(args);
  if (from == DType::kFloat32) {
    return run_for_active_isa<ConvertRows<std::uint16_t, float>>(&args,
                                                                 static_cast<const float*>(args.input.f32()));
  }
  run_for_active_isa<ConvertRows<float, std::uint16_t>>(&args,
                                                        static_cast<const std::uint16_t*>(args.input.u16()));
}

void CpuOps::gather_rows(Stream& stream, const GatherRowsArgs& args) const {
  const std::int64_t num_rows = args.output.dim(0);
  const std::int64_t width = args.output.dim(1);
  check_args(args);
  if (num_rows == 0) return;
  cpu_stream(stream).submit([args, num_rows, width] {
    copy_rows({.input = args.input,
               .indices = args.indices.i32(),
               .num_rows = num_rows,
               .width = width,
               .output_dtype = args.output.dtype(),
               .output = args.output.bytes(),
               .output_row_bytes = width * static_cast<std::int64_t>(dtype_bytes(args.output.dtype())),
               .name = "gather_rows: indices"});
  });
}

}  // namespace aurora::cpu
