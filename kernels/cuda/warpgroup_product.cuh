// The product of a warpgroup: 64 rows by kColumns columns, 16 deep, bfloat16 in, float32 sums.
//
// sums += A B^T with A [64, 16] and B [kColumns, 16] in shared memory, both in rows of 128 bytes (64
// elements) with the copy engine's 128-byte swizzle, eight rows to 1024 bytes. A thread holds, of the sums,
// rows 16 warp + lane / 4 + {0, 8} (warp: of the warpgroup) and columns 8 j + 2 (lane % 4) + {0, 1}: element
// 4 j + 2 i + c is row + 8 i, column + c.
//
// PTX ISA 8.7, section 9.7.15. The instruction is asynchronous: `begin_products`, any number of products,
// `commit_products`, `wait_for_products`; the sums are not touched in between.
#pragma once

#include "kernels/cuda/hopper.cuh"

namespace aurora::cuda {

/// A matrix in shared memory, aligned to 1024 bytes, as the instruction reads it.
__device__ inline std::uint64_t matrix_descriptor(SharedAddress matrix) {
  constexpr std::uint64_t kEightRows = 1024 >> 4;
  constexpr std::uint64_t kSwizzle128 = 1;
  return (static_cast<std::uint64_t>(matrix & 0x3FFFF) >> 4) | (std::uint64_t{1} << 16) | (kEightRows << 32) |
         (kSwizzle128 << 62);
}

/// The same matrix 16 columns further on.
__device__ inline std::uint64_t next_16_columns(std::uint64_t descriptor, int steps) {
  return descriptor + static_cast<std::uint64_t>(steps) * (32 >> 4);
}

__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Returns when all but the last `kLeft` groups are done.
template <int kLeft>
__device__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}

