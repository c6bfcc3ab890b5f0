// expert_ffn on Hopper: the weights stream through shared memory, the tokens are the columns of the product.
//
// A tile is one strip of an expert's output features by some of its rows. The warpgroup product has 64 rows
// and any number of columns from 8 on, so the features are its rows and the tokens its columns: an expert
// with three tokens costs a product of 8 columns, not one of 64 or 128 rows. A tile is computed by a cluster
// of kBlocks blocks, each of which takes its share, up to kTokens, of the tile's rows; as all of them need
// the same weights, each asks for its share of these and the copy engine writes them to all. That matters
// where products are large: what the cache can deliver to the multiprocessors is what would bound them. Of a
// block, one warpgroup fetches, the others multiply. Slices of 64 along the inner dimension go round a ring
// of kStages stages, from tile to tile without a pause. Of a stage,
//   the weights, 2 panels of 64 features for each multiplying warpgroup, come through the copy engine: for
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
constexpr int kPanel = 64;  // features: rows of a warpgroup product
constexpr int kRowBytes = kSlice * 2;
constexpr int kPanelBytes = kPanel * kRowBytes;
constexpr int kTokenBox = 32;  // rows of the copy engine's box of tokens
constexpr int kChunkBytes = 16;
constexpr int kChunks = kRowBytes / kChunkBytes;   // of a row's slice
constexpr int kGatherRows = kWarpgroup / kChunks;  // that one pass of the fetching threads copies

template <int kClusterBlocks, int kMultipliers, int kTokenColumns, int kStageCount>
struct Config {
  static constexpr int kBlocks = kClusterBlocks;    // of a cluster
  static constexpr int kWarpgroups = kMultipliers;  // that multiply
  static constexpr int kTokens = kTokenColumns;     // of a block's share of a tile
  static constexpr int kStages = kStageCount;
  /// Where tiles are so small, an expert has one of each strip as a rule, and the activations better stay.
  static constexpr bool kReadsWeightsOnce = kBlocks == 1 && kTokens <= 64;
  static constexpr int kThreads = (kWarpgroups + 1) * kWarpgroup;
  static constexpr int kPanels = 2 * kWarpgroups;
  static constexpr int kOwnPanels = kPanels / kBlocks;  // that a block asks for
  static constexpr int kWeightBytes = kPanels * kPanelBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kRowBytes;
  static constexpr int kOutputTokens = kTokens < 64 ? kTokens : 64;  // that leave at once
  static constexpr int kOutputBytes = kOutputTokens * kRowBytes;     // of one warpgroup
  static constexpr int kBarrierOffset = kStages * kStageBytes + kWarpgroups * kOutputBytes;
  static constexpr int kTilesOffset = kBarrierOffset + 2 * kStages * 8;
  static constexpr int kTableOffset = kTilesOffset + kStages * static_cast<int>(sizeof(ExpertTile));
  static_assert(kTokens % kTokenBox == 0 && kPanels % kBlocks == 0);
};

// By the rows of an expert, on average over the bound (measured; benchmarks/README.md has the table). Where
// few, what counts is to have as many bytes of weights under way as fit, from as many multiprocessors as
// there are; where many, how often the cache must deliver the same bytes.
using FewRows = Config<1, 1, 64, 8>;
using SomeRows = Config<1, 2, 160, 4>;
using ManyRows = Config<2, 2, 160, 4>;
constexpr std::int64_t kFewRowsPerExpert = 32;
constexpr std::int64_t kSomeRowsPerExpert = 128;

constexpr int kMostShared = 227 << 10;  // bytes, of a block

/// That the rest of a block's shared memory has room to count.
template <class C>
constexpr std::int64_t most_experts() {
  return (kMostShared - C::kTableOffset) / static_cast<std::int64_t>(ExpertTable::bytes(0)) - 1;
}
static_assert(most_experts<ManyRows>() >= 256 && most_experts<FewRows>() >= 1024);

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
  /// Of a tile's first slice: the tile, found by the warpgroup that fetches. No expert: there are no more.
  ExpertTile* tiles;

  __device__ SharedAddress weights(int stage, int panel) const {
    return base + stage * C::kStageBytes + panel * kPanelBytes;
  }
  __device__ SharedAddress tokens(int stage) const { return base + stage * C::kStageBytes + C::kWeightBytes; }
  __device__ SharedAddress output(int warpgroup) const {
    return base + C::kStages * C::kStageBytes + warpgroup * C::kOutputBytes;
  }
  /// Complete when the stage has been filled, and when it may be filled again, in all blocks of the cluster.
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
    init_barrier(ring.empty(stage), C::kBlocks * C::kWarpgroups * kWarpgroup / kWarp);
  }
  publish_barriers();
}

