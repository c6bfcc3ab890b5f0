// output = input * weight^T (+ bias) (+ output), the arithmetic under `linear` and `expert_ffn`.
//
// Three ways to the same sum. `fixed_order_gemm` computes every element from its own two rows in one fixed
// order: bit-identical for every number of rows, every blocking and every instruction set. `few_rows_gemm` is
// the same loop with fused multiply-adds, for the batches of decoding. `gemm` chooses between the latter and
// OpenBLAS.
#pragma once

#include <cstdint>

namespace aurora::cpu {

struct Gemm {
  const float* input = nullptr;   // [num_rows, in_width]
  const float* weight = nullptr;  // [out_width, in_width]
  const float* bias = nullptr;    // [out_width], or null
  float* output = nullptr;        // [num_rows, out_width]
  std::int64_t num_rows = 0;
  std::int64_t in_width = 0;
  std::int64_t out_width = 0;
  bool accumulate = false;
};

enum class GemmOrder : std::uint8_t {
  kAny,    // whichever is fastest
  kFixed,  // fixed_order_gemm
};

void gemm(const Gemm& args, GemmOrder order);

void fixed_order_gemm(const Gemm& args);
void few_rows_gemm(const Gemm& args);
void blas_gemm(const Gemm& args);

}  // namespace aurora::cpu
