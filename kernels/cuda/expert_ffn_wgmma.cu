// expert_ffn on Hopper: the weights stream through shared memory, the tokens are the columns of the product.
//
// A tile is one strip of an expert's output features by up to kTokens of its rows. The warpgroup product has
// 64 rows and any number of columns from 8 on, so the features are its rows and the tokens its columns: an
// expert with three tokens costs a product of 8 columns, not one of 64 or 128 rows. One warpgroup fetches,
// the others multiply. Slices of 64 along the inner dimension go round a ring of kStages stages, from tile to
// tile without a pause. Of a stage,
//   the weights, 2 blocks of 64 features for each multiplying warpgroup, come through the copy engine: for
//     kGateUp the gate rows of all warpgroups and then their up rows, so that a warpgroup has both parts of
//     an activation in the same registers; for kDown successive features;
//   the tokens' rows come for kGateUp from where they were received, by index, with 16-byte copies of all
//     threads of the fetching warpgroup; for kDown they lie side by side and come through the copy engine.
// Columns beyond a group's last row are computed from whatever is there and thrown away: columns do not mix.
// The sums leave transposed, through shared memory, as rows of 64 features (128 bytes).
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_properties.h"
#include "kernels/cuda/expert_products.h"
#include "kernels/cuda/expert_tiles.cuh"
#include "kernels/cuda/warpgroup_product.cuh"

