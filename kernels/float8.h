// Rows of 8-bit floats with scales: the numbers, and how a row of them lies in memory.
//
// The number is E4M3 of "FP8 Formats for Deep Learning" (Micikevicius et al., arXiv 2209.05433): exponent
// bias 7, subnormals of 2^-9, largest finite value 448, no infinities, and of each sign one NaN, all ones.
//
// A row is cut into groups of 128 columns, the last perhaps shorter; each has a float32 scale, and a value is
// its number times that: the scale puts the largest finite magnitude of the group at 448. So a value is off
// by at most 2^-4 of itself or 2^-10 of the scale, whichever is more. A group of zeros stays zeros. What is
// not finite comes out as NaN, of the same sign, and leaves its group alone: an overflow stays visible and
// does not spread. Magnitudes below 2^-126 may become zero: no scale is smaller.
//
// In memory: [width] E4M3, padding to 4 bytes, [float8_groups(width)] float32 scales.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace aurora {

/// Columns that share a scale.
inline constexpr std::int64_t kFloat8Group = 128;
inline constexpr float kLargestE4M3 = 448;
inline constexpr float kSmallestFloat8Scale = 0x1p-126F;  // of float32's normal numbers

constexpr std::int64_t float8_groups(std::int64_t width) { return (width + kFloat8Group - 1) / kFloat8Group; }
/// Where the scales of a row begin, in bytes.
constexpr std::size_t float8_scales_offset(std::int64_t width) {
  return static_cast<std::size_t>(width + 3) / 4 * 4;
}

/// Bytes of `width` values on the wire, scales included where the type has them.
constexpr std::size_t wire_bytes(std::int64_t width, DType dtype) {
  if (dtype != DType::kFloat8E4M3) return static_cast<std::size_t>(width) * dtype_bytes(dtype);
  return float8_scales_offset(width) + static_cast<std::size_t>(float8_groups(width)) * sizeof(float);
}

/// Of a group whose largest finite magnitude is `largest`.
constexpr float float8_scale(float largest) {
  const float scale = largest / kLargestE4M3;
  return scale > kSmallestFloat8Scale ? scale : kSmallestFloat8Scale;
}

/// Rounds to nearest, ties to even; magnitudes above 448 become 448, what is not finite becomes NaN.
constexpr std::uint8_t float_to_e4m3(float value) {
  constexpr std::uint32_t kNan = 0x7f;
  constexpr std::uint32_t kLargest = 0x7e;
  constexpr std::uint32_t kInfinity = 0x7f800000U;
  constexpr std::uint32_t kSmallestNormal = 0x3c800000U;  // 2^-6
  constexpr float kSubnormalMagic = 0x1p14F;              // its unit in the last place is 2^-9
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  // Twenty bits of mantissa go; the exponent's bias falls from 127 to 7.
  const std::uint32_t rounded = (magnitude + 0x7ffffU + ((magnitude >> 20) & 1U)) >> 20;
  const std::uint32_t normal = rounded - (120U << 3) < kLargest ? rounded - (120U << 3) : kLargest;
  const float aligned = std::bit_cast<float>(magnitude < kSmallestNormal ? magnitude : 0U) + kSubnormalMagic;
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(aligned) - std::bit_cast<std::uint32_t>(kSubnormalMagic);
  const std::uint32_t finite = magnitude < kSmallestNormal ? subnormal : normal;
  return static_cast<std::uint8_t>(((bits >> 24) & 0x80U) | (magnitude < kInfinity ? finite : kNan));
}

/// Exact: every E4M3 is a float32.
constexpr float e4m3_to_float(std::uint8_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80U) << 24;
  const std::uint32_t magnitude = bits & 0x7fU;
  if (magnitude == 0x7fU) return std::bit_cast<float>(sign | 0x7fc00000U);
  // As a float32 of the same digits it is 2^120 times too small.
  const float value = std::bit_cast<float>(magnitude << 20) * 0x1p120F;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

}  // namespace aurora
