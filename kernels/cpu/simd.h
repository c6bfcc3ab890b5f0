// Sixteen floats at a time, on any instruction set.
//
// `Lanes<kBytes>` is 16 floats in compiler vectors of kBytes each: one AVX-512 register, two AVX registers or
// four SSE2 registers. A kernel is a template over it, does the same arithmetic lane by lane with all three,
// and sums lanes by one fixed tree, so results do not depend on the machine. Everything here is inlined into
// its caller and so compiled for the caller's instruction set (isa.h).
#pragma once

#include <cstdint>
#include <cstring>

namespace aurora::cpu {

inline constexpr std::int64_t kLanes = 16;

#define AURORA_INLINE [[gnu::always_inline]] inline

using Float4x = float __attribute__((vector_size(16)));

/// Compiler vectors of one size.
template <int kBytes>
struct VectorTypes;

#define AURORA_VECTOR_TYPES(bytes)                                          \
  template <>                                                               \
  struct VectorTypes<bytes> {                                               \
    using Floats = float __attribute__((vector_size(bytes)));               \
    using Ints = std::int32_t __attribute__((vector_size(bytes)));          \
    using Words = std::uint32_t __attribute__((vector_size(bytes)));        \
    using Halves = std::uint16_t __attribute__((vector_size((bytes) / 2))); \
  };
AURORA_VECTOR_TYPES(16)
AURORA_VECTOR_TYPES(32)
AURORA_VECTOR_TYPES(64)
#undef AURORA_VECTOR_TYPES

template <int kBytes>
struct Lanes {
  static constexpr int kParts = 64 / kBytes;
  static constexpr int kPartLanes = kBytes / 4;
  using Floats = typename VectorTypes<kBytes>::Floats;
  using Ints = typename VectorTypes<kBytes>::Ints;
  using Words = typename VectorTypes<kBytes>::Words;
  using Halves = typename VectorTypes<kBytes>::Halves;

  Floats part[kParts];

  AURORA_INLINE static Lanes splat(float value) {
    Lanes lanes;
    for (Floats& floats : lanes.part) floats = Floats{} + value;
    return lanes;
  }

  AURORA_INLINE static Lanes load(const float* source) {
    Lanes lanes;
    std::memcpy(lanes.part, source, sizeof lanes.part);
    return lanes;
  }

  /// The first `count` < 16 lanes; the others are `fill`.
  AURORA_INLINE static Lanes load_partial(const float* source, std::int64_t count, float fill = 0) {
    float buffer[kLanes];
    for (float& value : buffer) value = fill;
    for (std::int64_t lane = 0; lane < count; ++lane) buffer[lane] = source[lane];
    return load(buffer);
  }

  /// bfloat16 values; exact.
  AURORA_INLINE static Lanes load_bfloat16(const std::uint16_t* source) {
    Lanes lanes;
    for (int i = 0; i < kParts; ++i) {
      Halves halves;
      std::memcpy(&halves, source + i * kPartLanes, sizeof halves);
      const Words bits = __builtin_convertvector(halves, Words) << 16;
      std::memcpy(&lanes.part[i], &bits, sizeof bits);
    }
    return lanes;
  }

  AURORA_INLINE void store(float* destination) const { std::memcpy(destination, part, sizeof part); }

  AURORA_INLINE void store_partial(float* destination, std::int64_t count) const {
    float buffer[kLanes];
    store(buffer);
    for (std::int64_t lane = 0; lane < count; ++lane) destination[lane] = buffer[lane];
  }

  /// Rounds to nearest, ties to even, as float_to_bfloat16 does; NaN stays NaN.
  AURORA_INLINE void store_bfloat16(std::uint16_t* destination) const {
    for (int i = 0; i < kParts; ++i) {
      Words bits;
      std::memcpy(&bits, &part[i], sizeof bits);
      const Words rounded = (bits + (0x7fffU + ((bits >> 16) & 1U))) >> 16;
      const Words quiet_nan = (bits >> 16) | 0x40U;
      const Words chosen = part[i] != part[i] ? quiet_nan : rounded;
      const Halves halves = __builtin_convertvector(chosen, Halves);
      std::memcpy(destination + i * kPartLanes, &halves, sizeof halves);
    }
  }

#define AURORA_LANES_OPERATOR(op)                                        \
  AURORA_INLINE friend Lanes operator op(Lanes a, const Lanes& b) {      \
    for (int i = 0; i < kParts; ++i) a.part[i] = a.part[i] op b.part[i]; \
    return a;                                                            \
  }                                                                      \
  AURORA_INLINE friend Lanes operator op(Lanes a, float b) {             \
    for (int i = 0; i < kParts; ++i) a.part[i] = a.part[i] op b;         \
    return a;                                                            \
  }                                                                      \
  AURORA_INLINE friend Lanes operator op(float a, Lanes b) {             \
    for (int i = 0; i < kParts; ++i) b.part[i] = a op b.part[i];         \
    return b;                                                            \
  }
  AURORA_LANES_OPERATOR(+)
  AURORA_LANES_OPERATOR(-)
  AURORA_LANES_OPERATOR(*)
  AURORA_LANES_OPERATOR(/)
#undef AURORA_LANES_OPERATOR