/// This block's share of a tile's rows; the other blocks of the cluster have the rest.
template <class C>
__device__ ExpertTile own_share(ExpertTile tile) {
  if constexpr (C::kBlocks > 1) {
    constexpr int kStep = 8;  // columns of the narrowest product
    const int share = (tile.num_rows + C::kBlocks * kStep - 1) / (C::kBlocks * kStep) * kStep;
    const int begin = min(block_in_cluster() * share, tile.num_rows);
    tile.first_row += begin;
    tile.num_rows = min(share, tile.num_rows - begin);
  }
  return tile;
}

/// Calls `use` with this block's share of each tile of its cluster, in order.
template <class C, class Use>
__device__ void for_each_tile(const Product& p, const ExpertTable& table, const Use& use) {
  const std::int32_t num_tiles = table.first_tile[p.tiles.num_experts];
  const auto step = static_cast<std::int32_t>(gridDim.x) / C::kBlocks;
#pragma unroll 1
  for (auto number = static_cast<std::int32_t>(blockIdx.x) / C::kBlocks; number < num_tiles; number += step) {
    use(own_share<C>(tile_at(p.tiles, table, number)));
  }
}

inline constexpr std::int32_t kNoExpert = -1;

// ---- the warpgroup that fetches ----

/// Asks for the weights' slice of a tile, and says how many bytes the stage waits for besides: `token_bytes`.
template <class C, bool kIsGated>
__device__ void fetch_weights(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int stage,
                              int depth, std::uint32_t token_bytes) {
  const ExpertMaps& maps = p.experts[tile.expert];
  arrive_and_expect(ring.full(stage), C::kWeightBytes + token_bytes);
  const int first_panel = C::kBlocks == 1 ? 0 : block_in_cluster() * C::kOwnPanels;
#pragma unroll
  for (int i = 0; i < C::kOwnPanels; ++i) {
    const int panel = first_panel + i;
    const bool is_up = kIsGated && panel >= C::kWarpgroups;
    const TensorMap* map = !kIsGated ? &maps.down : (is_up ? &maps.up : &maps.gate);
    constexpr int kStripPanels = kIsGated ? C::kWarpgroups : C::kPanels;
    const int feature = (tile.strip * kStripPanels + panel - (is_up ? C::kWarpgroups : 0)) * kPanel;
    if constexpr (C::kReadsWeightsOnce) {
      copy_box_once(ring.weights(stage, panel), map, depth, feature, ring.full(stage));
    } else if constexpr (C::kBlocks == 1) {
      copy_box(ring.weights(stage, panel), map, depth, feature, ring.full(stage));
    } else {
      constexpr std::uint16_t kAll = (1U << C::kBlocks) - 1;
      copy_box_to(kAll, ring.weights(stage, panel), map, depth, feature, ring.full(stage));
    }
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

/// After the last tile; the stage is empty.
template <class C>
__device__ void announce_end(const Ring<C>& ring, int stage) {
  ring.tiles[stage].expert = kNoExpert;
  arrive(ring.full(stage));
}

/// kGateUp, all threads of the warpgroup.
template <class C>
__device__ void fetch_gathered(const Product& p, const Ring<C>& ring, const ExpertTable& table) {
  Place<C> place;
  for_each_tile<C>(p, table, [&](const ExpertTile& tile) {
    const GatheredRows<C> rows(p, tile);
    for (int depth = 0; depth < p.in_width; depth += kSlice) {
      wait_for(ring.empty(place.stage), place.parity ^ 1);
      if (threadIdx.x == 0 && depth == 0) ring.tiles[place.stage] = tile;
      if (threadIdx.x == 0) fetch_weights<C, true>(p, ring, tile, place.stage, depth, 0);
      rows.fetch(ring.tokens(place.stage), depth, p.in_width);
      arrive_after_copies(ring.full(place.stage));
      place.advance();
    }
  });
  wait_for(ring.empty(place.stage), place.parity ^ 1);
  if (threadIdx.x == 0) announce_end(ring, place.stage);
  arrive(ring.full(place.stage));
}

/// Rows of a tile as the copy engine brings them: a whole number of boxes.
__device__ int num_token_boxes(const ExpertTile& tile) { return (tile.num_rows + kTokenBox - 1) / kTokenBox; }

template <class C>
__device__ void fetch_tokens(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int stage,
                             int depth) {
  for (int box = 0; box < num_token_boxes(tile); ++box) {
    copy_box(ring.tokens(stage) + box * kTokenBox * kRowBytes, &p.activations, depth,
             tile.first_row + box * kTokenBox, ring.full(stage));
  }
}

/// kDown, one thread. The kernel in front computes the tokens' rows; the weights of the first round of the
/// ring are asked for while it still does.
template <class C>
__device__ void fetch_boxes(const Product& p, const Ring<C>& ring, const ExpertTable& table) {
  const auto fetch_weights_of = [&](const ExpertTile& tile, int stage, int depth) {
    fetch_weights<C, false>(p, ring, tile, stage, depth, num_token_boxes(tile) * kTokenBox * kRowBytes);
  };
  Place<C> place;
  bool has_waited = false;
  for_each_tile<C>(p, table, [&](const ExpertTile& tile) {
    int depth = 0;
    if (!has_waited) {
      const int num_early = min(C::kStages, (p.in_width + kSlice - 1) / kSlice);
      ring.tiles[0] = tile;
      for (int stage = 0; stage < num_early; ++stage) fetch_weights_of(tile, stage, stage * kSlice);
      wait_for_kernel_before();
      has_waited = true;
      for (; place.stage < num_early && place.parity == 0; place.advance(), depth += kSlice) {
        fetch_tokens(p, ring, tile, place.stage, depth);
      }
    }
    for (; depth < p.in_width; depth += kSlice) {
      wait_for(ring.empty(place.stage), place.parity ^ 1);
      if (depth == 0) ring.tiles[place.stage] = tile;
      fetch_weights_of(tile, place.stage, depth);
      fetch_tokens(p, ring, tile, place.stage, depth);
      place.advance();
    }
  });
  if (!has_waited) wait_for_kernel_before();
  wait_for(ring.empty(place.stage), place.parity ^ 1);
  announce_end(ring, place.stage);
}

// ---- the warpgroups that multiply ----

/// Two panels of features by kColumns tokens, summed over the inner dimension.
template <class C, bool kIsGated, int kColumns>
__device__ void multiply_tile(const Ring<C>& ring, Place<C>& place, int warpgroup, int num_slices,
                              float (&first_sums)[kColumns / 2], float (&second_sums)[kColumns / 2]) {
  const auto release = [&](int stage) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    if constexpr (C::kBlocks == 1) {
      if (lane == 0) arrive(ring.empty(stage));
    } else {
      if (lane < C::kBlocks) arrive_in(lane, ring.empty(stage));
    }
  };
  int previous = 0;
  for (int slice = 0; slice < num_slices; ++slice) {
    wait_for(ring.full(place.stage), place.parity);
    if constexpr (kIsGated) see_shared_writes();
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

/// Writes a warpgroup's 64 features by tokens [first_token, ...) of the tile, left in shared memory, to rows
/// of the output.
template <class C>
__device__ void write_rows(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int warpgroup,
                           int first_feature, int first_token) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const SharedAddress output = ring.output(warpgroup);
  const int feature = first_feature + thread % kChunks * (kChunkBytes / 2);
  if (feature >= p.out_width) return;
  constexpr int kPasses = C::kOutputTokens / kGatherRows;
  const int token = thread / kChunks;
  const SharedAddress from =
      output + token * kRowBytes + (thread % kChunks ^ (token % kChunks)) * kChunkBytes;
  Element* to =
      p.output + static_cast<std::int64_t>(tile.first_row + first_token + token) * p.out_width + feature;
  uint4 values[kPasses];
#pragma unroll
  for (int i = 0; i < kPasses; ++i) values[i] = load_shared_16(from + i * kGatherRows * kRowBytes);
#pragma unroll
  for (int i = 0; i < kPasses; ++i) {
    if (first_token + token + i * kGatherRows >= tile.num_rows) break;
    *reinterpret_cast<uint4*>(to + static_cast<std::int64_t>(i) * kGatherRows * p.out_width) = values[i];
  }
}

/// A warpgroup's 64 features by kColumns tokens, from registers to rows of the output.
template <class C, int kColumns>
__device__ void write_panel(const Product& p, const Ring<C>& ring, const ExpertTile& tile, int warpgroup,
                            int first_feature, const float (&values)[kColumns / 2]) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int lane = thread % kWarp;
  const int chunk = thread / kWarp * 2 + lane / 8 % 2;
  const SharedAddress place =
      ring.output(warpgroup) + lane % 8 * kRowBytes + (chunk ^ (lane % kChunks)) * kChunkBytes;
#pragma unroll
  for (int first_token = 0; first_token < kColumns; first_token += C::kOutputTokens) {
    synchronize(1 + warpgroup, kWarpgroup);  // those before have left
#pragma unroll
    for (int token = first_token; token < min(kColumns, first_token + C::kOutputTokens); token += 8) {
      const int at = token / 2;
      store_transposed(place + (token - first_token) * kRowBytes, pack(values[at], values[at + 1]),
                       pack(values[at + 2], values[at + 3]));
    }
    synchronize(1 + warpgroup, kWarpgroup);
    write_rows(p, ring, tile, warpgroup, first_feature, first_token);
  }
}

template <class C, bool kIsGated, int kColumns>
__device__ void compute_tile(const Product& p, const Ring<C>& ring, Place<C>& place, const ExpertTile& tile,
                             int warpgroup) {
  // Cleared, not begun with a product that ignores what was there: to the compiler such sums would be read
  // before they are written, hence alive from tile to tile, and those of all numbers of columns at once.
  float first[kColumns / 2] = {};
  float second[kColumns / 2] = {};
  multiply_tile<C, kIsGated, kColumns>(ring, place, warpgroup, (p.in_width + kSlice - 1) / kSlice, first,
                                       second);
  if constexpr (kIsGated) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) first[i] = fast_silu(first[i]) * second[i];
    write_panel<C, kColumns>(p, ring, tile, warpgroup, (tile.strip * C::kWarpgroups + warpgroup) * kPanel,
                             first);
  } else {
    const int panel = tile.strip * C::kPanels + warpgroup;
    write_panel<C, kColumns>(p, ring, tile, warpgroup, panel * kPanel, first);
    write_panel<C, kColumns>(p, ring, tile, warpgroup, (panel + C::kWarpgroups) * kPanel, second);
  }
}

