#include "kernels/cuda/tensor_map.h"

#include <cuda_runtime.h>

#include <array>
#include <string>

#include "kernels/cuda/check_cuda.h"

namespace aurora::cuda {
namespace {

// Columns of a box: 128 bytes of bfloat16, the width of the swizzle.
constexpr cuuint32_t kBoxColumns = 64;

using Encode = decltype(&cuTensorMapEncodeTiled);

/// The driver's function, found at run time: a machine without a GPU has no driver library to link with.
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
      "cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess) {
    throw Error(ErrorKind::kDevice,
                "the driver has no cuTensorMapEncodeTiled; driver 525 or newer is needed");
  }
  return reinterpret_cast<Encode>(function);
}

}  // namespace

TensorMap make_tensor_map(const void* data, std::int64_t num_rows, std::int64_t width,
                          std::int64_t row_stride, std::uint32_t box_rows) {
  static const Encode encode = find_encode();
  const std::array<cuuint64_t, 2> size{static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(num_rows)};
  const std::array<cuuint64_t, 1> stride_bytes{static_cast<cuuint64_t>(row_stride) * 2};
  const std::array<cuuint32_t, 2> box{kBoxColumns, box_rows};
  const std::array<cuuint32_t, 2> element_stride{1, 1};
  TensorMap map;
  const CUresult status = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data),
                                 size.data(), stride_bytes.data(), box.data(), element_stride.data(),
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw Error(ErrorKind::kDevice, "the driver refuses a tensor map of " + std::to_string(num_rows) +
                                        " rows, " + std::to_string(width) + " of " +
                                        std::to_string(row_stride) + " columns (error " +
                                        std::to_string(status) + ")");
  }
  return map;
}

}  // namespace aurora::cuda
