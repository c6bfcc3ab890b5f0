// expert_ffn on the tensor cores of any GPU since Ampere, through nvcc's portable matrix fragments.
//
// A block of four warps computes 64 rows by 64 columns, each warp 32 by 32. While the warps multiply one
// slice of the inner dimension, the threads hold the next one in registers, on its way from device to shared
// memory.
#include <mma.h>

#include "kernels/cuda/expert_product.cuh"

namespace aurora::cuda {
namespace {

using Element = __nv_bfloat16;

constexpr int kTile = 64;   // rows and columns of a block's output
constexpr int kDepth = 32;  // of one step along the inner dimension
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kPerChunk = 8;                 // elements of 16 bytes
constexpr int kStride = kDepth + kPerChunk;  // of a staged row: rows start in different banks
constexpr int kChunksPerRow = kDepth / kPerChunk;
constexpr int kChunks = kTile * kChunksPerRow / kThreads;  // of a slice, per thread
constexpr int kSumStride = kTile + 4;
constexpr int kFragment = 16;
constexpr int kPerWarp = kTile / 2 / kFragment;  // fragments along each side

struct alignas(32) Slice {
  Element values[kTile][kStride];
};

/// What a thread holds of a slice.
struct Chunks {
  uint4 values[kChunks];
};

/// One matrix of which a block reads 64 rows; `rows` gives each of them, or null.
struct RowReader {
  const Element* rows[kChunks];  // of this thread's chunks
  std::int64_t width;
  bool is_aligned;  // every row starts at a multiple of 16 bytes
};

__device__ int row_of(int chunk) {
  return (static_cast<int>(threadIdx.x) + chunk * kThreads) / kChunksPerRow;
}
__device__ int column_of(int chunk) {
  return (static_cast<int>(threadIdx.x) + chunk * kThreads) % kChunksPerRow * kPerChunk;
}

/// Columns [column, column + 8) of a row, zeros beyond its end.
__device__ uint4 read_chunk(const Element* row, std::int64_t column, const RowReader& reader) {
  uint4 chunk = {};
  if (row == nullptr || column >= reader.width) return chunk;
  if (reader.is_aligned && column + kPerChunk <= reader.width) {
    return *reinterpret_cast<const uint4*>(row + column);
  }
  auto* elements = reinterpret_cast<Element*>(&chunk);
  for (int i = 0; i < kPerChunk && column + i < reader.width; ++i) elements[i] = row[column + i];
  return chunk;
}

__device__ void read_slice(Chunks& chunks, const RowReader& reader, std::int64_t depth) {
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    chunks.values[i] = read_chunk(reader.rows[i], depth + column_of(i), reader);
  }
}

__device__ void write_slice(Slice& slice, const Chunks& chunks) {
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    *reinterpret_cast<uint4*>(&slice.values[row_of(i)][column_of(i)]) = chunks.values[i];
  }
}

__device__ bool is_aligned(const void* data, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(data) % sizeof(uint4) == 0 && stride % kPerChunk == 0;
}

__device__ RowReader input_reader(const DeviceProduct& p, const ExpertTile& tile) {
  RowReader reader{.rows = {}, .width = p.in_width, .is_aligned = is_aligned(p.input, p.input_stride)};
  for (int i = 0; i < kChunks; ++i) reader.rows[i] = source_row<Element>(p, tile, row_of(i));
  return reader;
}

__device__ RowReader weight_reader(const DeviceProduct& p, const std::byte* matrix, std::int64_t first) {
  const auto* weights = reinterpret_cast<const Element*>(matrix);
  RowReader reader{.rows = {}, .width = p.in_width, .is_aligned = is_aligned(weights, p.in_width)};
  for (int i = 0; i < kChunks; ++i) {
    const std::int64_t row = first + row_of(i);
    reader.rows[i] = row < p.out_width ? weights + row * p.in_width : nullptr;
  }
  return reader;
}

namespace wmma = nvcuda::wmma;
using Sum = wmma::fragment<wmma::accumulator, kFragment, kFragment, kFragment, float>;
using Sums = Sum[kPerWarp][kPerWarp];

/// Adds a slice's part to the warp's sums.
__device__ void multiply(Sums& sums, const Slice& rows, const Slice& weights, int first_row,
                         int first_column) {
  for (int k = 0; k < kDepth; k += kFragment) {
    wmma::fragment<wmma::matrix_a, kFragment, kFragment, kFragment, Element, wmma::row_major> a[kPerWarp];
    wmma::fragment<wmma::matrix_b, kFragment, kFragment, kFragment, Element, wmma::col_major> b[kPerWarp];
    for (int i = 0; i < kPerWarp; ++i) {
      wmma::load_matrix_sync(a[i], &rows.values[first_row + i * kFragment][k], kStride);
      wmma::load_matrix_sync(b[i], &weights.values[first_column + i * kFragment][k], kStride);
    }
    for (int i = 0; i < kPerWarp; ++i) {
      for (int j = 0; j < kPerWarp; ++j) wmma::mma_sync(sums[i][j], a[i], b[j], sums[i][j]);
    }
  }
}