namespace aurora::cuda {
namespace {

using Element = __nv_bfloat16;

constexpr int kSlice = 64;  // of the inner dimension: 128 bytes
constexpr int kBlock = 64;  // features: rows of a warpgroup product
constexpr int kRowBytes = kSlice * 2;
constexpr int kBlockBytes = kBlock * kRowBytes;
constexpr int kTokenBox = 32;  // rows of the copy engine's box of tokens
constexpr int kChunkBytes = 16;
constexpr int kChunks = kRowBytes / kChunkBytes;   // of a row's slice
constexpr int kGatherRows = kWarpgroup / kChunks;  // that one pass of the fetching threads copies
constexpr int kGatherLag = 2;  // slices that are on their way before the first is announced

template <int kMultipliers, int kTokenColumns, int kStageCount>
struct Config {
  static constexpr int kWarpgroups = kMultipliers;  // that multiply
  static constexpr int kTokens = kTokenColumns;     // of a tile
  static constexpr int kStages = kStageCount;
  static constexpr int kThreads = (kWarpgroups + 1) * kWarpgroup;
  static constexpr int kBlocks = 2 * kWarpgroups;
  static constexpr int kWeightBytes = kBlocks * kBlockBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kRowBytes;
  static constexpr int kOutputBytes = kTokens * kRowBytes;  // of one warpgroup
  static constexpr int kBarrierOffset = kStages * kStageBytes + kWarpgroups * kOutputBytes;
  static constexpr int kFirstTileOffset = kBarrierOffset + 2 * kStages * 8;
  static_assert(kTokens % kTokenBox == 0 && kStages > kGatherLag);
};

// Few rows an expert: many small tiles, as many bytes of weights under way as fit. Many rows: large tiles.
using FewRows = Config<1, 64, 8>;
using ManyRows = Config<2, 128, 4>;

/// Rows an expert, on average over the bound, up to which FewRows is taken.
constexpr std::int64_t kFewRowsPerExpert = 32;

/// As the kernel reads it.
struct alignas(128) Product {
  TensorMap activations;  // kDown: the rows, side by side
  ExpertTiles tiles;
  const ExpertMaps* experts = nullptr;
  const Element* input = nullptr;  // kGateUp: rows by index
  const std::int32_t* row_indices = nullptr;
  std::int64_t num_input_rows = 0;
  std::int64_t input_stride = 0;
  std::int32_t in_width = 0;
  std::int32_t out_width = 0;
  Element* output = nullptr;
  FaultSink faults;
};

/// A place in the ring, and how often the ring was gone round.
template <class C>
struct Place {
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ void advance() {
    if (++stage < C::kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

/// The block's shared memory.
template <class C>
struct Ring {
  SharedAddress base;

  __device__ SharedAddress weights(int stage, int block) const {
    return base + stage * C::kStageBytes + block * kBlockBytes;
  }
  __device__ SharedAddress tokens(int stage) const { return base + stage * C::kStageBytes + C::kWeightBytes; }
  __device__ SharedAddress output(int warpgroup) const {
    return base + C::kStages * C::kStageBytes + warpgroup * C::kOutputBytes;
  }
  /// Complete when the stage has been filled, and when it may be filled again.
  __device__ SharedAddress full(int stage) const { return base + C::kBarrierOffset + stage * 8; }
  __device__ SharedAddress empty(int stage) const {
    return base + C::kBarrierOffset + (C::kStages + stage) * 8;
  }
};

template <class C, bool kIsGated>
__device__ void init_ring(const Ring<C>& ring) {
  if (threadIdx.x != 0) return;
  for (int stage = 0; stage < C::kStages; ++stage) {
    // The thread that asks the copy engine, and those that gather; one thread of each warp that multiplies.
    init_barrier(ring.full(stage), kIsGated ? 1 + kWarpgroup : 1);
    init_barrier(ring.empty(stage), C::kWarpgroups * kWarpgroup / kWarp);
  }
  publish_barriers();
}

// ---- the warpgroup that fetches ----

/// Asks for the weights' slice of a tile, and says how many bytes the stage waits for besides: `token_bytes`.
template <class C, bool kIsGated>
__device__ void fetch_weights(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int stage,
                              int depth, std::uint32_t token_bytes) {
  const ExpertMaps& maps = p.experts[tile.expert];
  arrive_and_expect(ring.full(stage), C::kWeightBytes + token_bytes);
#pragma unroll
  for (int block = 0; block < C::kBlocks; ++block) {
    const bool is_up = kIsGated && block >= C::kWarpgroups;
    const TensorMap* map = !kIsGated ? &maps.down : (is_up ? &maps.up : &maps.gate);
    constexpr int kStripBlocks = kIsGated ? C::kWarpgroups : C::kBlocks;
    const int feature = (tile.strip * kStripBlocks + block - (is_up ? C::kWarpgroups : 0)) * kBlock;
    copy_box(ring.weights(stage, block), map, depth, feature, ring.full(stage));
  }
}

/// The rows that this thread gathers of a tile: its chunk of every kGatherRows-th row.
template <class C>
struct GatheredRows {
  const Element* rows[C::kTokens / kGatherRows];  // null where there is none

  __device__ GatheredRows(const Product& p, const ExpertTile& tile) {
#pragma unroll
    for (int i = 0; i < C::kTokens / kGatherRows; ++i) {
      rows[i] = nullptr;
      const int row = static_cast<int>(threadIdx.x) / kChunks + i * kGatherRows;
      if (row >= tile.num_rows) continue;
      const std::int32_t position = tile.first_row + row;
      const std::int32_t index = p.row_indices[position];
      if (!index_fits(p.faults, FaultSite::kExpertRowIndices, position, index, p.num_input_rows)) continue;
      rows[i] = p.input + index * p.input_stride;
    }
  }

  /// Starts the copies of a slice, with the swizzle that the copy engine would have used.
  __device__ void fetch(SharedAddress tokens, int depth, int in_width) const {
    const int first_row = static_cast<int>(threadIdx.x) / kChunks;
    const int chunk = static_cast<int>(threadIdx.x) % kChunks;
    const int column = depth + chunk * (kChunkBytes / 2);
    const std::uint32_t num_bytes = column < in_width ? kChunkBytes : 0;  // a slice's end: zeros
    const SharedAddress place =
        tokens + first_row * kRowBytes + ((chunk ^ (first_row % kChunks)) * kChunkBytes);
#pragma unroll
    for (int i = 0; i < C::kTokens / kGatherRows; ++i) {
      if (rows[i] == nullptr) continue;
      copy_16(place + i * kGatherRows * kRowBytes, num_bytes == 0 ? rows[i] : rows[i] + column, num_bytes);
    }
  }
};

/// kGateUp. A slice is announced kGatherLag slices after its copies were started.
template <class C>
__device__ void fetch_gathered(const Product& p, const Ring<C>& ring, const std::int32_t* first_tile) {
  Place<C> place, announced;
  int num_under_way = 0;
  const auto announce = [&] {
    publish_shared_writes();
    arrive(ring.full(announced.stage));
    announced.advance();
    --num_under_way;
  };
  const std::int32_t num_tiles = first_tile[p.tiles.num_experts];
  for (auto number = static_cast<std::int32_t>(blockIdx.x); number < num_tiles; number += gridDim.x) {
    const ExpertTile tile = tile_at(p.tiles, first_tile, number);
    const GatheredRows<C> rows(p, tile);
    for (int depth = 0; depth < p.in_width; depth += kSlice) {
      wait_for(ring.empty(place.stage), place.parity ^ 1);
      if (threadIdx.x == 0) fetch_weights<C, true>(p, ring, tile, place.stage, depth, 0);
      rows.fetch(ring.tokens(place.stage), depth, p.in_width);
      commit_copies();
      if (++num_under_way > kGatherLag) {
        wait_for_copies<kGatherLag>();
        announce();
      }
      place.advance();
    }
  }
  wait_for_copies<0>();
  while (num_under_way > 0) announce();
}

/// kDown, one thread.
template <class C>
__device__ void fetch_boxes(const Product& p, const Ring<C>& ring, const std::int32_t* first_tile) {
  Place<C> place;
  const std::int32_t num_tiles = first_tile[p.tiles.num_experts];
  for (auto number = static_cast<std::int32_t>(blockIdx.x); number < num_tiles; number += gridDim.x) {
    const ExpertTile tile = tile_at(p.tiles, first_tile, number);
    const int num_boxes = (tile.num_rows + kTokenBox - 1) / kTokenBox;
    for (int depth = 0; depth < p.in_width; depth += kSlice) {
      wait_for(ring.empty(place.stage), place.parity ^ 1);
      fetch_weights<C, false>(p, ring, tile, place.stage, depth, num_boxes * kTokenBox * kRowBytes);
      for (int box = 0; box < num_boxes; ++box) {
        copy_box(ring.tokens(place.stage) + box * kTokenBox * kRowBytes, &p.activations, depth,
                 tile.first_row + box * kTokenBox, ring.full(place.stage));
      }
      place.advance();
    }
  }
}

// ---- the warpgroups that multiply ----

/// Two blocks of features by kColumns tokens, summed over the inner dimension.
template <class C, int kColumns>
__device__ void multiply_tile(const Ring<C>& ring, Place<C>& place, int warpgroup, int num_slices,
                              float (&first_sums)[kColumns / 2], float (&second_sums)[kColumns / 2]) {
  const auto release = [&](int stage) {
    if (threadIdx.x % kWarp == 0) arrive(ring.empty(stage));
  };
  int previous = 0;
  for (int slice = 0; slice < num_slices; ++slice) {
    wait_for(ring.full(place.stage), place.parity);
    const std::uint64_t first = matrix_descriptor(ring.weights(place.stage, warpgroup));
    const std::uint64_t second = matrix_descriptor(ring.weights(place.stage, warpgroup + C::kWarpgroups));
    const std::uint64_t tokens = matrix_descriptor(ring.tokens(place.stage));
    begin_products();
#pragma unroll
    for (int step = 0; step < kSlice / 16; ++step) {
      multiply_16<kColumns>(first_sums, next_16_columns(first, step), next_16_columns(tokens, step));
      multiply_16<kColumns>(second_sums, next_16_columns(second, step), next_16_columns(tokens, step));
    }
    commit_products();
    if (slice > 0) {
      wait_for_products<1>();
      release(previous);
    }
    previous = place.stage;
    place.advance();
  }
  wait_for_products<0>();
  settle(first_sums);
  settle(second_sums);
  release(previous);
}

__device__ std::uint32_t pack(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

/// Writes a warpgroup's 64 features by the tile's tokens, left in shared memory, to rows of the output.
template <class C>
__device__ void write_rows(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int warpgroup,
                           int first_feature) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const SharedAddress output = ring.output(warpgroup);
  const int feature = first_feature + thread % kChunks * (kChunkBytes / 2);
  if (feature >= p.out_width) return;
#pragma unroll 1
  for (int token = thread / kChunks; token < tile.num_rows; token += kGatherRows) {
    const uint4 values_of_chunk =
        load_shared_16(output + token * kRowBytes + (thread % kChunks ^ (token % kChunks)) * kChunkBytes);
    Element* row = p.output + static_cast<std::int64_t>(tile.first_row + token) * p.out_width;
    *reinterpret_cast<uint4*>(row + feature) = values_of_chunk;
  }
}

/// A warpgroup's 64 features by kColumns tokens, from registers to rows of the output.
template <class C, int kColumns>
__device__ void write_block(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int warpgroup,
                            int first_feature, const float (&values)[kColumns / 2]) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int lane = thread % kWarp;
  synchronize(1 + warpgroup, kWarpgroup);  // the block before this one has left
  const int chunk = thread / kWarp * 2 + lane / 8 % 2;
  const SharedAddress place =
      ring.output(warpgroup) + lane % 8 * kRowBytes + (chunk ^ (lane % kChunks)) * kChunkBytes;
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j) {
    store_transposed(place + j * 8 * kRowBytes, pack(values[4 * j], values[4 * j + 1]),
                     pack(values[4 * j + 2], values[4 * j + 3]));
  }
  synchronize(1 + warpgroup, kWarpgroup);
  write_rows(p, ring, tile, warpgroup, first_feature);
}

template <class C, bool kIsGated, int kColumns>
__device__ void compute_tile(const Product& p, const Ring<C>& ring, Place<C>& place, const ExpertTile& tile,
                             int warpgroup) {
  // Cleared, not begun with a product that ignores what was there: to the compiler such sums would be read
  // before they are written, hence alive from tile to tile, and those of all numbers of columns at once.
  float first[kColumns / 2] = {};
  float second[kColumns / 2] = {};
  multiply_tile<C, kColumns>(ring, place, warpgroup, (p.in_width + kSlice - 1) / kSlice, first, second);
  if constexpr (kIsGated) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) first[i] = silu(first[i]) * second[i];
    write_block<C, kColumns>(p, ring, tile, warpgroup, (tile.strip * C::kWarpgroups + warpgroup) * kBlock,
                             first);
  } else {
    const int block = tile.strip * C::kBlocks + warpgroup;
    write_block<C, kColumns>(p, ring, tile, warpgroup, block * kBlock, first);
    write_block<C, kColumns>(p, ring, tile, warpgroup, (block + C::kWarpgroups) * kBlock, second);
  }
}

template <class C, bool kIsGated>
__device__ void compute_tiles(const Product& p, const Ring<C>& ring, const std::int32_t* first_tile,
                              int warpgroup) {
  Place<C> place;
  const std::int32_t num_tiles = first_tile[p.tiles.num_experts];
#pragma unroll 1
  for (auto number = static_cast<std::int32_t>(blockIdx.x); number < num_tiles; number += gridDim.x) {
    const ExpertTile tile = tile_at(p.tiles, first_tile, number);
    if (tile.num_rows <= 8) {
      compute_tile<C, kIsGated, 8>(p, ring, place, tile, warpgroup);
    } else if (tile.num_rows <= 16) {
      compute_tile<C, kIsGated, 16>(p, ring, place, tile, warpgroup);
    } else if (tile.num_rows <= 32) {
      compute_tile<C, kIsGated, 32>(p, ring, place, tile, warpgroup);
    } else if (C::kTokens <= 64 || tile.num_rows <= 64) {
      compute_tile<C, kIsGated, 64>(p, ring, place, tile, warpgroup);
    } else if constexpr (C::kTokens > 64) {
      if (tile.num_rows <= 96) {
        compute_tile<C, kIsGated, 96>(p, ring, place, tile, warpgroup);
      } else {
        compute_tile<C, kIsGated, 128>(p, ring, place, tile, warpgroup);
      }
    }
  }
}

template <class C, bool kIsGated>
__global__ void __launch_bounds__(C::kThreads, 1) wgmma_kernel(const __grid_constant__ Product p) {
  extern __shared__ __align__(1024) std::byte shared[];
  const Ring<C> ring{shared_address(shared)};
  auto* first_tile = reinterpret_cast<std::int32_t*>(shared + C::kFirstTileOffset);
  init_ring<C, kIsGated>(ring);
  wait_for_kernel_before();
  let_next_kernel_begin();
  count_tiles(p.tiles, first_tile, p.faults);
  // With two multiplying warpgroups the registers that the compiler may count on do not suffice for their
  // sums.
  constexpr bool kMovesRegisters = C::kWarpgroups > 1;
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup == 0) {
    if constexpr (kMovesRegisters) give_registers_back<56>();
    if constexpr (kIsGated) {
      fetch_gathered<C>(p, ring, first_tile);
    } else if (threadIdx.x == 0) {
      fetch_boxes<C>(p, ring, first_tile);
    }
  } else {
    if constexpr (kMovesRegisters) take_registers<224>();
    compute_tiles<C, kIsGated>(p, ring, first_tile, warpgroup - 1);
  }
}

