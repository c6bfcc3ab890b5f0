#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/gemm.cuh"

namespace aurora::cuda {
namespace {

/// Every row becomes the bias, or gets it added.
template <class Bias, class Out>
__global__ void spread_bias_kernel(const Bias* bias, Out* output, std::int64_t count, std::int64_t width,
                                   bool accumulate) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float value = to_float(bias[i % width]);
  output[i] = from_float<Out>(accumulate ? to_float(output[i]) + value : value);
}

void spread_bias(CudaStream& stream, const LinearArgs& args) {
  const std::int64_t count = args.output.num_elements();
  if (count == 0) return;
  with_element(args.bias.dtype(), "linear", [&]<class Bias>(Bias*) {
    with_element(args.output.dtype(), "linear", [&]<class Out>(Out*) {
      spread_bias_kernel<<<blocks_for(count, 256), 256, 0, stream.handle()>>>(
          data_of<const Bias>(args.bias), data_of<Out>(args.output), count, args.output.dim(1),
          args.accumulate);
    });
  });
  check_launch("linear: bias");
}

}  // namespace

// The bias is laid down first and the product added to it, so that a bfloat16 output is rounded once.
void CudaOps::linear(Stream& stream, const LinearArgs& args) const {
  check_args(args);
  if (args.input.dim(0) == 0) return;
  check(args.input.dtype() == args.weight.dtype(), "linear: input and weight differ in dtype");
  CudaStream& own = cuda_stream(stream);
  const bool has_bias = args.bias.has_data();
  if (has_bias) spread_bias(own, args);
  gemm(own,
       {.input = args.input.bytes(),
        .weight = args.weight.bytes(),
        .output = args.output.bytes(),
        .dtype = args.input.dtype(),
        .output_dtype = args.output.dtype(),
        .num_rows = args.input.dim(0),
        .in_width = args.input.dim(1),
        .out_width = args.weight.dim(0),
        .accumulate = args.accumulate || has_bias},
       deterministic_ ? GemmOrder::kFixed : GemmOrder::kAny);
}

}  // namespace aurora::cuda
