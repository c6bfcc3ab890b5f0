// Compiled with contraction of a * b + c (kernels/CMakeLists.txt).
#include "kernels/cpu/dot_product_gemm.h"

namespace aurora::cpu {
namespace {
struct FewRows {};
}  // namespace

void few_rows_gemm(const Gemm& args) { run_for_active_isa<DotProductGemm<FewRows>>(&args); }

}  // namespace aurora::cpu
