#include "kernels/cpu/float8_rows.h"

#include <algorithm>
#include <array>
#include <bit>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows.h"
#include "kernels/float8.h"

namespace aurora::cpu {
namespace {

/// The largest finite magnitude. Magnitudes order as their bits do.
AURORA_INLINE float largest_finite(const float* values, std::int64_t count) {
  constexpr std::int32_t kMagnitude = 0x7fffffff;
  constexpr std::int32_t kInfinity = 0x7f800000;
  std::int32_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int32_t magnitude = std::bit_cast<std::int32_t>(values[i]) & kMagnitude;
    largest = std::max(largest, magnitude < kInfinity ? magnitude : 0);
  }
  return std::bit_cast<float>(largest);
}

template <typename From>
struct QuantizeRows {
  template <typename L>
  AURORA_INLINE static void run(const RowCopy* args, const From* input) {
    const std::int64_t stride = args->input.dim(1);
    for (std::int64_t row = 0; row < args->num_rows; ++row) {
      std::byte* output = args->output + row * args->output_row_bytes;
      auto* scales = reinterpret_cast<float*>(output + float8_scales_offset(args->width));
      const From* source = input + args->indices[row] * stride;
      for (std::int64_t begin = 0; begin < args->width; begin += kFloat8Group) {
        const std::int64_t count = std::min(kFloat8Group, args->width - begin);
        float values[kFloat8Group];
        copy_row<L>(values, source + begin, count);
        const float scale = float8_scale(largest_finite(values, count));
        auto* numbers = reinterpret_cast<std::uint8_t*>(output + begin);
        for (std::int64_t i = 0; i < count; ++i) numbers[i] = float_to_e4m3(values[i] / scale);
        *scales++ = scale;
      }
    }
  }
};

constexpr std::array<float, 256> kE4M3Values = [] {
  std::array<float, 256> values{};
  for (std::size_t bits = 0; bits < values.size(); ++bits) {
    values[bits] = e4m3_to_float(static_cast<std::uint8_t>(bits));
  }
  return values;
}();

template <typename To>
struct DequantizeRows {
  template <typename L>
  AURORA_INLINE static void run(const DequantizeRowsArgs* args, To* output) {
    const std::int64_t width = args->output.dim(1);
    for (std::int64_t row = 0; row < args->output.dim(0); ++row, output += width) {
      const std::byte* input = args->rows + static_cast<std::size_t>(row) * args->row_bytes;
      const auto* scales = reinterpret_cast<const float*>(input + float8_scales_offset(width));
      for (std::int64_t begin = 0; begin < width; begin += kFloat8Group) {
        const std::int64_t count = std::min(kFloat8Group, width - begin);
        const auto* numbers = reinterpret_cast<const std::uint8_t*>(input + begin);
        const float scale = *scales++;
        float values[kFloat8Group];
        for (std::int64_t i = 0; i < count; ++i) values[i] = kE4M3Values[numbers[i]] * scale;
        copy_row<L>(output + begin, values, count);
      }
    }
  }
};

}  // namespace

void quantize_rows(const RowCopy& args) {
  check_indices(args);
  if (args.input.dtype() == DType::kFloat32) {
    return run_for_active_isa<QuantizeRows<float>>(&args, static_cast<const float*>(args.input.f32()));
  }
  run_for_active_isa<QuantizeRows<std::uint16_t>>(&args, static_cast<const std::uint16_t*>(args.input.u16()));
}

void CpuOps::dequantize_rows(Stream& stream, const DequantizeRowsArgs& args) const {
  check_args(args);
  if (args.output.is_empty()) return;
  cpu_stream(stream).submit([args] {
    if (args.output.dtype() == DType::kFloat32) {
      return run_for_active_isa<DequantizeRows<float>>(&args, args.output.f32());
    }
    run_for_active_isa<DequantizeRows<std::uint16_t>>(&args, args.output.u16());
  });
}

}  // namespace aurora::cpu
