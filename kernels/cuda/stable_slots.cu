#include "kernels/cuda/stable_slots.cuh"

namespace aurora::cuda {
namespace {

constexpr int kSumThreads = 1024;

__global__ void exclusive_sums_kernel(ExclusiveSums sums) {
  __shared__ std::int32_t warp_totals[kWarp];
  const ExclusiveSum task = sums.sums[blockIdx.x];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  std::int32_t carried = 0;  // the sum of all tiles before this one, in every thread
  for (std::int64_t tile = 0; tile < task.count; tile += kSumThreads) {
    const std::int64_t i = tile + threadIdx.x;
    const std::int32_t value = i < task.count ? task.values[i] : 0;
    const std::int32_t below = sum_below(value, lane);
    if (lane == kWarp - 1) warp_totals[warp] = below + value;
    __syncthreads();
    const std::int32_t total = warp_totals[lane];
    const std::int32_t before = __shfl_sync(~0U, sum_below(total, lane), warp);
    const std::int32_t last = __shfl_sync(~0U, sum_below(total, lane) + total, kWarp - 1);
    if (i < task.count) task.values[i] = carried + before + below;
    carried += last;
    __syncthreads();  // the totals are read before the next tile writes them
  }
  if (threadIdx.x == 0) task.values[task.count] = carried;
}

}  // namespace

void submit_exclusive_sums(CudaStream& stream, const ExclusiveSums& sums, int num_sums) {
  exclusive_sums_kernel<<<static_cast<unsigned>(num_sums), kSumThreads, 0, stream.handle()>>>(sums);
  check_launch("exclusive sums");
}

}  // namespace aurora::cuda
