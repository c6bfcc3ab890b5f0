// What a MoE layer takes at the least on a device, by arithmetic alone.
//
// The raw floor knows only what no implementation can avoid: the products of 2 m n k operations at the
// device's rate, and reading the weights of every expert that has a row, once, at its bandwidth; the larger
// of the two. The attainable floor follows the layer through its three steps, which depend on each other: the
// gate and up products, the down product, the sum over a token's experts. Each takes the larger of its
// operations, with every expert's rows padded to a tile, and its bytes, activations included. See
// benchmarks/README.md.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "benchmarks/layer/shape.h"
#include "kernels/dtype.h"

namespace aurora::bench {

/// Rates that a device reaches on work that suits it, and where these numbers are from.
struct DeviceCeilings {
  double tflops = 0;           // 10^12 operations per second, of products in bfloat16
  double terabytes_per_s = 0;  // 10^12 bytes read and written per second
  std::string source;
  std::int64_t tile_rows = 1;  // rows that its matrix units take at least
};

/// Known ceilings of a device, by a part of its name; null where there are none.
const DeviceCeilings* find_ceilings(std::string_view device_name);

struct LayerFloors {
  double raw_us = 0;
  double attainable_us = 0;
  double flop = 0;          // of the products, unpadded
  double weight_bytes = 0;  // of the experts hit
  /// Read and written at the least: weights, hidden states, activations between products, expert outputs,
  /// sum.
  double bytes = 0;
  std::int64_t num_hit = 0;
};

/// The least M of a Hopper matrix instruction.
inline constexpr std::int64_t kGpuTileRows = 64;

/// `pairs_by_expert` as LayerRouting has it; weights and activations are of `dtype`.
LayerFloors layer_floors(const LayerShape& shape, std::int64_t num_tokens,
                         std::span<const std::int64_t> pairs_by_expert, DType dtype,
                         const DeviceCeilings& ceilings);

}  // namespace aurora::bench