__device__ void clear(Sums& sums) {
  for (auto& row : sums) {
    for (Sum& sum : row) wmma::fill_fragment(sum, 0.0F);
  }
}

/// The activation, in the fragment layout that both products have in common.
__device__ void gate(Sums& sums, const Sums& up_sums) {
  for (int i = 0; i < kPerWarp; ++i) {
    for (int j = 0; j < kPerWarp; ++j) {
      for (int e = 0; e < Sum::num_elements; ++e)
        sums[i][j].x[e] = silu(sums[i][j].x[e]) * up_sums[i][j].x[e];
    }
  }
}

struct alignas(32) Shared {
  Slice rows, weights, up_weights;
  float sums[kTile][kSumStride];
};

__device__ void store(Shared& shared, const Sums& sums, int row, int column) {
  for (int i = 0; i < kPerWarp; ++i) {
    for (int j = 0; j < kPerWarp; ++j) {
      wmma::store_matrix_sync(&shared.sums[row + i * kFragment][column + j * kFragment], sums[i][j],
                              kSumStride, wmma::mem_row_major);
    }
  }
}

template <class Out>
__device__ void write_tile(const DeviceProduct& p, const ExpertTile& tile, const Shared& shared) {
  const std::int64_t first_column = static_cast<std::int64_t>(tile.strip) * kTile;
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kTile; at += kThreads) {
    const int row = at / kTile;
    const std::int64_t column = first_column + at % kTile;
    if (row >= tile.num_rows || column >= p.out_width) continue;
    auto* output = reinterpret_cast<Out*>(p.output) + (tile.first_row + row) * p.out_width;
    output[column] = from_float<Out>(shared.sums[row][at % kTile]);
  }
}

template <bool kIsGated, class Out>
__global__ void mma_kernel(DeviceProduct p) {
  extern __shared__ __align__(16) std::byte shared_table[];
  const ExpertTable table(shared_table, p.tiles.num_experts);
  __shared__ Shared shared;
  count_tiles(p.tiles, table, p.faults);
  const auto number = static_cast<std::int32_t>(blockIdx.x);
  if (number >= table.first_tile[p.tiles.num_experts]) return;
  const ExpertTile tile = tile_at(p.tiles, table, number);
  const ExpertPointers expert = p.experts[tile.expert];
  const std::int64_t first_column = static_cast<std::int64_t>(tile.strip) * kTile;
  const RowReader inputs = input_reader(p, tile);
  const RowReader weights = weight_reader(p, kIsGated ? expert.gate : expert.down, first_column);
  const RowReader up_weights = kIsGated ? weight_reader(p, expert.up, first_column) : RowReader{};
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row = warp / 2 * (kTile / 2);
  const int column = warp % 2 * (kTile / 2);
  Sums sums, up_sums;
  clear(sums);
  clear(up_sums);
  Chunks next_inputs, next_weights, next_up;
  const auto read = [&](std::int64_t depth) {
    read_slice(next_inputs, inputs, depth);
    read_slice(next_weights, weights, depth);
    if constexpr (kIsGated) read_slice(next_up, up_weights, depth);
  };
  read(0);
  for (std::int64_t depth = 0; depth < p.in_width; depth += kDepth) {
    write_slice(shared.rows, next_inputs);
    write_slice(shared.weights, next_weights);
    if constexpr (kIsGated) write_slice(shared.up_weights, next_up);
    __syncthreads();
    if (depth + kDepth < p.in_width) read(depth + kDepth);
    multiply(sums, shared.rows, shared.weights, row, column);
    if constexpr (kIsGated) multiply(up_sums, shared.rows, shared.up_weights, row, column);
    __syncthreads();
  }
  if constexpr (kIsGated) gate(sums, up_sums);
  store(shared, sums, row, column);
  __syncthreads();
  write_tile<Out>(p, tile, shared);
}

}  // namespace

bool fits_mma(const ExpertProduct& product) {
  return product.experts->dtype() == DType::kBFloat16 && product.input.dtype() == DType::kBFloat16;
}

void submit_mma(CudaStream& stream, const ExpertProduct& given) {
  if (given.output.dim(1) == 0) return;
  const DeviceProduct product = device_product(stream, given, kTile, kTile);
  const auto blocks = static_cast<unsigned>(most_tiles(product.tiles));
  const std::size_t shared_bytes = ExpertTable::bytes(product.tiles.num_experts);
  if (given.stage == ExpertStage::kGateUp) {
    mma_kernel<true, Element><<<blocks, kThreads, shared_bytes, stream.handle()>>>(product);
  } else {
    with_element(given.output.dtype(), "expert_ffn", [&]<class Out>(Out*) {
      mma_kernel<false, Out><<<blocks, kThreads, shared_bytes, stream.handle()>>>(product);
    });
  }
  check_launch("expert_ffn mma");
}

}  // namespace aurora::cuda
