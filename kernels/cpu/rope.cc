#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows.h"

namespace aurora::cpu {
namespace {

struct Rotate {
  /// One token: every head is rotated by the same angles.
  template <typename L>
  AURORA_INLINE static void run(float* heads, const float* cosine, const float* sine, std::int64_t num_heads,
                                std::int64_t half) {
    for (std::int64_t head = 0; head < num_heads; ++head) {
      float* first = heads + head * 2 * half;
      float* second = first + half;
      for (std::int64_t i = 0; i < half; i += kLanes) {
        const std::int64_t count = half - i;
        const L x = load_lanes<L>(first + i, count);
        const L y = load_lanes<L>(second + i, count);
        const L c = load_lanes<L>(cosine + i, count);
        const L s = load_lanes<L>(sine + i, count);
        store_lanes(first + i, x * c - y * s, count);
        store_lanes(second + i, y * c + x * s, count);
      }
    }
  }
};

}  // namespace

void CpuOps::rope(Stream& stream, const RopeArgs& args) const {
  const std::int64_t num_tokens = args.query.dim(0);
  const std::int64_t width = args.query.dim(2);
  check_args(args);
  if (num_tokens == 0) return;
  const std::int64_t num_positions = args.cosine.dim(0);
  const std::int64_t half = width / 2;
  cpu_stream(stream).submit([=] {
    const std::int32_t* positions = args.positions.i32();
    for (std::int64_t token = 0; token < num_tokens; ++token) {
      check_index(positions[token], num_positions, token, "rope: positions");
      for (const Tensor& heads : {args.query, args.key}) {
        const std::int64_t num_heads = heads.dim(1);
        run_for_active_isa<Rotate>(heads.f32() + token * num_heads * width,
                                   args.cosine.f32() + positions[token] * half,
                                   args.sine.f32() + positions[token] * half, num_heads, half);
      }
    }
  });
}

}  // namespace aurora::cpu
