#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows.h"

namespace aurora::cpu {
namespace {

struct Normalize {
  template <typename L>
  AURORA_INLINE static void run(const float* input, const float* weight, float epsilon, float* output,
                                std::int64_t num_rows, std::int64_t width) {
    for (std::int64_t row = 0; row < num_rows; ++row) {
      const float* x = input + row * width;
      float* y = output + row * width;
      L squares = L::splat(0);
      for (std::int64_t i = 0; i < width; i += kLanes) {
        const L values = load_lanes<L>(x + i, width - i);
        squares += values * values;
      }
      const float mean = sum_lanes(squares) / static_cast<float>(width);
      const float factor = 1.0F / std::sqrt(mean + epsilon);
      for (std::int64_t i = 0; i < width; i += kLanes) {
        const L values = load_lanes<L>(x + i, width - i) * factor;
        store_lanes(y + i, load_lanes<L>(weight + i, width - i) * values, width - i);
      }
    }
  }
};

}  // namespace

void CpuOps::rms_norm(Stream& stream, const RmsNormArgs& args) const {
  const std::int64_t num_rows = args.input.dim(0);
  const std::int64_t width = args.input.dim(1);
  check_args(args);
  if (num_rows == 0) return;
  cpu_stream(stream).submit([args, num_rows, width] {
    run_for_active_isa<Normalize>(args.input.f32(), args.weight.f32(), args.epsilon, args.output.f32(),
                                  num_rows, width);
  });
}

}  // namespace aurora::cpu
