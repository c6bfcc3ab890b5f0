#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {
namespace {

struct Terms {
  const std::int32_t* offsets;  // [num_rows + 1]
  const std::int32_t* indices;  // [num_terms]
  const float* weights;         // [num_terms], or null for ones
  std::int64_t num_terms;
  std::int64_t num_input_rows;
  std::int64_t width;
};

/// Whether the terms [begin, end) of a row can be read; the first thread of the block reports when not.
__device__ bool terms_fit(const Terms& terms, std::int64_t row, std::int32_t begin, std::int32_t end,
                          FaultSink faults) {
  if (begin < 0 || begin > end || end > terms.num_terms) {
    report_fault(faults, FaultSite::kWeightedSumOffsets, row, begin, terms.num_terms + 1);
    return false;
  }
  for (std::int32_t p = begin; p < end; ++p) {
    if (!index_fits(faults, FaultSite::kWeightedSumIndices, p, terms.indices[p], terms.num_input_rows)) {
      return false;
    }
  }
  return true;
}

/// One block a row: each thread adds up its columns in the order of the terms.
template <class In, class Initial, class Out>
__global__ void weighted_sum_kernel(Terms terms, const In* input, const Initial* initial, Out* output,
                                    FaultSink faults) {
  const std::int64_t row = blockIdx.x;
  const std::int32_t begin = terms.offsets[row];
  const std::int32_t end = terms.offsets[row + 1];
  if (!terms_fit(terms, row, begin, end, faults)) return;
  for (std::int64_t column = threadIdx.x; column < terms.width; column += blockDim.x) {
    const std::int64_t at = row * terms.width + column;
    float sum = initial != nullptr ? to_float(initial[at]) : 0.0F;
    for (std::int32_t p = begin; p < end; ++p) {
      const float value = to_float(input[terms.indices[p] * terms.width + column]);
      // Multiplied and added apart, as on the CPU: the same terms give the same bits in any kernel.
      sum = __fadd_rn(sum, terms.weights != nullptr ? __fmul_rn(value, terms.weights[p]) : value);
    }
    output[at] = from_float<Out>(sum);
  }
}

}  // namespace

void CudaOps::weighted_sum(Stream& stream, const WeightedSumArgs& args) const {
  check_args(args);
  if (args.output.is_empty()) return;
  CudaStream& own = cuda_stream(stream);
  const std::int64_t width = args.output.dim(1);
  const Terms terms{.offsets = args.offsets.i32(),
                    .indices = args.indices.i32(),
                    .weights = args.weights.has_data() ? args.weights.f32() : nullptr,
                    .num_terms = args.indices.num_elements(),
                    .num_input_rows = args.input.dim(0),
                    .width = width};
  const auto threads = static_cast<unsigned>(std::clamp<std::int64_t>((width + 31) / 32 * 32, 32, 512));
  with_element(args.input.dtype(), "weighted_sum", [&]<class In>(In*) {
    with_element(args.initial.dtype(), "weighted_sum", [&]<class Initial>(Initial*) {
      with_element(args.output.dtype(), "weighted_sum", [&]<class Out>(Out*) {
        weighted_sum_kernel<<<static_cast<unsigned>(args.output.dim(0)), threads, 0, own.handle()>>>(
            terms, data_of<const In>(args.input), data_of<const Initial>(args.initial),
            data_of<Out>(args.output), own.faults());
      });
    });
  });
  check_launch("weighted_sum");
}

}  // namespace aurora::cuda
