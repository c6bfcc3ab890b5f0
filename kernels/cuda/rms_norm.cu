// One block a row. A thread has neighbouring elements, 16 bytes an instruction where alignment allows, which
// stay in its registers from the sum to the product; only rows of more than kMostThreads * kElements are read
// twice. Which elements a thread sums, and so every bit, depends on the width alone.
#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/row_copy.cuh"

namespace aurora::cuda {
namespace {

constexpr int kElements = 8;  // of a thread at a time
constexpr int kMostThreads = 1024;

/// Elements at, at + 1, ... of a row of `width`; beyond it zeros. With `kAreAligned` neither a row nor its
/// width cuts one of these in two.
template <bool kAreAligned, class T>
__device__ Elements<T, kElements> load_some(const T* row, std::int64_t at, std::int64_t width) {
  Elements<T, kElements> some = {};
  if constexpr (kAreAligned) {
    if (at < width) some = load_elements<kElements>(row + at);
  } else {
    for (int i = 0; i < kElements; ++i) {
      if (at + i < width) some.part[i] = row[at + i];
    }
  }
  return some;
}

template <bool kAreAligned, class T>
__device__ void store_some(const Elements<T, kElements>& some, T* row, std::int64_t at, std::int64_t width) {
  if constexpr (kAreAligned) {
    if (at < width) store_elements(some, row + at);
  } else {
    for (int i = 0; i < kElements; ++i) {
      if (at + i < width) row[at + i] = some.part[i];
    }
  }
}

template <class T>
__device__ float add_squares(float sum, const Elements<T, kElements>& some) {
  for (int i = 0; i < kElements; ++i) sum = fmaf(to_float(some.part[i]), to_float(some.part[i]), sum);
  return sum;
}

template <class Out, class In, class Weight>
__device__ Elements<Out, kElements> scaled(const Elements<In, kElements>& some,
                                           const Elements<Weight, kElements>& weight, float factor) {
  Elements<Out, kElements> result;
  for (int i = 0; i < kElements; ++i) {
    result.part[i] = from_float<Out>(to_float(weight.part[i]) * (to_float(some.part[i]) * factor));
  }
  return result;
}

/// The sum over the block, in every thread; once a kernel.
__device__ float sum_of_block(float value) {
  __shared__ float sums[kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  value = warp_sum(value);
  if (lane == 0) sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  return warp_sum(lane < static_cast<int>(blockDim.x) / kWarp ? sums[lane] : 0.0F);
}

template <class In, class Weight, class Out, bool kAreAligned>
__global__ void __launch_bounds__(kMostThreads)
    rms_norm_kernel(const In* input, const Weight* weight, Out* output, std::int64_t width, float epsilon) {
  wait_for_kernel_before();
  let_next_kernel_begin();
  const In* x = input + blockIdx.x * width;
  Out* y = output + blockIdx.x * width;
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x) * kElements;
  const std::int64_t stride = static_cast<std::int64_t>(blockDim.x) * kElements;
  const auto kept = load_some<kAreAligned>(x, first, width);
  const auto kept_weight = load_some<kAreAligned>(weight, first, width);
  float squares = add_squares(0, kept);
  for (std::int64_t at = first + stride; at < width; at += stride) {
    squares = add_squares(squares, load_some<kAreAligned>(x, at, width));
  }
  const float mean = sum_of_block(squares) / static_cast<float>(width);
  const float factor = 1.0F / sqrtf(mean + epsilon);
  store_some<kAreAligned>(scaled<Out>(kept, kept_weight, factor), y, first, width);
  for (std::int64_t at = first + stride; at < width; at += stride) {
    const auto again = load_some<kAreAligned>(x, at, width);
    store_some<kAreAligned>(scaled<Out>(again, load_some<kAreAligned>(weight, at, width), factor), y, at,
                            width);
  }
}

template <class In, class Weight, class Out>
void launch(CudaStream& stream, const RmsNormArgs& args) {
  const std::int64_t width = args.input.dim(1);
  const auto* input = data_of<const In>(args.input);
  const auto* weight = data_of<const Weight>(args.weight);
  auto* output = data_of<Out>(args.output);
  const bool are_aligned = width % kElements == 0 && are_elements_aligned<kElements>(input) &&
                           are_elements_aligned<kElements>(weight) && are_elements_aligned<kElements>(output);
  const std::int64_t warps = (width + kWarp * kElements - 1) / (kWarp * kElements);
  const auto threads = static_cast<unsigned>(std::min<std::int64_t>(warps * kWarp, kMostThreads));
  launch_dependent(
      are_aligned ? rms_norm_kernel<In, Weight, Out, true> : rms_norm_kernel<In, Weight, Out, false>,
      static_cast<unsigned>(args.input.dim(0)), threads, 0, stream.handle(), "rms_norm", input, weight,
      output, width, args.epsilon);
}

}  // namespace

void CudaOps::rms_norm(Stream& stream, const RmsNormArgs& args) const {
  check_args(args);
  if (args.input.is_empty()) return;
  with_element(args.input.dtype(), "rms_norm", [&]<class In>(In*) {
    with_element(args.weight.dtype(), "rms_norm", [&]<class Weight>(Weight*) {
      with_element(args.output.dtype(), "rms_norm",
                   [&]<class Out>(Out*) { launch<In, Weight, Out>(cuda_stream(stream), args); });
    });
  });
}

}  // namespace aurora::cuda
