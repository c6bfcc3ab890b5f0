// Rows of floats in either storage type, read and written sixteen at a time. Building blocks of the
// operations that move rows; everything is inlined (simd.h).
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/dtype.h"

namespace aurora::cpu {

AURORA_INLINE Float16x load_lanes(const float* source, std::int64_t count) {
  return count >= kLanes ? load(source) : load_partial(source, count);
}

AURORA_INLINE Float16x load_lanes(const std::uint16_t* source, std::int64_t count) {
  if (count >= kLanes) return load_bfloat16(source);
  Float16x values{};
  for (std::int64_t lane = 0; lane < count; ++lane) values[lane] = bfloat16_to_float(source[lane]);
  return values;
}

AURORA_INLINE void store_lanes(float* destination, Float16x values, std::int64_t count) {
  if (count >= kLanes) return store(destination, values);
  store_partial(destination, values, count);
}

AURORA_INLINE void store_lanes(std::uint16_t* destination, Float16x values, std::int64_t count) {
  if (count >= kLanes) return store_bfloat16(destination, values);
  for (std::int64_t lane = 0; lane < count; ++lane) destination[lane] = float_to_bfloat16(values[lane]);
}

/// Copies `width` elements, converting between float and bfloat16 (std::uint16_t) where the types differ.
template <typename To, typename From>
AURORA_INLINE void copy_row(To* destination, const From* source, std::int64_t width) {
  for (std::int64_t i = 0; i < width; i += kLanes) {
    store_lanes(destination + i, load_lanes(source + i, width - i), width - i);
  }
}

}  // namespace aurora::cpu