  AURORA_INLINE Lanes& operator+=(const Lanes& other) { return *this = *this + other; }
};

/// Lane by lane a > b ? a : b, which is b where either is NaN.
template <int kBytes>
AURORA_INLINE Lanes<kBytes> max(const Lanes<kBytes>& a, const Lanes<kBytes>& b) {
  Lanes<kBytes> result;
  for (int i = 0; i < result.kParts; ++i) result.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
  return result;
}

/// Lane by lane: `otherwise` where x is a number, 0 where it is NaN.
template <int kBytes>
AURORA_INLINE Lanes<kBytes> zero_where_nan(const Lanes<kBytes>& x, const Lanes<kBytes>& otherwise) {
  Lanes<kBytes> result;
  for (int i = 0; i < result.kParts; ++i) {
    result.part[i] = x.part[i] == x.part[i] ? otherwise.part[i] : typename Lanes<kBytes>::Floats{};
  }
  return result;
}

// Sums of lanes: l and l + 8 are added first, then l and l + 4, then l and l + 2, then the last two.

AURORA_INLINE Float4x fold_to_four(const Lanes<16>& v) {
  return (v.part[0] + v.part[2]) + (v.part[1] + v.part[3]);
}

AURORA_INLINE Float4x fold_to_four(const Lanes<32>& v) {
  const Lanes<32>::Floats eight = v.part[0] + v.part[1];
  return __builtin_shufflevector(eight, eight, 0, 1, 2, 3) +
         __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
}

AURORA_INLINE Float4x fold_to_four(const Lanes<64>& lanes) {
  const Lanes<64>::Floats v = lanes.part[0];
  const Lanes<32>::Floats eight = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                                  __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(eight, eight, 0, 1, 2, 3) +
         __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
}

/// Lane i is the sum of the lanes of the i-th argument.
template <int kBytes>
AURORA_INLINE Float4x sum_lanes(const Lanes<kBytes>& a, const Lanes<kBytes>& b, const Lanes<kBytes>& c,
                                const Lanes<kBytes>& d) {
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

template <int kBytes>
AURORA_INLINE float sum_lanes(const Lanes<kBytes>& a) {
  const Float4x a4 = fold_to_four(a);
  return (a4[0] + a4[2]) + (a4[1] + a4[3]);
}

/// The largest lane; NaN lanes are passed over unless all are.
template <int kBytes>
AURORA_INLINE float max_lane(const Lanes<kBytes>& v) {
  float values[kLanes];
  v.store(values);
  float largest = values[0];
  for (const float value : values) largest = value > largest || largest != largest ? value : largest;
  return largest;
}

/// exp(x) within 2 units in the last place (tests/kernels/simd_test.cc compares with double). Results below
/// the smallest normal number become 0, above the largest infinity; NaN stays NaN.
///
/// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2. ln 2 is subtracted in two parts, the
/// first with so few bits that n * part is exact (Cody and Waite); the polynomial is that of Cephes' expf.
template <int kBytes>
AURORA_INLINE typename Lanes<kBytes>::Floats exp_part(typename Lanes<kBytes>::Floats x) {
  using Floats = typename Lanes<kBytes>::Floats;
  using Ints = typename Lanes<kBytes>::Ints;
  const Floats lowest = Floats{} - 87.3365448F;   // ln of the smallest normal float32, 2^-126
  const Floats highest = Floats{} + 88.7228394F;  // ln of the largest finite float32
  const Floats infinity = Floats{} + __builtin_inff();
  const Floats above = x > lowest ? x : lowest;  // also where x is NaN
  const Floats clamped = above < highest ? above : highest;
  // Adding 1.5 * 2^23 rounds to an integer, which is left in the low bits.
  const Floats shifted = clamped * 1.44269504F + 0x1.8p23F;
  const Floats n = shifted - 0x1.8p23F;
  const Floats r = (clamped - n * 0.693359375F) - n * -2.12194440e-4F;
  Floats p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = (p * r) * r + r + 1.0F;
  // 2^n in two factors, since n reaches 128, which is no exponent of a finite float32.
  Ints exponent;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  exponent -= 0x4b400000;  // the bits of 1.5 * 2^23
  const Ints half = exponent >> 1;
  const Ints first_bits = (half + 127) << 23;
  const Ints second_bits = (exponent - half + 127) << 23;
  Floats first;
  Floats second;
  std::memcpy(&first, &first_bits, sizeof first);
  std::memcpy(&second, &second_bits, sizeof second);
  const Floats result = (p * first) * second;
  const Floats bounded = x < lowest ? Floats{} : (x > highest ? infinity : result);
  return x == x ? bounded : x;
}

template <int kBytes>
AURORA_INLINE Lanes<kBytes> exp(const Lanes<kBytes>& x) {
  Lanes<kBytes> result;
  for (int i = 0; i < result.kParts; ++i) result.part[i] = exp_part<kBytes>(x.part[i]);
  return result;
}

template <int kBytes>
AURORA_INLINE Lanes<kBytes> sigmoid(const Lanes<kBytes>& x) {
  return 1.0F / (1.0F + exp(0.0F - x));
}

/// x * sigmoid(x)
template <int kBytes>
AURORA_INLINE Lanes<kBytes> silu(const Lanes<kBytes>& x) {
  return x / (1.0F + exp(0.0F - x));
}

}  // namespace aurora::cpu
