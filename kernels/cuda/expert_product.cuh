// An ExpertProduct as kernels read it that find their weights through pointers.
#pragma once

#include "kernels/cuda/expert_products.h"
#include "kernels/cuda/expert_tiles.cuh"

namespace aurora::cuda {

struct DeviceProduct {
  ExpertTiles tiles;
  const ExpertPointers* experts = nullptr;
  const std::int32_t* row_indices = nullptr;
  const std::byte* input = nullptr;
  std::int64_t num_input_rows = 0;
  std::int64_t input_stride = 0;  // elements
  std::int64_t in_width = 0;
  std::int64_t out_width = 0;
  std::byte* output = nullptr;
  FaultSink faults;
};

inline ExpertTiles expert_tiles(const ExpertProduct& product, std::int32_t tile_rows,
                                std::int32_t tile_columns) {
  return {.expert_offsets = product.expert_offsets,
          .num_experts = static_cast<std::int32_t>(product.experts->size()),
          .num_rows = static_cast<std::int32_t>(product.output.dim(0)),
          .tile_rows = tile_rows,
          .num_strips = static_cast<std::int32_t>((product.output.dim(1) + tile_columns - 1) / tile_columns)};
}

inline DeviceProduct device_product(CudaStream& stream, const ExpertProduct& product, std::int32_t tile_rows,
                                    std::int32_t tile_columns) {
  return {.tiles = expert_tiles(product, tile_rows, tile_columns),
          .experts = product.experts->pointers(),
          .row_indices = product.row_indices,
          .input = product.input.bytes(),
          .num_input_rows = product.input.dim(0),
          .input_stride = product.input.dim(1),
          .in_width = product.in_width,
          .out_width = product.output.dim(1),
          .output = product.output.bytes(),
          .faults = stream.faults()};
}

/// The input row of the tile's `row`-th; null when the tile has none, or a bad index, which is reported.
template <class In>
__device__ const In* source_row(const DeviceProduct& p, const ExpertTile& tile, int row) {
  if (row >= tile.num_rows) return nullptr;
  const std::int32_t position = tile.first_row + row;
  const std::int32_t index = p.row_indices == nullptr ? position : p.row_indices[position];
  if (!index_fits(p.faults, FaultSite::kExpertRowIndices, position, index, p.num_input_rows)) return nullptr;
  return reinterpret_cast<const In*>(p.input) + index * p.input_stride;
}

}  // namespace aurora::cuda
