#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows.h"

namespace aurora::cpu {
namespace {

/// What the kernel reads beside its typed tensors.
struct Terms {
  const std::int32_t* offsets;  // [num_rows + 1]
  const std::int32_t* indices;  // [num_terms]
  const float* weights;         // [num_terms], or null for ones
  std::int64_t num_rows;
  std::int64_t width;
};

/// Each output row, sixteen columns at a time: the sum stays in registers while the terms go by in their
/// order.
template <typename In, typename Initial, typename Out>
struct SumRows {
  template <typename L>
  AURORA_INLINE static void run(const Terms* terms, const In* input, const Initial* initial, Out* output) {
    const std::int64_t width = terms->width;
    for (std::int64_t row = 0; row < terms->num_rows; ++row) {
      const std::int32_t begin = terms->offsets[row];
      const std::int32_t end = terms->offsets[row + 1];
      for (std::int64_t column = 0; column < width; column += kLanes) {
        const std::int64_t count = width - column;
        L sum = L::splat(0);
        if (initial != nullptr) sum = load_lanes<L>(initial + row * width + column, count);
        for (std::int32_t p = begin; p < end; ++p) {
          const L values = load_lanes<L>(input + terms->indices[p] * width + column, count);
          sum += terms->weights != nullptr ? values * terms->weights[p] : values;
        }
        store_lanes(output + row * width + column, sum, count);
      }
    }
  }
};

template <typename T>
T* data_of(const Tensor& tensor) {
  return reinterpret_cast<T*>(tensor.bytes());
}

/// Calls `use` with a null pointer of the tensor's element type.
template <typename Use>
void with_element_type(const Tensor& tensor, const Use& use) {
  if (tensor.dtype() == DType::kFloat32) return use(static_cast<float*>(nullptr));
  use(static_cast<std::uint16_t*>(nullptr));
}

void check_terms(const Terms& terms, std::int64_t num_terms, std::int64_t num_input_rows) {
  for (std::int64_t row = 0; row < terms.num_rows; ++row) {
    check(terms.offsets[row] <= terms.offsets[row + 1], "weighted_sum: offsets decrease");
  }
  check(terms.offsets[0] >= 0 && terms.offsets[terms.num_rows] <= num_terms,
        "weighted_sum: offsets point beyond the terms");
  for (std::int32_t p = terms.offsets[0]; p < terms.offsets[terms.num_rows]; ++p) {
    check_index(terms.indices[p], num_input_rows, p, "weighted_sum: indices");
  }
}

void run_weighted_sum(const WeightedSumArgs& args) {
  const bool has_weights = args.weights.has_data();
  const Terms terms{args.offsets.i32(), args.indices.i32(), has_weights ? args.weights.f32() : nullptr,
                    args.output.dim(0), args.output.dim(1)};
  check_terms(terms, args.indices.dim(0), args.input.dim(0));
  with_element_type(args.input, [&]<typename In>(In*) {
    with_element_type(args.initial, [&]<typename Initial>(Initial*) {
      with_element_type(args.output, [&]<typename Out>(Out*) {
        run_for_active_isa<SumRows<In, Initial, Out>>(
            &terms, static_cast<const In*>(data_of<In>(args.input)),
            static_cast<const Initial*>(data_of<Initial>(args.initial)), data_of<Out>(args.output));
      });
    });
  });
}

}  // namespace

void CpuOps::weighted_sum(Stream& stream, const WeightedSumArgs& args) const {
  check_args(args);
  if (args.output.dim(0) == 0) return;
  cpu_stream(stream).submit([args] { run_weighted_sum(args); });
}

}  // namespace aurora::cpu
