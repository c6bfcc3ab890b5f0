// Sixteen floats at a time, on any instruction set.
//
// `Float16x` is a compiler vector of 16 lanes: one AVX-512 register, two AVX2 or four SSE2 registers. A
// kernel written with it does the same arithmetic lane by lane on all three, and sums of lanes follow one
// fixed tree, so results do not depend on the machine. Everything here is inlined into its caller and so
// compiled for the caller's instruction set (isa.h).
#pragma once

#include <cstdint>
#include <cstring>

namespace aurora::cpu {

inline constexpr std::int64_t kLanes = 16;

using Float16x = float __attribute__((vector_size(64)));
using Int16x = std::int32_t __attribute__((vector_size(64)));
using UInt16x = std::uint32_t __attribute__((vector_size(64)));
using UShort16x = std::uint16_t __attribute__((vector_size(32)));
using Float8x = float __attribute__((vector_size(32)));
using Float4x = float __attribute__((vector_size(16)));

#define AURORA_INLINE [[gnu::always_inline]] inline

AURORA_INLINE Float16x splat(float value) { return Float16x{} + value; }

AURORA_INLINE Float16x load(const float* source) {
  Float16x values;
  std::memcpy(&values, source, sizeof values);
  return values;
}

AURORA_INLINE void store(float* destination, Float16x values) {
  std::memcpy(destination, &values, sizeof values);
}

/// The first `count` < 16 lanes; the others are `fill`.
AURORA_INLINE Float16x load_partial(const float* source, std::int64_t count, float fill = 0) {
  Float16x values = splat(fill);
  for (std::int64_t lane = 0; lane < count; ++lane) values[lane] = source[lane];
  return values;
}

AURORA_INLINE void store_partial(float* destination, Float16x values, std::int64_t count) {
  for (std::int64_t lane = 0; lane < count; ++lane) destination[lane] = values[lane];
}

AURORA_INLINE Float4x fold_to_four(Float16x v) {
  const Float8x low = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
  const Float8x high = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  const Float8x eight = low + high;
  return __builtin_shufflevector(eight, eight, 0, 1, 2, 3) +
         __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
}

/// Lane i is the sum of the lanes of the i-th argument. Lanes l and l + 8 are added first, then l and l + 4,
/// then l and l + 2, then the last two.
AURORA_INLINE Float4x sum_lanes(Float16x a, Float16x b, Float16x c, Float16x d) {
  const Float4x a4 = fold_to_four(a);
  const Float4x b4 = fold_to_four(b);
  const Float4x c4 = fold_to_four(c);
  const Float4x d4 = fold_to_four(d);
  const Float4x ab =
      __builtin_shufflevector(a4, b4, 0, 1, 4, 5) + __builtin_shufflevector(a4, b4, 2, 3, 6, 7);
  const Float4x cd =
      __builtin_shufflevector(c4, d4, 0, 1, 4, 5) + __builtin_shufflevector(c4, d4, 2, 3, 6, 7);
  return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

AURORA_INLINE float sum_lanes(Float16x a) {
  const Float4x a4 = fold_to_four(a);
  return (a4[0] + a4[2]) + (a4[1] + a4[3]);
}

AURORA_INLINE Float16x max(Float16x a, Float16x b) { return a > b ? a : b; }
AURORA_INLINE Float16x min(Float16x a, Float16x b) { return a < b ? a : b; }

AURORA_INLINE float max_lane(Float16x v) {
  float largest = v[0];
  for (int lane = 1; lane < kLanes; ++lane) largest = v[lane] > largest ? v[lane] : largest;
  return largest;
}

/// exp(x) within 2 units in the last place (tests/kernels/simd_test.cc tries every float32). Results below
/// the smallest normal number become 0, above the largest infinity; NaN stays NaN.
///
/// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2. ln 2 is subtracted in two parts, the
/// first with so few bits that n * part is exact (Cody and Waite); the polynomial is that of Cephes' expf.
AURORA_INLINE Float16x exp(Float16x x) {
  const Float16x lowest = splat(-87.3365448F);  // ln of the smallest normal float32, 2^-126
  const Float16x highest = splat(88.7228394F);  // ln of the largest finite float32
  const Float16x shift = splat(0x1.8p23F);  // adding it rounds to an integer, which is left in the low bits
  const Float16x clamped = min(max(x, lowest), highest);
  const Float16x shifted = clamped * 1.44269504F + shift;
  const Float16x n = shifted - shift;
  const Float16x r = (clamped - n * 0.693359375F) - n * -2.12194440e-4F;
  Float16x p = splat(1.9875691500e-4F);
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = (p * r) * r + r + 1.0F;
  // 2^n in two factors, since n reaches 128, which is no exponent of a finite float32.
  Int16x exponent;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  exponent -= 0x4b400000;
  const Int16x first = exponent >> 1;
  const Int16x first_bits = (first + 127) << 23;
  const Int16x second_bits = (exponent - first + 127) << 23;
  Float16x first_factor;
  Float16x second_factor;
  std::memcpy(&first_factor, &first_bits, sizeof first_factor);
  std::memcpy(&second_factor, &second_bits, sizeof second_factor);
  const Float16x result = (p * first_factor) * second_factor;
  const Float16x bounded = x < lowest ? Float16x{} : (x > highest ? splat(__builtin_inff()) : result);
  return x != x ? x : bounded;
}

AURORA_INLINE Float16x sigmoid(Float16x x) { return 1.0F / (1.0F + exp(-x)); }

/// x * sigmoid(x)
AURORA_INLINE Float16x silu(Float16x x) { return x / (1.0F + exp(-x)); }

/// bfloat16 lanes as float32; exact.
AURORA_INLINE Float16x load_bfloat16(const std::uint16_t* source) {
  UShort16x narrow;
  std::memcpy(&narrow, source, sizeof narrow);
  const UInt16x bits = __builtin_convertvector(narrow, UInt16x) << 16;
  Float16x values;
  std::memcpy(&values, &bits, sizeof values);
  return values;
}

/// Rounds to nearest, ties to even, as float_to_bfloat16 does; NaN stays NaN.
AURORA_INLINE void store_bfloat16(std::uint16_t* destination, Float16x values) {
  UInt16x bits;
  std::memcpy(&bits, &values, sizeof bits);
  const UInt16x rounded = (bits + (0x7fffU + ((bits >> 16) & 1U))) >> 16;
  const UInt16x quiet = (bits >> 16) | 0x40U;
  const UInt16x chosen = values != values ? quiet : rounded;
  const UShort16x narrow = __builtin_convertvector(chosen, UShort16x);
  std::memcpy(destination, &narrow, sizeof narrow);
}

}  // namespace aurora::cpu
