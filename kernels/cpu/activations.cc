// The elementwise operations: clamp, silu_multiply, add, sigmoid_gated_add.
#include "kernels/cpu/activations.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows.h"

namespace aurora::cpu {
namespace {

struct Clamp {
  template <typename L>
  AURORA_INLINE static void run(float* values, std::int64_t count, float limit) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
      // The comparisons keep the second argument where x is NaN, so NaN stays NaN.
      const L x = load_lanes<L>(values + i, count - i);
      const L below = 0.0F - max(L::splat(-limit), 0.0F - x);
      store_lanes(values + i, max(L::splat(-limit), below), count - i);
    }
  }
};

struct SiluMultiply {
  template <typename L>
  AURORA_INLINE static void run(const float* gate, const float* up, float* output, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
      const L activated = silu(load_lanes<L>(gate + i, count - i));
      store_lanes(output + i, activated * load_lanes<L>(up + i, count - i), count - i);
    }
  }
};

struct Add {
  template <typename L>
  AURORA_INLINE static void run(const float* input, float* output, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
      store_lanes(output + i, load_lanes<L>(output + i, count - i) + load_lanes<L>(input + i, count - i),
                  count - i);
    }
  }
};

struct SigmoidGatedAdd {
  template <typename L>
  AURORA_INLINE static void run(const float* input, const float* gate_logits, float* output,
                                std::int64_t num_rows, std::int64_t width) {
    for (std::int64_t row = 0; row < num_rows; ++row) {
      const float gate = sigmoid(L::splat(gate_logits[row])).part[0][0];
      const float* x = input + row * width;
      float* y = output + row * width;
      for (std::int64_t i = 0; i < width; i += kLanes) {
        store_lanes(y + i, load_lanes<L>(y + i, width - i) + gate * load_lanes<L>(x + i, width - i),
                    width - i);
      }
    }
  }
};

}  // namespace

void silu_multiply(const float* gate, const float* up, float* output, std::int64_t count) {
  run_for_active_isa<SiluMultiply>(gate, up, output, count);
}

void CpuOps::clamp(Stream& stream, const ClampArgs& args) const {
  check_args(args);
  if (args.values.is_empty()) return;
  cpu_stream(stream).submit(
      [args] { run_for_active_isa<Clamp>(args.values.f32(), args.values.num_elements(), args.limit); });
}

void CpuOps::silu_multiply(Stream& stream, const SiluMultiplyArgs& args) const {
  const std::int64_t count = args.output.num_elements();
  check_args(args);
  if (count == 0) return;
  cpu_stream(stream).submit(
      [args, count] { cpu::silu_multiply(args.gate.f32(), args.up.f32(), args.output.f32(), count); });
}

void CpuOps::add(Stream& stream, const AddArgs& args) const {
  const std::int64_t count = args.output.num_elements();
  check_args(args);
  if (count == 0) return;
  cpu_stream(stream).submit(
      [args, count] { run_for_active_isa<Add>(args.input.f32(), args.output.f32(), count); });
}

void CpuOps::sigmoid_gated_add(Stream& stream, const SigmoidGatedAddArgs& args) const {
  const std::int64_t num_rows = args.output.dim(0);
  const std::int64_t width = args.output.dim(1);
  check_args(args);
  if (num_rows == 0) return;
  cpu_stream(stream).submit([args, num_rows, width] {
    run_for_active_isa<SigmoidGatedAdd>(args.input.f32(), args.gate_logits.f32(), args.output.f32(), num_rows,
                                        width);
  });
}

}  // namespace aurora::cpu
