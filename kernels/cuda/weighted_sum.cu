// A block sums some columns of one row, a thread kVector neighbouring ones. The lanes of a warp read and
// check the row's terms, 32 at a time, and hand each other the rows and weights; the loads of kBatch terms
// are on their way before the first is added. Terms are multiplied and added apart and in their order, as on
// the CPU: the same terms give the same bits in any kernel.
#include <cstring>
#include <type_traits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/row_copy.cuh"

namespace aurora::cuda {
namespace {

struct Terms {
  const std::int32_t* offsets;  // [num_rows + 1]
  const std::int32_t* indices;  // [num_terms]
  const float* weights;         // [num_terms], or null for ones
  std::int64_t num_terms;
  std::int64_t num_input_rows;
  std::int64_t width;
  unsigned blocks_per_row;
};

/// Terms [begin, end) of a row.
struct TermRange {
  std::int32_t begin, end;
};

/// Whether the range can be read; reports when not.
__device__ bool range_fits(const Terms& terms, std::int64_t row, TermRange range, FaultSink faults) {
  if (range.begin >= 0 && range.begin <= range.end && range.end <= terms.num_terms) return true;
  report_fault(faults, FaultSite::kWeightedSumOffsets, row, range.begin, terms.num_terms + 1);
  return false;
}

/// The term of one lane; beyond the last one it is nothing.
struct LaneTerm {
  std::int32_t index = 0;
  float weight = 1;
};

/// Lane l gets term first + l. False, in all lanes, when an index is out of range, which is reported.
__device__ bool read_terms(const Terms& terms, std::int32_t first, std::int32_t end, LaneTerm& term,
                           FaultSink faults) {
  const std::int32_t p = first + static_cast<std::int32_t>(threadIdx.x) % kWarp;
  bool fits = true;
  if (p < end) {
    if (terms.weights != nullptr) term.weight = terms.weights[p];
    term.index = terms.indices[p];
    fits = index_fits(faults, FaultSite::kWeightedSumIndices, p, term.index, terms.num_input_rows);
  }
  return __all_sync(~0U, fits) != 0;
}

/// Elements as they come from memory; taken apart, two of bfloat16 would hold two registers all the while.
template <class In, int kVector>
struct Packed {
  static constexpr std::size_t kBytes = sizeof(Elements<In, kVector>);
  using Word =
      std::conditional_t<kBytes == 16, uint4, std::conditional_t<kBytes == 4, std::uint32_t, std::uint16_t>>;
  static_assert(sizeof(Word) == kBytes);
  Word word;

  __device__ Elements<In, kVector> elements() const {
    Elements<In, kVector> values;
    memcpy(&values, &word, sizeof(values));
    return values;
  }
};

/// Adds the warp's `count` terms to the columns that `input` points at, if it is not null.
template <int kVector, int kBatch, class In>
__device__ void add_terms(LaneTerm term, std::int32_t count, const In* input, std::int64_t width,
                          float (&sum)[kVector]) {
  static_assert(kWarp % kBatch == 0);
  for (std::int32_t first = 0; first < count; first += kBatch) {
    Packed<In, kVector> loaded[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const std::int64_t index = __shfl_sync(~0U, term.index, first + b);
      if (first + b >= count || input == nullptr) continue;
      loaded[b] = *reinterpret_cast<const Packed<In, kVector>*>(input + index * width);
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const float weight = __shfl_sync(~0U, term.weight, first + b);
      if (first + b >= count) break;
      const Elements<In, kVector> values = loaded[b].elements();
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        sum[v] = __fadd_rn(sum[v], __fmul_rn(to_float(values.part[v]), weight));
      }
    }
  }
}

template <int kVector, int kBatch, class In, class Initial, class Out>
__global__ void weighted_sum_kernel(Terms terms, const In* input, const Initial* initial, Out* output,
                                    FaultSink faults) {
  const RowShare share = row_share(terms.blocks_per_row);
  const std::int64_t column = share.first * kVector;
  const std::int64_t at = share.row * terms.width + column;
  const bool has_columns = column < terms.width;  // threads without any still read terms for their warp
  wait_for_kernel_before();
  let_next_kernel_begin();
  const TermRange range{terms.offsets[share.row], terms.offsets[share.row + 1]};
  float sum[kVector] = {};
  if (initial != nullptr && has_columns) {
    const auto values = load_elements<kVector>(initial + at);
    for (int v = 0; v < kVector; ++v) sum[v] = to_float(values.part[v]);
  }
  if (!range_fits(terms, share.row, range, faults)) return;
  for (std::int32_t first = range.begin; first < range.end; first += kWarp) {
    LaneTerm term;
    if (!read_terms(terms, first, range.end, term, faults)) return;
    add_terms<kVector, kBatch>(term, min(range.end - first, kWarp), has_columns ? input + column : nullptr,
                               terms.width, sum);
  }
  if (!has_columns) return;
  Elements<Out, kVector> values;
  for (int v = 0; v < kVector; ++v) values.part[v] = from_float<Out>(sum[v]);
  store_elements(values, output + at);
}

template <class In, class Initial, class Out>
void launch(CudaStream& stream, const WeightedSumArgs& args, Terms terms) {
  constexpr int kWide = 16 / sizeof(In);
  const auto* input = data_of<const In>(args.input);
  const auto* initial = data_of<const Initial>(args.initial);
  auto* output = data_of<Out>(args.output);
  const bool is_wide = terms.width % kWide == 0 && are_elements_aligned<kWide>(input) &&
                       are_elements_aligned<kWide>(initial) && are_elements_aligned<kWide>(output);
  const std::int64_t num_rows = args.output.dim(0);
  const RowBlocks blocks = blocks_of_rows(num_rows, is_wide ? terms.width / kWide : terms.width);
  terms.blocks_per_row = blocks.blocks_per_row;
  // Few rows: every load is waited for, so all at once. Many: more blocks side by side, with fewer registers.
  const auto kernel = !is_wide         ? weighted_sum_kernel<1, 8, In, Initial, Out>
                      : blocks.are_few ? weighted_sum_kernel<kWide, 8, In, Initial, Out>
                                       : weighted_sum_kernel<kWide, 4, In, Initial, Out>;
  launch_dependent(kernel, static_cast<unsigned>(num_rows) * blocks.blocks_per_row, blocks.threads, 0,
                   stream.handle(), "weighted_sum", terms, input, initial, output, stream.faults());
}

}  // namespace

void CudaOps::weighted_sum(Stream& stream, const WeightedSumArgs& args) const {
  check_args(args);
  if (args.output.is_empty()) return;
  const Terms terms{.offsets = args.offsets.i32(),
                    .indices = args.indices.i32(),
                    .weights = args.weights.has_data() ? args.weights.f32() : nullptr,
                    .num_terms = args.indices.num_elements(),
                    .num_input_rows = args.input.dim(0),
                    .width = args.output.dim(1),
                    .blocks_per_row = 1};
  with_element(args.input.dtype(), "weighted_sum", [&]<class In>(In*) {
    with_element(args.initial.dtype(), "weighted_sum", [&]<class Initial>(Initial*) {
      with_element(args.output.dtype(), "weighted_sum",
                   [&]<class Out>(Out*) { launch<In, Initial, Out>(cuda_stream(stream), args, terms); });
    });
  });
}

}  // namespace aurora::cuda
