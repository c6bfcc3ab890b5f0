// A GEMM made of dot products, for weights that are stored one row per output and used too few times to be
// worth repacking.
//
// Each output element has sixteen partial sums: lane l adds the products of columns l, l + 16, l + 32, ... in
// that order, and the lanes are added at the end by the tree of sum_lanes(). No element's sum depends on its
// neighbours, so the tiles below only decide how often a value is loaded.
//
// Included by the two files that compile it, with and without contraction into fused multiply-adds; hence the
// template parameter, which keeps their functions apart.
#pragma once

#include <algorithm>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

namespace aurora::cpu {

template <typename Variant>
struct DotProductGemm {
  /// The sums of kRows x 4 output elements; `num_columns` < 4 repeats the last column in the unused places.
  template <int kRows>
  AURORA_INLINE static void tile(const Gemm& args, std::int64_t row, std::int64_t column,
                                 std::int64_t num_columns) {
    const std::int64_t k_end = args.in_width;
    const float* a = args.input + row * k_end;
    const float* b[4];
    for (std::int64_t j = 0; j < 4; ++j) b[j] = args.weight + (column + std::min(j, num_columns - 1)) * k_end;
    Float16x sums[kRows][4] = {};
    std::int64_t k = 0;
    for (; k + kLanes <= k_end; k += kLanes) {
      const Float16x b_values[4] = {load(b[0] + k), load(b[1] + k), load(b[2] + k), load(b[3] + k)};
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        const Float16x a_values = load(a + i * k_end + k);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sums[i][j] += a_values * b_values[j];
      }
    }
    if (k < k_end) {
      for (int i = 0; i < kRows; ++i) {
        const Float16x a_values = load_partial(a + i * k_end + k, k_end - k);
        for (int j = 0; j < 4; ++j) sums[i][j] += a_values * load_partial(b[j] + k, k_end - k);
      }
    }
    for (int i = 0; i < kRows; ++i) {
      const Float4x total = sum_lanes(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
      finish(args, row + i, column, num_columns, total);
    }
  }

  AURORA_INLINE static void finish(const Gemm& args, std::int64_t row, std::int64_t column,
                                   std::int64_t num_columns, Float4x total) {
    float* output = args.output + row * args.out_width + column;
    if (num_columns == 4) {
      Float4x term;
      if (args.bias != nullptr) {
        std::memcpy(&term, args.bias + column, sizeof term);
        total += term;
      }
      if (args.accumulate) {
        std::memcpy(&term, output, sizeof term);
        total += term;
      }
      std::memcpy(output, &total, sizeof total);
      return;
    }
    for (std::int64_t j = 0; j < num_columns; ++j) {
      float value = total[j];
      if (args.bias != nullptr) value += args.bias[column + j];
      if (args.accumulate) value += output[j];
      output[j] = value;
    }
  }

  /// Weights stream through once per block of rows; the block's inputs stay in the second-level cache.
  AURORA_INLINE static void run(const Gemm* args) {
    constexpr std::int64_t kBlockFloats = 32 * 1024;  // 128 KiB, a quarter of the smallest common L2 cache
    constexpr std::int64_t kTileRows = 4;
    const std::int64_t fitting = kBlockFloats / std::max<std::int64_t>(args->in_width, 1);
    const std::int64_t block = std::max(fitting / kTileRows, std::int64_t{1}) * kTileRows;
    for (std::int64_t begin = 0; begin < args->num_rows; begin += block) {
      const std::int64_t end = std::min(begin + block, args->num_rows);
      for (std::int64_t column = 0; column < args->out_width; column += 4) {
        const std::int64_t num_columns = std::min<std::int64_t>(4, args->out_width - column);
        std::int64_t row = begin;
        for (; row + 4 <= end; row += 4) tile<4>(*args, row, column, num_columns);
        if (end - row == 3) tile<3>(*args, row, column, num_columns);
        if (end - row == 2) tile<2>(*args, row, column, num_columns);
        if (end - row == 1) tile<1>(*args, row, column, num_columns);
      }
    }
  }
};

}  // namespace aurora::cpu
