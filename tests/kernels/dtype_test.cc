#include "kernels/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace aurora {
namespace {

TEST(DType, EveryNameParsesToItsType) {
  for (const DType dtype :
       {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt32, DType::kFloat8E4M3}) {
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_name(DType::kBFloat16), "bfloat16");
  EXPECT_EQ(parse_dtype("bf16"), std::nullopt);
  EXPECT_EQ(parse_dtype(""), std::nullopt);
}

// The value of a float16 by its definition, in double.
double float16_by_definition(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  if (exponent == 31) return sign * (mantissa == 0 ? HUGE_VAL : std::nan(""));
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(DType, EveryFloat16ConvertsExactly) {
  for (std::uint32_t bits = 0; bits <= 0xffffU; ++bits) {
    const double expected = float16_by_definition(static_cast<std::uint16_t>(bits));
    const float value = float16_to_float(static_cast<std::uint16_t>(bits));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value)) << bits;
    } else {
      EXPECT_EQ(static_cast<double>(value), expected) << bits;
      EXPECT_EQ(std::signbit(value), std::signbit(expected)) << bits;
    }
  }
}

TEST(DType, EveryBFloat16SurvivesTheWayToFloatAndBack) {
  for (std::uint32_t bits = 0; bits <= 0xffffU; ++bits) {
    const auto narrow = static_cast<std::uint16_t>(bits);
    const float value = bfloat16_to_float(narrow);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(value)))) << bits;
    } else {
      EXPECT_EQ(float_to_bfloat16(value), narrow) << bits;
    }
  }
}

TEST(DType, FloatsRoundToTheNearestBFloat16AndTiesToTheEvenOne) {
  constexpr std::uint32_t kSeed = 7;
  std::cout << "seed " << kSeed << '\n';
  std::mt19937 generator(kSeed);
  for (int i = 0; i < 100000; ++i) {
    const float value = std::bit_cast<float>(static_cast<std::uint32_t>(generator()));
    if (!std::isfinite(value)) continue;
    const auto below = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
    const auto above = static_cast<std::uint16_t>(below + 1);  // away from zero, perhaps infinite
    const std::uint32_t rest = std::bit_cast<std::uint32_t>(value) & 0xffffU;
    const bool rounds_away = rest > 0x8000U || (rest == 0x8000U && (below & 1U) == 1U);
    EXPECT_EQ(float_to_bfloat16(value), rounds_away ? above : below) << value;
  }
  EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(0x3f808000U)), 0x3f80);  // a tie, down to even
  EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(0x3f818000U)), 0x3f82);  // a tie, up to even
  EXPECT_EQ(float_to_bfloat16(std::numeric_limits<float>::infinity()), 0x7f80);
  EXPECT_EQ(float_to_bfloat16(std::numeric_limits<float>::max()), 0x7f80);
}

}  // namespace
}  // namespace aurora
