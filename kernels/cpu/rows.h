// Rows of floats in either storage type, read and written sixteen at a time. Building blocks of the
// operations that move rows; everything is inlined (simd.h).
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/dtype.h"

namespace aurora::cpu {

/// The next `count` elements, at most sixteen of them; missing lanes are 0.
template <typename L>
AURORA_INLINE L load_lanes(const float* source, std::int64_t count) {
  return count >= kLanes ? L::load(source) : L::load_partial(source, count);
}

template <typename L>
AURORA_INLINE L load_lanes(const std::uint16_t* source, std::int64_t count) {
  if (count >= kLanes) return L::load_bfloat16(source);
  float buffer[kLanes] = {};
  for (std::int64_t lane = 0; lane < count; ++lane) buffer[lane] = bfloat16_to_float(source[lane]);
  return L::load(buffer);
}

template <typename L>
AURORA_INLINE void store_lanes(float* destination, const L& values, std::int64_t count) {
  if (count >= kLanes) return values.store(destination);
  values.store_partial(destination, count);
}

template <typename L>
AURORA_INLINE void store_lanes(std::uint16_t* destination, const L& values, std::int64_t count) {
  if (count >= kLanes) return values.store_bfloat16(destination);
  float buffer[kLanes];
  values.store(buffer);
  for (std::int64_t lane = 0; lane < count; ++lane) destination[lane] = float_to_bfloat16(buffer[lane]);
}

/// Copies `width` elements, converting between float and bfloat16 (std::uint16_t) where the types differ.
template <typename L, typename To, typename From>
AURORA_INLINE void copy_row(To* destination, const From* source, std::int64_t width) {
  for (std::int64_t i = 0; i < width; i += kLanes) {
    store_lanes(destination + i, load_lanes<L>(source + i, width - i), width - i);
  }
}

}  // namespace aurora::cpu
