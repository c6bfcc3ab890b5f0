#include "benchmarks/layer/floors.h"

#include <algorithm>

namespace aurora::bench {
namespace {

constexpr double kOperationsPerUsOfTflops = 1e6;
constexpr double kBytesPerUsOfTerabytes = 1e6;

struct KnownDevice {
  std::string_view name_part;
  DeviceCeilings ceilings;
};

}  // namespace

const DeviceCeilings* find_ceilings(std::string_view device_name) {
  // H200: a dense 8192^3 product through cuBLAS, and a device copy, measured. H100: the same processor, and
  // the same share (4.3 of 4.8 TB/s) of its memory's 3.35 TB/s.
  static const KnownDevice kDevices[] = {
      {"H200", {790, 4.3, "H200, measured", kGpuTileRows}},
      {"H100 80GB HBM3", {790, 3.0, "H100 SXM, from the H200's", kGpuTileRows}},
  };
  for (const KnownDevice& device : kDevices) {
    if (device_name.find(device.name_part) != std::string_view::npos) return &device.ceilings;
  }
  return nullptr;
}

LayerFloors layer_floors(const LayerShape& shape, std::int64_t num_tokens,
                         std::span<const std::int64_t> pairs_by_expert, DType dtype,
                         const DeviceCeilings& ceilings) {
  LayerFloors floors;
  double pairs = 0;
  double padded = 0;
  const std::int64_t tile = ceilings.tile_rows;
  for (const std::int64_t count : pairs_by_expert) {
    floors.num_hit += count > 0;
    pairs += static_cast<double>(count);
    const std::int64_t num_tiles = (count + tile - 1) / tile;
    padded += static_cast<double>(num_tiles * tile);
  }
  const auto element = static_cast<double>(dtype_bytes(dtype));
  const auto hidden = static_cast<double>(shape.hidden);
  const auto inner = static_cast<double>(shape.inner);
  const double matrix_bytes = static_cast<double>(floors.num_hit) * hidden * inner * element;
  const double token_bytes = static_cast<double>(num_tokens) * hidden * element;
  const double inner_bytes = pairs * inner * element;
  const double output_bytes = pairs * hidden * element;
  const auto step_us = [&](double flop, double bytes) {
    floors.bytes += bytes;
    return std::max(flop / (ceilings.tflops * kOperationsPerUsOfTflops),
                    bytes / (ceilings.terabytes_per_s * kBytesPerUsOfTerabytes));
  };
  const double product = 2 * hidden * inner;  // of one row with one matrix
  floors.attainable_us = step_us(2 * padded * product, token_bytes + 2 * matrix_bytes + inner_bytes) +
                         step_us(padded * product, inner_bytes + matrix_bytes + output_bytes) +
                         step_us(0, output_bytes + token_bytes);
  floors.flop = 3 * pairs * product;
  floors.weight_bytes = 3 * matrix_bytes;
  floors.raw_us = std::max(floors.flop / (ceilings.tflops * kOperationsPerUsOfTflops),
                           floors.weight_bytes / (ceilings.terabytes_per_s * kBytesPerUsOfTerabytes));
  return floors;
}

}  // namespace aurora::bench
