#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;

/// A key that rises with the logit and, for equal logits, falls with the id: the largest key is the expert to
/// choose. A NaN ranks below everything, a chosen expert (key 0) below that.
__device__ std::uint64_t choice_key(float logit, std::int32_t expert) {
  std::uint32_t order = 1;
  if (logit == logit) {
    const std::uint32_t bits = __float_as_uint(logit == 0.0F ? 0.0F : logit);  // -0 equals 0
    order = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
    order = max(order, 2U);
  }
  return (static_cast<std::uint64_t>(order) << 32) | (0xffffffffU - static_cast<std::uint32_t>(expert));
}

__device__ std::uint64_t warp_max(std::uint64_t value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const std::uint64_t other = __shfl_xor_sync(~0U, value, offset);
    value = max(value, other);
  }
  return value;
}

__device__ float warp_max(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0U, value, offset));
  }
  return value;
}

/// Largest logit and sum of exponentials over a warp: what turns a logit into a score.
struct Softmax {
  float largest = 0;
  float total = 1;
};

__device__ Softmax warp_softmax(const float* logits, int num_experts, int lane) {
  float largest = -INFINITY;
  for (int e = lane; e < num_experts; e += kWarp) largest = fmaxf(largest, logits[e]);
  largest = warp_max(largest);
  float sum = 0;
  for (int e = lane; e < num_experts; e += kWarp) sum += expf(logits[e] - largest);
  return {largest, warp_sum(sum)};
}

struct RouteShape {
  std::int64_t num_tokens;
  int num_experts;
  int top_k;
  bool is_softmax;
  bool normalize;
  bool ids_are_given;
};

/// Lane k < top_k of the warp gets the k-th choice; `keys` is scratch of one key per expert.
__device__ std::int32_t choose(const float* logits, std::uint64_t* keys, const RouteShape& shape, int lane) {
  for (int e = lane; e < shape.num_experts; e += kWarp) keys[e] = choice_key(logits[e], e);
  __syncwarp();
  std::int32_t mine = 0;
  for (int k = 0; k < shape.top_k; ++k) {
    std::uint64_t best = 0;
    for (int e = lane; e < shape.num_experts; e += kWarp) best = max(best, keys[e]);
    best = warp_max(best);
    __syncwarp();  // all have looked before the choice is struck out
    const auto expert = static_cast<std::int32_t>(0xffffffffU - static_cast<std::uint32_t>(best));
    if (lane == 0) keys[expert] = 0;
    if (lane == k) mine = expert;
    __syncwarp();
  }
  return mine;
}

/// One warp a token; top_k is at most the warp's width.
__global__ void route_kernel(RouteShape shape, const float* logits, std::int32_t* expert_ids, float* weights,
                             FaultSink faults) {
  extern __shared__ std::uint64_t all_keys[];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + warp;
  wait_for_kernel_before();
  let_next_kernel_begin();
  if (token >= shape.num_tokens) return;
  const float* row = logits + token * shape.num_experts;
  std::int32_t* ids = expert_ids + token * shape.top_k;
  const bool has_choice = lane < shape.top_k;
  std::int32_t expert = 0;
  if (shape.ids_are_given) {
    if (has_choice) expert = ids[lane];
    const bool fits = !has_choice || index_fits(faults, FaultSite::kRouteExpertIds,
                                                token * shape.top_k + lane, expert, shape.num_experts);
    if (!__all_sync(~0U, fits)) return;
  } else {
    expert = choose(row, all_keys + warp * shape.num_experts, shape, lane);
    if (has_choice) ids[lane] = expert;
  }
  const Softmax softmax = shape.is_softmax ? warp_softmax(row, shape.num_experts, lane) : Softmax{};
  float score = 0;
  if (has_choice) {
    score = shape.is_softmax ? expf(row[expert] - softmax.largest) / softmax.total : sigmoid(row[expert]);
  }
  if (shape.normalize) {
    // In the order of k, as on the CPU; all zero would otherwise be 0 / 0.
    float sum = 0;
    for (int k = 0; k < shape.top_k; ++k) sum += __shfl_sync(~0U, score, k);
    score /= sum + 1e-20F;
  }
  if (has_choice) weights[token * shape.top_k + lane] = score;
}

}  // namespace

void CudaOps::route(Stream& stream, const RouteArgs& args) const {
  check_args(args);
  if (args.expert_ids.is_empty()) return;
  const RouteShape shape{.num_tokens = args.logits.dim(0),
                         .num_experts = static_cast<int>(args.logits.dim(1)),
                         .top_k = static_cast<int>(args.expert_ids.dim(1)),
                         .is_softmax = args.scoring == RouterScoring::kSoftmax,
                         .normalize = args.normalize,
                         .ids_are_given = args.ids_are_given};
  constexpr int kMostExperts = 1536;  // one key each for four warps in 48 KiB of shared memory
  if (shape.top_k > kWarp || shape.num_experts > kMostExperts) {
    throw Error(ErrorKind::kUnsupported, "route on cuda: top_k " + std::to_string(shape.top_k) + " and " +
                                             std::to_string(shape.num_experts) + " experts; at most 32 and " +
                                             std::to_string(kMostExperts) + " are supported");
  }
  CudaStream& own = cuda_stream(stream);
  const std::size_t keys_bytes =
      static_cast<std::size_t>(kWarpsPerBlock * shape.num_experts) * sizeof(std::uint64_t);
  launch_dependent(route_kernel, blocks_for(shape.num_tokens, kWarpsPerBlock), kWarpsPerBlock * kWarp,
                   keys_bytes, own.handle(), "route", shape, args.logits.f32(), args.expert_ids.i32(),
                   args.weights.f32(), own.faults());
}

}  // namespace aurora::cuda
