// What kernels share: element conversion, sums over warps and blocks in a fixed order, launch shapes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "kernels/cuda/check_cuda.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/tensor.h"

namespace aurora::cuda {

inline constexpr int kWarp = 32;

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

/// Between equal types every bit stays, those of a NaN too.
template <class To, class From>
__device__ inline To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else {
    return from_float<To>(to_float(value));
  }
}

/// The sum over a warp, in every lane.
__device__ inline float warp_sum(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(~0U, value, offset);
  return value;
}

/// The sum over a block of whole warps, in every thread. `scratch` holds 32 values; all threads must call.
template <class T>
__device__ T block_sum(T value, T* scratch) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(~0U, value, offset);
  const int num_warps = static_cast<int>(blockDim.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  __syncthreads();  // an earlier use of `scratch` is over
  if (lane == 0) scratch[threadIdx.x / kWarp] = value;
  __syncthreads();
  T sum = lane < num_warps ? scratch[lane] : T(0);
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0U, sum, offset);
  return sum;
}

/// exp of Hugging Face's float32: the accurate one, whatever the compiler's flags.
__device__ inline float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }
__device__ inline float silu(float x) { return x / (1.0F + expf(-x)); }
/// By the special-function units, to about 2^-21 of it: enough where the result becomes bfloat16.
__device__ inline float fast_silu(float x) { return __fdividef(x, 1.0F + __expf(-x)); }

inline unsigned blocks_for(std::int64_t count, std::int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

/// Calls `use` with a null pointer of the element type of `dtype`, float32 or bfloat16.
template <class Use>
void with_element(DType dtype, std::string_view operation, const Use& use) {
  if (dtype == DType::kFloat32) return use(static_cast<float*>(nullptr));
  check(dtype == DType::kBFloat16, std::string(operation) + ": elements are float32 or bfloat16");
  use(static_cast<__nv_bfloat16*>(nullptr));
}

template <class T>
T* data_of(const Tensor& tensor) {
  return reinterpret_cast<T*>(tensor.bytes());
}

inline void check_launch(std::string_view kernel) { check_cuda(cudaGetLastError(), kernel); }

}  // namespace aurora::cuda