template <class C, bool kIsGated>
void launch(CudaStream& stream, Product product) {
  product.tiles.tile_rows = C::kTokens;
  const int strip_features = (kIsGated ? C::kWarpgroups : C::kBlocks) * kBlock;
  product.tiles.num_strips = (product.out_width + strip_features - 1) / strip_features;
  const int shared_bytes =
      C::kFirstTileOffset + (product.tiles.num_experts + 1) * static_cast<int>(sizeof(std::int32_t));
  check_cuda(cudaFuncSetAttribute(wgmma_kernel<C, kIsGated>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  shared_bytes),
             "expert_ffn wgmma shared memory");
  const auto blocks = static_cast<unsigned>(
      std::min<std::int64_t>(current_device().num_multiprocessors, most_tiles(product.tiles)));
  launch_dependent(wgmma_kernel<C, kIsGated>, blocks, C::kThreads, static_cast<std::size_t>(shared_bytes),
                   stream.handle(), "expert_ffn wgmma", product);
}

bool is_aligned(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % kChunkBytes == 0; }

}  // namespace

bool has_wgmma() { return current_device().capability_major == 9; }

bool fits_wgmma(const ExpertProduct& product) {
  constexpr int kMostShared = 227 << 10;
  constexpr std::int64_t kMostExperts = (kMostShared - ManyRows::kFirstTileOffset) / 4 - 1;
  static_assert(kMostExperts >= 256 && FewRows::kFirstTileOffset <= ManyRows::kFirstTileOffset);
  return product.experts->maps() != nullptr && product.experts->size() <= kMostExperts &&
         product.input.dtype() == DType::kBFloat16 && product.output.dtype() == DType::kBFloat16 &&
         product.input.dim(1) % 8 == 0 && is_aligned(product.input.bytes()) &&
         is_aligned(product.output.bytes());
}

