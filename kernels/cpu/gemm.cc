#include "kernels/cpu/gemm.h"

#include <cblas.h>

#include <cstring>
#include <limits>
#include <string_view>

#include "kernels/cpu/isa.h"
#include "kernels/error.h"

namespace aurora::cpu {
namespace {

int blas_extent(std::int64_t extent) {
  check(extent <= std::numeric_limits<int>::max(), "a matrix dimension exceeds BLAS's 32-bit integers");
  return static_cast<int>(extent);
}

void fill_with_bias(const Gemm& args) {
  for (std::int64_t row = 0; row < args.num_rows; ++row) {
    float* output = args.output + row * args.out_width;
    if (args.accumulate) {
      for (std::int64_t i = 0; i < args.out_width; ++i) output[i] += args.bias[i];
    } else {
      std::memcpy(output, args.bias, static_cast<std::size_t>(args.out_width) * sizeof(float));
    }
  }
}

/// Whether the BLAS library chose kernels for AVX-512 on this processor. Version 0.3.21 knows few of those
/// that have it (on AMD's it takes its AVX2 kernels).
bool blas_uses_avx512() {
  static const bool uses = [] {
    const std::string_view core = openblas_get_corename();
    return core == "SkylakeX" || core == "Cooperlake" || core == "SapphireRapids";
  }();
  return uses;
}

/// Whether few_rows_gemm beats OpenBLAS. Measured, GFlop/s of few_rows / OpenBLAS 0.3.21 on one core of an
/// AMD EPYC of family 26, with 128 columns of output:
///     rows           1         4          8         16         32         64        256
///   AVX-512, k=128   46 / 10   120 / 38   129 / 57  138 / 81   139 / 97   137 / 111  142 / 124
///   AVX-512, k=256   54 /  9   158 / 40   169 / 59  180 / 84   177 / 100  183 / 115  183 / 126
///   AVX2,    k=128   36 / 10    62 / 40    64 / 57   78 / 81    78 / 99    83 / 113   87 / 124
///   SSE2,    k=128   36 /  9    43 / 38    45 / 57   44 / 80    45 / 97    45 / 111   45 / 120
/// cblas_sgemv, for one row, is as fast as few_rows_gemm. From k = 4096 on OpenBLAS overtakes at 64 rows,
/// since a tile's rows leave the first-level cache.
bool few_rows_gemm_is_faster(const Gemm& args) {
  switch (active_isa()) {
    case Isa::kAvx512:
      return args.num_rows <= 32 || (!blas_uses_avx512() && args.in_width <= 2048);
    case Isa::kAvx2:
      return args.num_rows <= 8;
    case Isa::kBaseline:
      return args.num_rows <= 4;
  }
  return false;
}

}  // namespace

void blas_gemm(const Gemm& args) {
  const bool has_bias = args.bias != nullptr;
  if (has_bias) fill_with_bias(args);
  const int m = blas_extent(args.num_rows);
  const int n = blas_extent(args.out_width);
  const int k = blas_extent(args.in_width);
  const float beta = args.accumulate || has_bias ? 1.0F : 0.0F;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0F, args.input, k, args.weight, k, beta,
              args.output, n);
}

void gemm(const Gemm& args, GemmOrder order) {
  if (args.num_rows == 0 || args.out_width == 0) return;
  if (order == GemmOrder::kFixed || args.in_width == 0) return fixed_order_gemm(args);
  if (few_rows_gemm_is_faster(args)) return few_rows_gemm(args);
  blas_gemm(args);
}

}  // namespace aurora::cpu
