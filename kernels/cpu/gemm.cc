#include "kernels/cpu/gemm.h"

#include <cblas.h>

#include <cstring>
#include <limits>
#include <string>

#include "kernels/cpu/cpu_ops.h"

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
  if (args.num_rows <= 16) return few_rows_gemm(args);
  blas_gemm(args);
}

}  // namespace aurora::cpu
