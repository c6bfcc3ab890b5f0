// The elementwise operations: clamp, silu_multiply, add, sigmoid_gated_add.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {
namespace {

constexpr int kThreads = 256;

__device__ std::int64_t global_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

template <class T>
__global__ void clamp_kernel(T* values, std::int64_t count, float limit) {
  const std::int64_t i = global_thread();
  wait_for_kernel_before();
  let_next_kernel_begin();
  if (i >= count) return;
  const float x = to_float(values[i]);
  // fmin and fmax would replace a NaN by the limit.
  values[i] = from_float<T>(x > limit ? limit : (x < -limit ? -limit : x));
}

template <class In, class Out>
__global__ void silu_multiply_kernel(const In* gate, const In* up, Out* output, std::int64_t count) {
  const std::int64_t i = global_thread();
  wait_for_kernel_before();
  let_next_kernel_begin();
  if (i < count) output[i] = from_float<Out>(silu(to_float(gate[i])) * to_float(up[i]));
}

template <class In, class Out>
__global__ void add_kernel(const In* input, Out* output, std::int64_t count) {
  const std::int64_t i = global_thread();
  wait_for_kernel_before();
  let_next_kernel_begin();
  if (i < count) output[i] = from_float<Out>(to_float(output[i]) + to_float(input[i]));
}

template <class In, class Gate, class Out>
__global__ void sigmoid_gated_add_kernel(const In* input, const Gate* gate_logits, Out* output,
                                         std::int64_t count, std::int64_t width) {
  const std::int64_t i = global_thread();
  wait_for_kernel_before();
  let_next_kernel_begin();
  if (i >= count) return;
  const float gate = sigmoid(to_float(gate_logits[i / width]));
  output[i] = from_float<Out>(to_float(output[i]) + gate * to_float(input[i]));
}

}  // namespace

void CudaOps::clamp(Stream& stream, const ClampArgs& args) const {
  check_args(args);
  const std::int64_t count = args.values.num_elements();
  if (count == 0) return;
  with_element(args.values.dtype(), "clamp", [&]<class T>(T*) {
    launch_dependent(clamp_kernel<T>, blocks_for(count, kThreads), kThreads, 0, cuda_stream(stream).handle(),
                     "clamp", data_of<T>(args.values), count, args.limit);
  });
}

void CudaOps::silu_multiply(Stream& stream, const SiluMultiplyArgs& args) const {
  check_args(args);
  const std::int64_t count = args.output.num_elements();
  if (count == 0) return;
  check(args.gate.dtype() == args.up.dtype(), "silu_multiply: gate and up differ in dtype");
  with_element(args.gate.dtype(), "silu_multiply", [&]<class In>(In*) {
    with_element(args.output.dtype(), "silu_multiply", [&]<class Out>(Out*) {
      launch_dependent(silu_multiply_kernel<In, Out>, blocks_for(count, kThreads), kThreads, 0,
                       cuda_stream(stream).handle(), "silu_multiply", data_of<const In>(args.gate),
                       data_of<const In>(args.up), data_of<Out>(args.output), count);
    });
  });
}

void CudaOps::add(Stream& stream, const AddArgs& args) const {
  check_args(args);
  const std::int64_t count = args.output.num_elements();
  if (count == 0) return;
  with_element(args.input.dtype(), "add", [&]<class In>(In*) {
    with_element(args.output.dtype(), "add", [&]<class Out>(Out*) {
      launch_dependent(add_kernel<In, Out>, blocks_for(count, kThreads), kThreads, 0,
                       cuda_stream(stream).handle(), "add", data_of<const In>(args.input),
                       data_of<Out>(args.output), count);
    });
  });
}

void CudaOps::sigmoid_gated_add(Stream& stream, const SigmoidGatedAddArgs& args) const {
  check_args(args);
  const std::int64_t count = args.output.num_elements();
  if (count == 0) return;
  with_element(args.input.dtype(), "sigmoid_gated_add", [&]<class In>(In*) {
    with_element(args.gate_logits.dtype(), "sigmoid_gated_add", [&]<class Gate>(Gate*) {
      with_element(args.output.dtype(), "sigmoid_gated_add", [&]<class Out>(Out*) {
        launch_dependent(sigmoid_gated_add_kernel<In, Gate, Out>, blocks_for(count, kThreads), kThreads, 0,
                         cuda_stream(stream).handle(), "sigmoid_gated_add", data_of<const In>(args.input),
                         data_of<const Gate>(args.gate_logits), data_of<Out>(args.output), count,
                         args.output.dim(1));
      });
    });
  });
}

}  // namespace aurora::cuda
