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
  ///
  /// Where sixteen lanes take several registers, one register's lanes are summed over all columns before the
  /// next one's, so that a tile's sums stay in registers on every instruction set.
  template <typename L, int kRows>
  AURORA_INLINE static void tile(const Gemm& args, std::int64_t row, std::int64_t column,
                                 std::int64_t num_columns) {
    const std::int64_t width = args.in_width;
    const std::int64_t full = width / kLanes * kLanes;
    const float* a = args.input + row * width;
    const float* b[4];
    for (std::int64_t j = 0; j < 4; ++j) b[j] = args.weight + (column + std::min(j, num_columns - 1)) * width;
    L sums[kRows][4];
    for (int part = 0; part < L::kParts; ++part) {
      typename L::Floats part_sums[kRows][4] = {};
      const std::int64_t shift = part * L::kPartLanes;
      for (std::int64_t k = shift; k < full; k += kLanes) {
        typename L::Floats b_values[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) std::memcpy(&b_values[j], b[j] + k, sizeof b_values[j]);
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) {
          typename L::Floats a_values;
          std::memcpy(&a_values, a + i * width + k, sizeof a_values);
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) part_sums[i][j] += a_values * b_values[j];
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sums[i][j].part[part] = part_sums[i][j];
      }
    }
    if (full < width) add_tail<L, kRows>(a + full, b, full, width, sums);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      const Float4x total = sum_lanes(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
      finish(args, row + i, column, num_columns, total);
    }
  }

  /// The last width - full < 16 columns.
  template <typename L, int kRows>
  AURORA_INLINE static void add_tail(const float* a, const float* const* b, std::int64_t full,
                                     std::int64_t width, L (&sums)[kRows][4]) {
    for (int j = 0; j < 4; ++j) {
      const L b_values = L::load_partial(b[j] + full, width - full);
      for (int i = 0; i < kRows; ++i) {
        sums[i][j] += L::load_partial(a + i * width, width - full) * b_values;
      }
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
  template <typename L>
  AURORA_INLINE static void run(const Gemm* args) {
    constexpr std::int64_t kBlockFloats = 32 * 1024;   // 128 KiB, half of the smallest common L2 cache
    constexpr int kTileRows = L::kParts == 1 ? 4 : 3;  // 4 * kTileRows sums: half of 32 registers, most of 16
    const std::int64_t fitting = kBlockFloats / std::max<std::int64_t>(args->in_width, 1);
    const std::int64_t block = std::max(fitting / kTileRows, std::int64_t{1}) * kTileRows;
    for (std::int64_t begin = 0; begin < args->num_rows; begin += block) {
      const std::int64_t end = std::min(begin + block, args->num_rows);
      for (std::int64_t column = 0; column < args->out_width; column += 4) {
        const std::int64_t num_columns = std::min<std::int64_t>(4, args->out_width - column);
        std::int64_t row = begin;
        for (; row + kTileRows <= end; row += kTileRows) tile<L, kTileRows>(*args, row, column, num_columns);
        if (kTileRows > 3 && end - row == 3) tile<L, 3>(*args, row, column, num_columns);
        if (end - row == 2) tile<L, 2>(*args, row, column, num_columns);
        if (end - row == 1) tile<L, 1>(*args, row, column, num_columns);
      }
    }
  }
};

}  // namespace aurora::cpu
