// SwiGLU's elementwise step, shared by its operation and by the expert networks.
#pragma once

#include "kernels/cuda/cuda_stream.h"
#include "kernels/tensor.h"

namespace aurora::cuda {

/// output = silu(gate) .* up, elementwise; output may be gate or up when the dtypes agree.
void silu_multiply(CudaStream& stream, const Tensor& gate, const Tensor& up, const Tensor& output);

}  // namespace aurora::cuda
