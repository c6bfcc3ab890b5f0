// Rows moved by blocks, several elements at a time where alignment allows; shared by the kernels that move
// whole rows.
//
// Many rows have a block each, or as many blocks as their width needs; few rows are cut over more blocks, so
// that all of the GPU waits for memory at the same time.
#pragma once

#include <algorithm>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/device_properties.h"

namespace aurora::cuda {

/// Neighbouring elements, which move 16 bytes an instruction.
template <class T, int kCount>
struct alignas(std::min<std::size_t>(16, sizeof(T) * kCount)) Elements {
  T part[kCount];
};

template <int kCount, class T>
__device__ Elements<T, kCount> load_elements(const T* from) {
  return *reinterpret_cast<const Elements<T, kCount>*>(from);
}

template <int kCount, class T>
__device__ void store_elements(const Elements<T, kCount>& values, T* to) {
  *reinterpret_cast<Elements<T, kCount>*>(to) = values;
}

template <int kCount, class T>
bool are_elements_aligned(const T* data) {
  return reinterpret_cast<std::uintptr_t>(data) % alignof(Elements<T, kCount>) == 0;
}

/// The launch: `blocks_per_row` blocks for each row.
struct RowBlocks {
  unsigned threads;
  unsigned blocks_per_row;
  bool are_few;  // all of them run at once
};

/// For rows of `num_parts` parts, of which a thread has one, or up to `parts_per_thread` of many rows.
inline RowBlocks blocks_of_rows(std::int64_t num_rows, std::int64_t num_parts,
                                std::int64_t parts_per_thread = 1) {
  constexpr std::int64_t kMostThreads = 256;
  constexpr std::int64_t kSideBySide = 4;  // blocks of most threads on a multiprocessor, at 64 registers
  const std::int64_t num_multiprocessors = current_device().num_multiprocessors;
  const auto divide_up = [](std::int64_t count, std::int64_t by) { return (count + by - 1) / by; };
  std::int64_t threads = kMostThreads;
  if (num_rows * divide_up(num_parts, threads) <= kSideBySide * num_multiprocessors) {
    while (threads > kWarp &&
           (num_parts <= threads / 2 || num_rows * divide_up(num_parts, threads) < num_multiprocessors)) {
      threads /= 2;
    }
    return {static_cast<unsigned>(threads), static_cast<unsigned>(divide_up(num_parts, threads)), true};
  }
  const std::int64_t blocks_per_row = divide_up(num_parts, kMostThreads * parts_per_thread);
  const std::int64_t warps = divide_up(num_parts, blocks_per_row * parts_per_thread * kWarp);
  return {static_cast<unsigned>(warps * kWarp), static_cast<unsigned>(blocks_per_row), false};
}

/// What a thread has of its row: the parts first, first + stride, ...
struct RowShare {
  std::int64_t row;
  std::int64_t first;
  std::int64_t stride;
};

__device__ inline RowShare row_share(unsigned blocks_per_row) {
  return {blockIdx.x / blocks_per_row,
          static_cast<std::int64_t>(blockIdx.x % blocks_per_row) * blockDim.x + threadIdx.x,
          static_cast<std::int64_t>(blocks_per_row) * blockDim.x};
}

/// Parts of a row that a thread has under way at once: enough, over all threads, to keep memory busy.
inline constexpr int kPartsInFlight = 4;

/// What a thread has read of its row, at most kPartsInFlight vectors.
template <class T, int kVector>
struct RowParts {
  Elements<T, kVector> part[kPartsInFlight];
};

/// Reads the share of `width` elements, a multiple of kVector; the row is aligned to as many.
template <int kVector, class From>
__device__ RowParts<From, kVector> load_row(const From* source, std::int64_t width, const RowShare& share) {
  RowParts<From, kVector> values;
#pragma unroll
  for (int i = 0; i < kPartsInFlight; ++i) {
    const std::int64_t part = share.first + i * share.stride;
    if (part < width / kVector) values.part[i] = load_elements<kVector>(source + part * kVector);
  }
  return values;
}

/// Writes what `load_row` read, converted; the row is aligned to kVector elements.
template <class From, class To, int kVector>
__device__ void store_row(const RowParts<From, kVector>& values, To* destination, std::int64_t width,
                          const RowShare& share) {
#pragma unroll
  for (int i = 0; i < kPartsInFlight; ++i) {
    const std::int64_t part = share.first + i * share.stride;
    if (part >= width / kVector) break;
    Elements<To, kVector> converted;
    for (int v = 0; v < kVector; ++v) converted.part[v] = convert<To>(values.part[i].part[v]);
    store_elements(converted, destination + part * kVector);
  }
}

/// Copies the share of `width` elements, a multiple of kVector; both rows are aligned to as many.
template <class From, class To, int kVector>
__device__ void copy_row(const From* source, To* destination, std::int64_t width, const RowShare& share) {
  store_row(load_row<kVector>(source, width, share), destination, width, share);
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

/// Whether rows of From can be read, and rows of To be written, `kCount` elements at a time.
template <int kCount, class From, class To>
bool allows_vectors(const RowPlaces& places) {
  return places.width % kCount == 0 && places.input_stride % kCount == 0 &&
         places.output_row_bytes % static_cast<std::int64_t>(alignof(Elements<To, kCount>)) == 0 &&
         are_elements_aligned<kCount>(static_cast<const From*>(places.input)) &&
         are_elements_aligned<kCount>(static_cast<const To*>(places.output));
}

}  // namespace aurora::cuda