/// With the narrowest product of kColumns... columns that holds the tile's rows.
template <class C, bool kIsGated, int kColumns, int... kWider>
__device__ void compute_narrowest(const Product& p, const Ring<C>& ring, Place<C>& place,
                                  const ExpertTile& tile, int warpgroup) {
  if constexpr (kColumns == C::kTokens) {
    compute_tile<C, kIsGated, kColumns>(p, ring, place, tile, warpgroup);
  } else if (tile.num_rows <= kColumns) {
    compute_tile<C, kIsGated, kColumns>(p, ring, place, tile, warpgroup);
  } else {
    compute_narrowest<C, kIsGated, kWider...>(p, ring, place, tile, warpgroup);
  }
}

/// The tile that begins in a stage, in every lane. One lane reads it, the one that empties the stage: its
/// arrival there orders what it read, not what others did.
template <class C>
__device__ ExpertTile begun_tile(const Ring<C>& ring, int stage) {
  ExpertTile tile{};
  if (threadIdx.x % kWarp == 0) tile = ring.tiles[stage];
  constexpr unsigned kAllLanes = ~0U;
  return {.expert = __shfl_sync(kAllLanes, tile.expert, 0),
          .first_row = __shfl_sync(kAllLanes, tile.first_row, 0),
          .num_rows = __shfl_sync(kAllLanes, tile.num_rows, 0),
          .strip = __shfl_sync(kAllLanes, tile.strip, 0)};
}

