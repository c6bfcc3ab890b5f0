#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {
namespace {

/// One block a row.
template <class In, class Weight, class Out>
__global__ void rms_norm_kernel(const In* input, const Weight* weight, Out* output, std::int64_t width,
                                float epsilon) {
  __shared__ float scratch[kWarp];
  wait_for_kernel_before();
  let_next_kernel_begin();
  const In* x = input + blockIdx.x * width;
  Out* y = output + blockIdx.x * width;
  float squares = 0;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float value = to_float(x[i]);
    squares += value * value;
  }
  const float mean = block_sum(squares, scratch) / static_cast<float>(width);
  const float factor = 1.0F / sqrtf(mean + epsilon);
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    y[i] = from_float<Out>(to_float(weight[i]) * (to_float(x[i]) * factor));
  }
}

}  // namespace

void CudaOps::rms_norm(Stream& stream, const RmsNormArgs& args) const {
  check_args(args);
  const std::int64_t num_rows = args.input.dim(0);
  const std::int64_t width = args.input.dim(1);
  if (num_rows == 0 || width == 0) return;
  const auto threads = static_cast<unsigned>(std::clamp<std::int64_t>((width + 31) / 32 * 32, 32, 512));
  with_element(args.input.dtype(), "rms_norm", [&]<class In>(In*) {
    with_element(args.weight.dtype(), "rms_norm", [&]<class Weight>(Weight*) {
      with_element(args.output.dtype(), "rms_norm", [&]<class Out>(Out*) {
        launch_dependent(rms_norm_kernel<In, Weight, Out>, static_cast<unsigned>(num_rows), threads, 0,
                         cuda_stream(stream).handle(), "rms_norm", data_of<const In>(args.input),
                         data_of<const Weight>(args.weight), data_of<Out>(args.output), width, args.epsilon);
      });
    });
  });
}

}  // namespace aurora::cuda
