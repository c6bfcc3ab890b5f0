// Copies rows by index: what embed and gather_rows have in common.
#pragma once

#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {

struct RowCopy {
  Tensor input;                           // [num_input_rows, at least width]
  const std::int32_t* indices = nullptr;  // [num_rows], device
  std::int64_t num_rows = 0;
  std::int64_t width = 0;  // columns to copy
  DType output_dtype = DType::kFloat32;
  std::byte* output = nullptr;  // [num_rows, output_row_bytes]
  std::int64_t output_row_bytes = 0;
  FaultSite site = FaultSite::kNone;  // reported for a bad index
};

/// Rows are float32 or bfloat16 on either side and converted when the dtypes differ.
void copy_rows(CudaStream& stream, const RowCopy& args);

}  // namespace aurora::cuda
