// dequantize_rows. The way into 8-bit floats is pack_rows.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/float8_rows.cuh"
#include "kernels/cuda/row_copy.cuh"

namespace aurora::cuda {
namespace {

/// One block a row.
template <class To>
__global__ void dequantize_rows_kernel(const std::byte* rows, std::int64_t row_bytes, Float8RowShape shape,
                                       To* output) {
  const std::byte* row = rows + blockIdx.x * row_bytes;
  const auto* numbers = reinterpret_cast<const std::uint8_t*>(row);
  const auto* scales = reinterpret_cast<const float*>(row + shape.scales_offset);
  To* values = output + blockIdx.x * shape.width;
  for (std::int64_t column = threadIdx.x; column < shape.width; column += blockDim.x) {
    values[column] = from_float<To>(e4m3_value(numbers[column]) * scales[column / kFloat8Group]);
  }
}

}  // namespace

void CudaOps::dequantize_rows(Stream& stream, const DequantizeRowsArgs& args) const {
  check_args(args);
  if (args.output.is_empty()) return;
  const Float8RowShape shape = float8_row_shape(args.output.dim(1));
  const auto blocks = static_cast<unsigned>(args.output.dim(0));
  with_element(args.output.dtype(), "dequantize_rows", [&]<class To>(To*) {
    dequantize_rows_kernel<<<blocks, threads_for_row(shape.width), 0, cuda_stream(stream).handle()>>>(
        args.rows, static_cast<std::int64_t>(args.row_bytes), shape, data_of<To>(args.output));
  });
  check_launch("dequantize_rows");
}

}  // namespace aurora::cuda
