// One row copied by one block, several elements at a time where alignment allows; shared by the kernels that
// move whole rows.
#pragma once

#include <algorithm>

#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {

/// All threads of the block copy `width` elements, a multiple of kVector; both rows are aligned to as many.
template <class From, class To, int kVector>
__device__ void copy_row(const From* source, To* destination, std::int64_t width) {
  struct alignas(sizeof(From) * kVector) FromVector {
    From part[kVector];
  };
  struct alignas(sizeof(To) * kVector) ToVector {
    To part[kVector];
  };
  const auto* from = reinterpret_cast<const FromVector*>(source);
  auto* to = reinterpret_cast<ToVector*>(destination);
  for (std::int64_t i = threadIdx.x; i < width / kVector; i += blockDim.x) {
    const FromVector values = from[i];
    ToVector converted;
    for (int v = 0; v < kVector; ++v) converted.part[v] = convert<To>(values.part[v]);
    to[i] = converted;
  }
}

/// Elements that a thread moves at once where everything is aligned: 16 bytes of the wider type.
template <class From, class To>
inline constexpr int kWideVector = 16 / static_cast<int>(std::max(sizeof(From), sizeof(To)));

struct RowPlaces {
  const void* input;
  std::int64_t input_stride;  // elements
  const void* output;
  std::int64_t output_row_bytes;
  std::int64_t width;
};

template <class From, class To>
bool allows_wide_vectors(const RowPlaces& places) {
  constexpr int kWide = kWideVector<From, To>;
  constexpr auto kToBytes = static_cast<std::int64_t>(sizeof(To) * kWide);
  return places.width % kWide == 0 && places.input_stride % kWide == 0 &&
         places.output_row_bytes % kToBytes == 0 &&
         reinterpret_cast<std::uintptr_t>(places.input) % (sizeof(From) * kWide) == 0 &&
         reinterpret_cast<std::uintptr_t>(places.output) % static_cast<std::uintptr_t>(kToBytes) == 0;
}

/// Threads of a block that copies `num_parts` vectors: whole warps, as many as help.
inline unsigned threads_for_row(std::int64_t num_parts) {
  return static_cast<unsigned>(std::clamp<std::int64_t>((num_parts + kWarp - 1) / kWarp * kWarp, kWarp, 256));
}

}  // namespace aurora::cuda