template <class C, bool kIsGated>
__device__ void compute_tiles(const Product& p, const Ring<C>& ring, int warpgroup) {
  Place<C> place;
#pragma unroll 1
  while (true) {
    wait_for(ring.full(place.stage), place.parity);
    const ExpertTile tile = begun_tile(ring, place.stage);
    if (tile.expert == kNoExpert) return;
    compute_narrowest<C, kIsGated, 8, 16, 32, 48, 64, 72, 80, 88, 96, 104, 112, 120, 128, 136, 144, 152, 160>(
        p, ring, place, tile, warpgroup);
  }
}

template <class C, bool kIsGated>
__global__ void __cluster_dims__(C::kBlocks, 1, 1) __launch_bounds__(C::kThreads, 1)
    wgmma_kernel(const __grid_constant__ Product p) {
  extern __shared__ __align__(1024) std::byte shared[];
  const Ring<C> ring{shared_address(shared), reinterpret_cast<ExpertTile*>(shared + C::kTilesOffset)};
  const ExpertTable table(shared + C::kTableOffset, p.tiles.num_experts);
  init_ring<C, kIsGated>(ring);
  // The groups' offsets are older than the kernel in front of kDown, which has read them.
  if constexpr (kIsGated) wait_for_kernel_before();
  let_next_kernel_begin();
  count_tiles(p.tiles, table, p.faults);
  if constexpr (C::kBlocks > 1) synchronize_cluster();  // the others' barriers are there
  // With two multiplying warpgroups the registers that the compiler may count on do not suffice for their
  // sums.
  constexpr bool kMovesRegisters = C::kWarpgroups > 1;
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup == 0) {
    if constexpr (kMovesRegisters) give_registers_back<56>();
    if constexpr (kIsGated) {
      fetch_gathered<C>(p, ring, table);
    } else if (threadIdx.x == 0) {
      fetch_boxes<C>(p, ring, table);
    }
  } else {
    if constexpr (kMovesRegisters) take_registers<224>();
    compute_tiles<C, kIsGated>(p, ring, warpgroup - 1);
  }
  if constexpr (C::kBlocks > 1) synchronize_cluster();  // the others may still write here
}