/// Keeps the compiler from reading the sums before this point.
template <int kCount>
__device__ void settle(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// clang-format off
// Operands %0 ... of the instruction: the sums, by eights.
#define AURORA_SUMS_4(s, i) "+f"(s[i]), "+f"(s[i + 1]), "+f"(s[i + 2]), "+f"(s[i + 3])
#define AURORA_SUMS_8(s, i) AURORA_SUMS_4(s, i), AURORA_SUMS_4(s, i + 4)
#define AURORA_SUMS_16(s, i) AURORA_SUMS_8(s, i), AURORA_SUMS_8(s, i + 8)
#define AURORA_SUMS_32(s, i) AURORA_SUMS_16(s, i), AURORA_SUMS_16(s, i + 16)
#define AURORA_SUMS_64(s, i) AURORA_SUMS_32(s, i), AURORA_SUMS_32(s, i + 32)
#define AURORA_NAMES_4 "%0, %1, %2, %3"
#define AURORA_NAMES_8 AURORA_NAMES_4 ", %4, %5, %6, %7"
#define AURORA_NAMES_12 AURORA_NAMES_8 ", %8, %9, %10, %11"
#define AURORA_NAMES_16 AURORA_NAMES_12 ", %12, %13, %14, %15"
#define AURORA_NAMES_20 AURORA_NAMES_16 ", %16, %17, %18, %19"
#define AURORA_NAMES_24 AURORA_NAMES_20 ", %20, %21, %22, %23"
#define AURORA_NAMES_28 AURORA_NAMES_24 ", %24, %25, %26, %27"
#define AURORA_NAMES_32 AURORA_NAMES_28 ", %28, %29, %30, %31"
#define AURORA_NAMES_36 AURORA_NAMES_32 ", %32, %33, %34, %35"
#define AURORA_NAMES_40 AURORA_NAMES_36 ", %36, %37, %38, %39"
#define AURORA_NAMES_44 AURORA_NAMES_40 ", %40, %41, %42, %43"
#define AURORA_NAMES_48 AURORA_NAMES_44 ", %44, %45, %46, %47"
#define AURORA_NAMES_52 AURORA_NAMES_48 ", %48, %49, %50, %51"
#define AURORA_NAMES_56 AURORA_NAMES_52 ", %52, %53, %54, %55"
#define AURORA_NAMES_60 AURORA_NAMES_56 ", %56, %57, %58, %59"
#define AURORA_NAMES_64 AURORA_NAMES_60 ", %60, %61, %62, %63"
#define AURORA_NAMES_68 AURORA_NAMES_64 ", %64, %65, %66, %67"
#define AURORA_NAMES_72 AURORA_NAMES_68 ", %68, %69, %70, %71"
#define AURORA_NAMES_76 AURORA_NAMES_72 ", %72, %73, %74, %75"
#define AURORA_NAMES_80 AURORA_NAMES_76 ", %76, %77, %78, %79"
#define AURORA_PRODUCT(columns, names, a, b, ...)                                                      \
  if constexpr (kColumns == columns)                                                                   \
    asm volatile("{ .reg .pred adds; setp.eq.u32 adds, 0, 0; "                                         \
                 "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.bf16.bf16 {" names "}, %" #a    \
                 ", %" #b ", adds, 1, 1, 0, 0; }"                                                      \
                 : __VA_ARGS__                                                                         \
                 : "l"(rows), "l"(columns_matrix))
// clang-format on

/// sums += A B^T
template <int kColumns>
__device__ void multiply_16(float (&sums)[kColumns / 2], std::uint64_t rows, std::uint64_t columns_matrix) {
  static_assert(kColumns % 8 == 0 && 8 <= kColumns && kColumns <= 160);
  AURORA_PRODUCT(8, AURORA_NAMES_4, 4, 5, AURORA_SUMS_4(sums, 0));
  AURORA_PRODUCT(16, AURORA_NAMES_8, 8, 9, AURORA_SUMS_8(sums, 0));
  AURORA_PRODUCT(24, AURORA_NAMES_12, 12, 13, AURORA_SUMS_8(sums, 0), AURORA_SUMS_4(sums, 8));
  AURORA_PRODUCT(32, AURORA_NAMES_16, 16, 17, AURORA_SUMS_16(sums, 0));
  AURORA_PRODUCT(40, AURORA_NAMES_20, 20, 21, AURORA_SUMS_16(sums, 0), AURORA_SUMS_4(sums, 16));
  AURORA_PRODUCT(48, AURORA_NAMES_24, 24, 25, AURORA_SUMS_16(sums, 0), AURORA_SUMS_8(sums, 16));
  AURORA_PRODUCT(56, AURORA_NAMES_28, 28, 29, AURORA_SUMS_16(sums, 0), AURORA_SUMS_8(sums, 16),
                 AURORA_SUMS_4(sums, 24));
  AURORA_PRODUCT(64, AURORA_NAMES_32, 32, 33, AURORA_SUMS_32(sums, 0));
  AURORA_PRODUCT(72, AURORA_NAMES_36, 36, 37, AURORA_SUMS_32(sums, 0), AURORA_SUMS_4(sums, 32));
  AURORA_PRODUCT(80, AURORA_NAMES_40, 40, 41, AURORA_SUMS_32(sums, 0), AURORA_SUMS_8(sums, 32));
  AURORA_PRODUCT(88, AURORA_NAMES_44, 44, 45, AURORA_SUMS_32(sums, 0), AURORA_SUMS_8(sums, 32),
                 AURORA_SUMS_4(sums, 40));
  AURORA_PRODUCT(96, AURORA_NAMES_48, 48, 49, AURORA_SUMS_32(sums, 0), AURORA_SUMS_16(sums, 32));
  AURORA_PRODUCT(104, AURORA_NAMES_52, 52, 53, AURORA_SUMS_32(sums, 0), AURORA_SUMS_16(sums, 32),
                 AURORA_SUMS_4(sums, 48));
  AURORA_PRODUCT(112, AURORA_NAMES_56, 56, 57, AURORA_SUMS_32(sums, 0), AURORA_SUMS_16(sums, 32),
                 AURORA_SUMS_8(sums, 48));
  AURORA_PRODUCT(120, AURORA_NAMES_60, 60, 61, AURORA_SUMS_32(sums, 0), AURORA_SUMS_16(sums, 32),
                 AURORA_SUMS_8(sums, 48), AURORA_SUMS_4(sums, 56));
  AURORA_PRODUCT(128, AURORA_NAMES_64, 64, 65, AURORA_SUMS_64(sums, 0));
  AURORA_PRODUCT(136, AURORA_NAMES_68, 68, 69, AURORA_SUMS_64(sums, 0), AURORA_SUMS_4(sums, 64));
  AURORA_PRODUCT(144, AURORA_NAMES_72, 72, 73, AURORA_SUMS_64(sums, 0), AURORA_SUMS_8(sums, 64));
  AURORA_PRODUCT(152, AURORA_NAMES_76, 76, 77, AURORA_SUMS_64(sums, 0), AURORA_SUMS_8(sums, 64),
                 AURORA_SUMS_4(sums, 72));
  AURORA_PRODUCT(160, AURORA_NAMES_80, 80, 81, AURORA_SUMS_64(sums, 0), AURORA_SUMS_16(sums, 64));
}

#undef AURORA_PRODUCT

}  // namespace aurora::cuda
