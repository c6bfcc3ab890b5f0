// Rows into 8-bit floats with scales (kernels/float8.h), inside kernels that move whole rows.
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/row_copy.cuh"
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

/// Elements that a lane has of a group: neighbouring ones where alignment allows, else ones a warp apart.
inline constexpr int kWideFloat8Vector = 8;
inline constexpr int kNarrowFloat8Vector = kFloat8Group / kWarp;

/// The largest over kLanes neighbouring lanes, in each of them.
template <int kLanes>
__device__ float largest_of_lanes(float value) {
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0U, value, offset));
  }
  return value;
}

/// One part of a row: a part is what a lane has of a group, and all lanes of a warp call, those beyond the
/// last group too. `output` is aligned to 4 bytes, and with wide vectors to these, as is `input`.
template <int kVector, class From>
__device__ void quantize_part(const From* input, std::byte* output, const Float8RowShape& shape,
                              std::int64_t part) {
  constexpr int kLanes = kFloat8Group / kVector;  // of a group
  constexpr bool kIsWide = kVector == kWideFloat8Vector;
  constexpr int kStep = kIsWide ? 1 : kLanes;
  auto* numbers = reinterpret_cast<std::uint8_t*>(output);
  auto* scales = reinterpret_cast<float*>(output + shape.scales_offset);
  const std::int64_t group = part / kLanes;
  const std::int64_t lane = part % kLanes;
  const std::int64_t column = group * kFloat8Group + (kIsWide ? lane * kVector : lane);
  Elements<From, kVector> values = {};
  if (kIsWide && column < shape.width) values = load_elements<kVector>(input + column);
  float largest = 0;
  for (int i = 0; i < kVector; ++i) {
    if (!kIsWide && column + i * kStep < shape.width) values.part[i] = input[column + i * kStep];
    const float value = to_float(values.part[i]);
    if (isfinite(value)) largest = fmaxf(largest, fabsf(value));
  }
  const float scale = fmaxf(largest_of_lanes<kLanes>(largest) / kLargestE4M3, kSmallestFloat8Scale);
  Elements<std::uint8_t, kVector> small;
  for (int i = 0; i < kVector; ++i) small.part[i] = to_e4m3(to_float(values.part[i]) / scale);
  if (kIsWide && column < shape.width) store_elements(small, numbers + column);
  for (int i = 0; !kIsWide && i < kVector; ++i) {
    if (column + i * kStep < shape.width) numbers[column + i * kStep] = small.part[i];
  }
  if (lane == 0 && group < shape.num_groups) scales[group] = scale;
}

}  // namespace aurora::cuda
