// Element types, and the conversions between the 16-bit floats and float32.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace aurora {

enum class DType : std::uint8_t { kFloat32, kBFloat16, kFloat16, kInt32, kFloat8E4M3 };

constexpr std::size_t dtype_bytes(DType dtype) {
  if (dtype == DType::kFloat8E4M3) return 1;
  return dtype == DType::kFloat32 || dtype == DType::kInt32 ? 4 : 2;
}

/// "float32", "bfloat16", "float16", "int32", "float8_e4m3": the names used in configuration files and
/// reports.
std::string_view dtype_name(DType dtype);
std::optional<DType> parse_dtype(std::string_view name);

/// Exact: every bfloat16 is a float32.
constexpr float bfloat16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Rounds to nearest, ties to even; NaN stays NaN.
constexpr std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

/// Exact: every float16, subnormals included, is a float32.
float float16_to_float(std::uint16_t bits);

}  // namespace aurora
