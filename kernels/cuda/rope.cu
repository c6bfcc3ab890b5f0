#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {
namespace {

/// One block a token; threads walk over (head, pair).
template <class T>
__global__ void rope_kernel(T* heads, const std::int32_t* positions, const float* cosine, const float* sine,
                            std::int64_t num_positions, int num_heads, int half, FaultSink faults) {
  const std::int64_t token = blockIdx.x;
  wait_for_kernel_before();
  let_next_kernel_begin();
  const std::int64_t position = positions[token];
  if (!index_fits(faults, FaultSite::kRopePositions, token, position, num_positions)) return;
  T* row = heads + token * num_heads * 2 * half;
  for (int at = static_cast<int>(threadIdx.x); at < num_heads * half; at += static_cast<int>(blockDim.x)) {
    const int i = at % half;
    T* first = row + (at / half) * 2 * half + i;
    const float x = to_float(first[0]);
    const float y = to_float(first[half]);
    const float c = cosine[position * half + i];
    const float s = sine[position * half + i];
    first[0] = from_float<T>(x * c - y * s);
    first[half] = from_float<T>(y * c + x * s);
  }
}

}  // namespace

void CudaOps::rope(Stream& stream, const RopeArgs& args) const {
  check_args(args);
  const std::int64_t num_tokens = args.heads.dim(0);
  if (args.heads.is_empty()) return;
  CudaStream& own = cuda_stream(stream);
  with_element(args.heads.dtype(), "rope", [&]<class T>(T*) {
    launch_dependent(rope_kernel<T>, static_cast<unsigned>(num_tokens), 256, 0, own.handle(), "rope",
                     data_of<T>(args.heads), args.positions.i32(), args.cosine.f32(), args.sine.f32(),
                     args.cosine.dim(0), static_cast<int>(args.heads.dim(1)),
                     static_cast<int>(args.heads.dim(2) / 2), own.faults());
  });
}

}  // namespace aurora::cuda
