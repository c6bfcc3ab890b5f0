// dequantize_rows. The way into 8-bit floats is pack_rows.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/float8_rows.cuh"
#include "kernels/cuda/row_copy.cuh"

namespace aurora::cuda {
namespace {

template <class To, int kVector>
__global__ void dequantize_rows_kernel(const std::byte* rows, std::int64_t row_bytes, Float8RowShape shape,
                                       To* output, unsigned blocks_per_row) {
  const RowShare share = row_share(blocks_per_row);
  const std::byte* row = rows + share.row * row_bytes;
  const auto* numbers = reinterpret_cast<const std::uint8_t*>(row);
  const auto* scales = reinterpret_cast<const float*>(row + shape.scales_offset);
  wait_for_kernel_before();
  let_next_kernel_begin();
  const std::int64_t column = share.first * kVector;
  if (column >= shape.width) return;
  const auto small = load_elements<kVector>(numbers + column);
  const float scale = scales[column / kFloat8Group];
  Elements<To, kVector> values;
  for (int i = 0; i < kVector; ++i) values.part[i] = from_float<To>(e4m3_value(small.part[i]) * scale);
  store_elements(values, output + share.row * shape.width + column);
}

}  // namespace

void CudaOps::dequantize_rows(Stream& stream, const DequantizeRowsArgs& args) const {
  check_args(args);
  if (args.output.is_empty()) return;
  const Float8RowShape shape = float8_row_shape(args.output.dim(1));
  const std::int64_t num_rows = args.output.dim(0);
  const auto row_bytes = static_cast<std::int64_t>(args.row_bytes);
  with_element(args.output.dtype(), "dequantize_rows", [&]<class To>(To*) {
    constexpr int kWide = kWideFloat8Vector;
    auto* output = data_of<To>(args.output);
    // Rows of either side are read and written alike.
    const bool is_wide =
        allows_vectors<kWide, To, std::uint8_t>({output, shape.width, args.rows, row_bytes, shape.width});
    const RowBlocks blocks = blocks_of_rows(num_rows, is_wide ? shape.width / kWide : shape.width);
    launch_dependent(is_wide ? dequantize_rows_kernel<To, kWide> : dequantize_rows_kernel<To, 1>,
                     static_cast<unsigned>(num_rows) * blocks.blocks_per_row, blocks.threads, 0,
                     cuda_stream(stream).handle(), "dequantize_rows", args.rows, row_bytes, shape, output,
                     blocks.blocks_per_row);
  });
}

}  // namespace aurora::cuda
