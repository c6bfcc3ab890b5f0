#include "kernels/cuda/check_cuda.h"

#include <string>

namespace aurora::cuda {

void check_cuda(cudaError_t status, std::string_view what, std::source_location where) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next launch would report it as its own
  throw Error(ErrorKind::kDevice,
              std::string(what) + ": " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")",
              where);
}

void check_cublas(cublasStatus_t status, std::string_view what, std::source_location where) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(
      ErrorKind::kDevice,
      std::string(what) + ": " + cublasGetStatusName(status) + " (" + cublasGetStatusString(status) + ")",
      where);
}

}  // namespace aurora::cuda
