// expert_ffn without tensor cores: any dtype and width, every element one sum in ascending order.
#include "kernels/cuda/expert_product.cuh"

namespace aurora::cuda {
namespace {

constexpr int kTile = 64;      // rows and columns of a block's output
constexpr int kDepth = 16;     // of one step along the inner dimension
constexpr int kPerThread = 4;  // each thread computes 4 x 4 elements
constexpr int kThreads = (kTile / kPerThread) * (kTile / kPerThread);

struct Tile {
  float values[kDepth][kTile + 1];
};
using Sums = float[kPerThread][kPerThread];

/// Where the rows of a tile come from; null where the tile has no row, or a bad index.
template <class In>
struct RowSources {
  const In* rows[kTile];
};

/// Stages columns [depth, depth + kDepth) of the rows, transposed, rounded to the weights' type; beyond the
/// edge zeros, which leave every sum as it is.
template <class Weight, class In>
__device__ void stage_rows(Tile& to, const RowSources<In>& sources, std::int64_t depth, std::int64_t width) {
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kDepth; at += kThreads) {
    const In* row = sources.rows[at / kDepth];
    const std::int64_t column = depth + at % kDepth;
    const bool is_inside = row != nullptr && column < width;
    to.values[at % kDepth][at / kDepth] = is_inside ? to_float(convert<Weight>(row[column])) : 0.0F;
  }
}

template <class Weight>
__device__ void stage_weights(Tile& to, const std::byte* matrix, std::int64_t first, const DeviceProduct& p,
                              std::int64_t depth) {
  const auto* weights = reinterpret_cast<const Weight*>(matrix);
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kDepth; at += kThreads) {
    const std::int64_t row = first + at / kDepth;
    const std::int64_t column = depth + at % kDepth;
    const bool is_inside = row < p.out_width && column < p.in_width;
    to.values[at % kDepth][at / kDepth] = is_inside ? to_float(weights[row * p.in_width + column]) : 0.0F;
  }
}

__device__ void multiply(Sums& sums, const Tile& rows, const Tile& weights, int first_row, int first_column) {
#pragma unroll
  for (int k = 0; k < kDepth; ++k) {
    for (int i = 0; i < kPerThread; ++i) {
      for (int j = 0; j < kPerThread; ++j) {
        sums[i][j] = fmaf(rows.values[k][first_row + i], weights.values[k][first_column + j], sums[i][j]);
      }
    }
  }
}

template <bool kIsGated, class Weight, class In, class Out>
__global__ void scalar_kernel(DeviceProduct p) {
  extern __shared__ __align__(16) std::byte shared_table[];
  const ExpertTable table(shared_table, p.tiles.num_experts);
  __shared__ Tile rows, weights, up_weights;
  __shared__ RowSources<In> sources;
  count_tiles(p.tiles, table, p.faults);
  const auto number = static_cast<std::int32_t>(blockIdx.x);
  if (number >= table.first_tile[p.tiles.num_experts]) return;
  const ExpertTile tile = tile_at(p.tiles, table, number);
  const ExpertPointers expert = p.experts[tile.expert];
  if (threadIdx.x < kTile) sources.rows[threadIdx.x] = source_row<In>(p, tile, static_cast<int>(threadIdx.x));
  __syncthreads();
  const std::int64_t first_column = static_cast<std::int64_t>(tile.strip) * kTile;
  const int row = static_cast<int>(threadIdx.x) / (kTile / kPerThread) * kPerThread;
  const int column = static_cast<int>(threadIdx.x) % (kTile / kPerThread) * kPerThread;
  Sums sums = {};
  Sums up_sums = {};
  for (std::int64_t depth = 0; depth < p.in_width; depth += kDepth) {
    stage_rows<Weight>(rows, sources, depth, p.in_width);
    stage_weights<Weight>(weights, kIsGated ? expert.gate : expert.down, first_column, p, depth);
    if constexpr (kIsGated) stage_weights<Weight>(up_weights, expert.up, first_column, p, depth);
    __syncthreads();
    multiply(sums, rows, weights, row, column);
    if constexpr (kIsGated) multiply(up_sums, rows, up_weights, row, column);
    __syncthreads();
  }
  for (int i = 0; i < kPerThread && row + i < tile.num_rows; ++i) {
    auto* output = reinterpret_cast<Out*>(p.output) + (tile.first_row + row + i) * p.out_width;
    for (int j = 0; j < kPerThread && first_column + column + j < p.out_width; ++j) {
      const float value = kIsGated ? silu(sums[i][j]) * up_sums[i][j] : sums[i][j];
      output[first_column + column + j] = from_float<Out>(value);
    }
  }
}

template <bool kIsGated>
void launch(CudaStream& stream, const ExpertProduct& given) {
  const DeviceProduct product = device_product(stream, given, kTile, kTile);
  const auto blocks = static_cast<unsigned>(most_tiles(product.tiles));
  // What goes between the two products is in the weights' dtype.
  const DType free_dtype = kIsGated ? given.input.dtype() : given.output.dtype();
  with_element(given.experts->dtype(), "expert_ffn", [&]<class Weight>(Weight*) {
    with_element(free_dtype, "expert_ffn", [&]<class Free>(Free*) {
      using In = std::conditional_t<kIsGated, Free, Weight>;
      using Out = std::conditional_t<kIsGated, Weight, Free>;
      scalar_kernel<kIsGated, Weight, In, Out>
          <<<blocks, kThreads, ExpertTable::bytes(product.tiles.num_experts), stream.handle()>>>(product);
    });
  });
}

}  // namespace

void submit_scalar(CudaStream& stream, const ExpertProduct& product) {
  if (product.output.dim(1) == 0) return;
  if (product.stage == ExpertStage::kGateUp) {
    launch<true>(stream, product);
  } else {
    launch<false>(stream, product);
  }
  check_launch("expert_ffn scalar");
}

}  // namespace aurora::cuda
