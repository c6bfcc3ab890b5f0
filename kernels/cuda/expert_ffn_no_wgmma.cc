// The wgmma way of expert_ffn in a build without code for Hopper (architecture 90a): there is none.
#include "kernels/cuda/expert_products.h"

namespace aurora::cuda {

bool has_wgmma() { return false; }

bool fits_wgmma(const ExpertProduct&) { return false; }

void submit_wgmma(CudaStream&, const ExpertProduct&) {
  check(false, "expert_ffn: this build has no code for Hopper");
}

}  // namespace aurora::cuda
