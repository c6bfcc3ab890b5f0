#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/stable_slots.cuh"

namespace aurora::cuda {
namespace {

constexpr unsigned kSumThreads = 1024;

__global__ void exclusive_sums_kernel(ExclusiveSums sums) {
  wait_for_kernel_before();
  let_next_kernel_begin();
  sum_in_block(sums.sums[blockIdx.x]);
}

}  // namespace

void submit_exclusive_sums(CudaStream& stream, const ExclusiveSums& sums, int num_sums) {
  launch_dependent(exclusive_sums_kernel, static_cast<unsigned>(num_sums), kSumThreads, 0, stream.handle(),
                   "exclusive sums", sums);
}

}  // namespace aurora::cuda
