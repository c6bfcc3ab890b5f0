#include "kernels/cpu/dot_product_gemm.h"

namespace aurora::cpu {
namespace {
struct FixedOrder {};
}  // namespace

void fixed_order_gemm(const Gemm& args) { run_for_active_isa<DotProductGemm<FixedOrder>>(&args); }

}  // namespace aurora::cpu
