// Checks of CUDA and cuBLAS calls. CUDA's types stay inside kernels/cuda/ (and runtime/transport/nccl_*).
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <source_location>
#include <string_view>

#include "kernels/error.h"

namespace aurora::cuda {

/// Throws kDevice naming `what`, CUDA's name of the error and its words. A launch's own errors are collected
/// with `check_cuda(cudaGetLastError(), "NAME launch")`.
void check_cuda(cudaError_t status, std::string_view what,
                std::source_location where = std::source_location::current());
void check_cublas(cublasStatus_t status, std::string_view what,
                  std::source_location where = std::source_location::current());

}  // namespace aurora::cuda
