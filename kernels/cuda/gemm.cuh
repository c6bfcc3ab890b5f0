// Products with a transposed weight matrix: through cuBLAS, or in a fixed order of our own.
#pragma once

#include "kernels/cuda/cuda_stream.h"
#include "kernels/tensor.h"

namespace aurora::cuda {

/// output = input * weight^T + beta * output, float32 accumulation. input and weight have one dtype, float32
/// or bfloat16; output has that dtype or float32.
struct Gemm {
  const std::byte* input = nullptr;   // [num_rows, in_width]
  const std::byte* weight = nullptr;  // [out_width, in_width]
  std::byte* output = nullptr;        // [num_rows, out_width]
  DType dtype = DType::kFloat32;      // of input and weight
  DType output_dtype = DType::kFloat32;
  std::int64_t num_rows = 0;
  std::int64_t in_width = 0;
  std::int64_t out_width = 0;
  bool accumulate = false;  // beta is 1
};

enum class GemmOrder : std::uint8_t {
  kAny,    // cuBLAS: the order of sums, and so the last bits, may depend on the number of rows
  kFixed,  // every element is one sum over the inner dimension in ascending order
};

void gemm(CudaStream& stream, const Gemm& product, GemmOrder order);

}  // namespace aurora::cuda
