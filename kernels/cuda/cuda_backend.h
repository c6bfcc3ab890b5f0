// The CUDA backend: one GPU, chosen by `BackendOptions::device`. Device memory is cudaMalloc's, host memory
// is pinned. Every operation is the twin of the CPU's (cpu/), with float32 or bfloat16 rows and weights and
// float32 accumulation.
#pragma once

#include <memory>

#include "kernels/backend_registry.h"

namespace aurora {

/// The GPUs that this process sees.
DeviceCount visible_gpus();

/// Throws kDevice when there is no GPU, no driver, or no device of that number; the text says which.
std::unique_ptr<Backend> create_cuda_backend(const BackendOptions& options);

}  // namespace aurora
