#include "kernels/dtype.h"

#include <array>
#include <utility>

namespace aurora {
namespace {

constexpr std::array<std::pair<DType, std::string_view>, 5> kNames{{{DType::kFloat32, "float32"},
                                                                    {DType::kBFloat16, "bfloat16"},
                                                                    {DType::kFloat16, "float16"},
                                                                    {DType::kInt32, "int32"},
                                                                    {DType::kFloat8E4M3, "float8_e4m3"}}};

}  // namespace

std::string_view dtype_name(DType dtype) {
  for (const auto& [candidate, name] : kNames) {
    if (candidate == dtype) return name;
  }
  return "unknown";
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const auto& [dtype, candidate] : kNames) {
    if (candidate == name) return dtype;
  }
  return std::nullopt;
}

float float16_to_float(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fU;
  const std::uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 0x1fU) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  if (exponent == 0) {
    // Zero or subnormal: mantissa * 2^-24, which float32 holds exactly.
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

}  // namespace aurora
