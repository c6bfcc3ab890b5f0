// expert_ffn on Hopper: the weights stream through shared memory, the tokens are the columns of the product.
//
// A tile is one strip of an expert's output features by some of its rows. The warpgroup product has 64 rows
// and any number of columns from 8 on, so the features are its rows and the tokens its columns: an expert
// with three tokens costs a product of 8 columns, not one of 64 or 128 rows. A tile is computed by a cluster
// of kBlocks blocks, each of which takes its share, up to kTokens, of the tile's rows; as all of them need
// the same weights, each asks for its share of these and the copy engine writes them to all. That matters
// where products are large: what the cache can deliver to the multiprocessors is what would bound them. Of a
// block, one warpgroup fetches, the others multiply. Slices of 64 along the inner dimension go round a ring
// of kStages stages, from tile to tile without a pause; tiles are claimed one by one (wgmma_claims.cuh). Of a
// stage,
//   the weights, 2 panels of 64 features for each multiplying warpgroup, come through the copy engine: for
//     kGateUp the gate rows of all warpgroups and then their up rows, so that a warpgroup has both parts of
//     an activation in the same registers; for kDown successive features;
//   the tokens' rows come for kGateUp from where they were received, by index, with 16-byte copies of all
//     threads of the fetching warpgroup; for kDown they lie side by side and come through the copy engine.
// Columns beyond a group's last row are computed from whatever is there and thrown away: columns do not mix.
// The sums leave transposed, through shared memory, as rows of 64 features (128 bytes).
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_properties.h"
#include "kernels/cuda/wgmma_fetch.cuh"
#include "kernels/cuda/wgmma_multiply.cuh"

namespace aurora::cuda {
namespace {

using namespace wgmma;

// By the rows of an expert, on average over the bound (measured: benchmarks/layer/h200.md). Where
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
  TileClaims<C> claims(p, ring);
  count_tiles(p.tiles, table, p.faults);
  if constexpr (C::kBlocks > 1) synchronize_cluster();  // the others' barriers are there
  // With two multiplying warpgroups the registers that the compiler may count on do not suffice for their
  // sums.
  constexpr bool kMovesRegisters = C::kWarpgroups > 1;
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup == 0) {
    if constexpr (kMovesRegisters) give_registers_back<56>();
    if constexpr (kIsGated) {
      fetch_gathered<C>(p, ring, table, claims);
    } else if (threadIdx.x == 0) {
      fetch_boxes<C>(p, ring, table, claims);
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
                  .num_claimed = stream.counters() + (is_gated ? 0 : 1),
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
