// Descriptors of matrices for the bulk copy engine (TMA) of Hopper and later GPUs.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace aurora::cuda {

/// 128 bytes, aligned to 64. Kernels take it by value (`__grid_constant__`) or from device memory.
using TensorMap = CUtensorMap;

/// A row-major bfloat16 matrix [num_rows, row_stride] of which columns [0, width) are read, `box_rows` rows
/// by 64 columns at a time, into shared memory with the 128-byte swizzle; what lies outside is read as zero.
/// `data` must be aligned to 16 bytes, `row_stride` (elements) a multiple of 8. Throws kDevice naming the
/// shape when the driver refuses.
TensorMap make_tensor_map(const void* data, std::int64_t num_rows, std::int64_t width,
                          std::int64_t row_stride, std::uint32_t box_rows);

}  // namespace aurora::cuda