template <class C, bool kIsGated>
void launch(CudaStream& stream, Product product) {
  product.tiles.tile_rows = C::kBlocks * C::kTokens;
  const int strip_features = (kIsGated ? C::kWarpgroups : C::kPanels) * kPanel;
  product.tiles.num_strips = (product.out_width + strip_features - 1) / strip_features;
  const int shared_bytes = C::kTableOffset + static_cast<int>(ExpertTable::bytes(product.tiles.num_experts));
  check_cuda(cudaFuncSetAttribute(wgmma_kernel<C, kIsGated>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  shared_bytes),
             "expert_ffn wgmma shared memory");
  const std::int64_t clusters =
      std::min<std::int64_t>(current_device().num_multiprocessors / C::kBlocks, most_tiles(product.tiles));
  const auto blocks = static_cast<unsigned>(clusters * C::kBlocks);
  launch_dependent(wgmma_kernel<C, kIsGated>, blocks, C::kThreads, static_cast<std::size_t>(shared_bytes),
                   stream.handle(), "expert_ffn wgmma", product);
}

bool is_aligned(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % kChunkBytes == 0; }

}  // namespace

bool has_wgmma() { return current_device().capability_major == 9; }

bool fits_wgmma(const ExpertProduct& product) {
  return product.experts->maps() != nullptr && product.experts->size() <= most_experts<FewRows>() &&
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
  const std::int64_t num_experts = given.experts->size();
  const std::int64_t rows_per_expert = given.output.dim(0) / std::min(num_experts, given.output.dim(0));
  const auto launch_stage = [&]<class C>(C) {
    is_gated ? launch<C, true>(stream, product) : launch<C, false>(stream, product);
  };
  if (rows_per_expert <= kFewRowsPerExpert || num_experts > most_experts<ManyRows>()) {
    launch_stage(FewRows{});
  } else if (rows_per_expert <= kSomeRowsPerExpert) {
    launch_stage(SomeRows{});
  } else {
    launch_stage(ManyRows{});
  }
}

}  // namespace aurora::cuda