void submit_wgmma(CudaStream& stream, const ExpertProduct& given) {
  const bool is_gated = given.stage == ExpertStage::kGateUp;
  Product product{.activations = {},
                  .tiles = {.expert_offsets = given.expert_offsets,
                            .num_experts = static_cast<std::int32_t>(given.experts->size()),
                            .num_rows = static_cast<std::int32_t>(given.output.dim(0))},
                  .experts = given.experts->maps(),
                  .input = data_of<const Element>(given.input),
                  .row_indices = given.row_indices,
                  .num_input_rows = given.input.dim(0),
                  .input_stride = given.input.dim(1),
                  .in_width = static_cast<std::int32_t>(given.in_width),
                  .out_width = static_cast<std::int32_t>(given.output.dim(1)),
                  .output = data_of<Element>(given.output),
                  .faults = stream.faults()};
  if (!is_gated) {
    product.activations = make_tensor_map(given.input.bytes(), given.input.dim(0), given.in_width,
                                          given.input.dim(1), kTokenBox);
  }
  const std::int64_t num_groups = std::min(given.experts->size(), given.output.dim(0));
  const bool are_few = given.output.dim(0) <= kFewRowsPerExpert * num_groups;
  if (are_few)
    return is_gated ? launch<FewRows, true>(stream, product) : launch<FewRows, false>(stream, product);
  return is_gated ? launch<ManyRows, true>(stream, product) : launch<ManyRows, false>(stream, product);
}

}  // namespace aurora::cuda
