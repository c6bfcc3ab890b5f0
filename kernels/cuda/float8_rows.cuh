// Rows into 8-bit floats with scales (kernels/float8.h), inside kernels that move whole rows.
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda/device_math.cuh"
#include "kernels/float8.h"

namespace aurora::cuda {

/// Where a row's parts lie; the host fills it in.
struct Float8RowShape {
  std::int64_t width;
  std::int64_t num_groups;
  std::int64_t scales_offset;  // bytes
};

inline Float8RowShape float8_row_shape(std::int64_t width) {
  return {width, float8_groups(width), static_cast<std::int64_t>(float8_scales_offset(width))};
}

/// As float_to_e4m3 of float8.h, to the bit.
__device__ inline std::uint8_t to_e4m3(float value) {
  constexpr std::uint8_t kNan = 0x7f;
  if (!isfinite(value)) return static_cast<std::uint8_t>(kNan | (signbit(value) ? 0x80 : 0));
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}

__device__ inline float e4m3_value(std::uint8_t bits) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(bits, __NV_E4M3)));
}

__device__ inline float warp_max(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0U, value, offset));
  }
  return value;
}

/// All warps of the block take the groups of a row in turns. `output` is aligned to 4 bytes.
template <class From>
__device__ void quantize_row(const From* input, std::byte* output, const Float8RowShape& shape) {
  constexpr int kParts = kFloat8Group / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  auto* numbers = reinterpret_cast<std::uint8_t*>(output);
  auto* scales = reinterpret_cast<float*>(output + shape.scales_offset);
  for (std::int64_t group = threadIdx.x / kWarp; group < shape.num_groups; group += blockDim.x / kWarp) {
    const std::int64_t first = group * kFloat8Group + lane;
    float values[kParts];
    float largest = 0;
    for (int part = 0; part < kParts; ++part) {
      const std::int64_t column = first + part * kWarp;
      values[part] = column < shape.width ? to_float(input[column]) : 0.0F;
      if (isfinite(values[part])) largest = fmaxf(largest, fabsf(values[part]));
    }
    const float scale = fmaxf(warp_max(largest) / kLargestE4M3, kSmallestFloat8Scale);
    for (int part = 0; part < kParts; ++part) {
      const std::int64_t column = first + part * kWarp;
      if (column < shape.width) numbers[column] = to_e4m3(values[part] / scale);
    }
    if (lane == 0) scales[group] = scale;
  }
}

}  // namespace aurora::cuda
