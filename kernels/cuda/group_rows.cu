// Grouping by expert as a stable counting sort.
//
// What is sorted are slots: entry k of row r is slot r * top_k + k. A block takes a tile of consecutive
// slots, each of its warps a run of the tile, 32 slots a round, so that slots are in the order of tile, warp,
// round and lane. A warp counts its slots of each expert in words of its own; what lies before, over experts,
// tiles and warps, turns these counts into the places of the warp's next slots. No step depends on the order
// in which threads run. One tile, which small batches are, takes one launch; the blocks of several tiles
// leave their counts in the scratch first, and each adds up those of the others.
#include <algorithm>
#include <string>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/stable_slots.cuh"

namespace aurora::cuda {
namespace {

constexpr int kMostWarps = 32;
constexpr int kFewestWarps = 4;   // as many as there is room for the counts of, at the least
constexpr int kMostRounds = 8;    // the keys of all rounds stay in registers
constexpr int kRoundsOfOne = 2;   // up to which one block does it all; beyond, two launches are faster
constexpr int kRoundsOfMany = 2;  // when there are several tiles: more blocks share the work
constexpr std::int64_t kManyTiles = 256;  // each block reads the counts of all; beyond, tiles grow
constexpr std::int64_t kCountBytes = std::int64_t{40} << 10;  // of the 48 KiB that need no asking
constexpr std::int64_t kMostExperts = kCountBytes / kFewestWarps / std::int64_t{sizeof(std::int32_t)};

// Keys that are no expert.
constexpr std::int32_t kUnused = -1;
constexpr std::int32_t kForeign = -2;  // it names an expert that is not here: reported, then left out

/// What is grouped and where to, as a kernel reads it.
struct Grouping {
  std::int64_t num_slots;
  std::int64_t num_pairs;  // there is room for as many
  std::int64_t num_tiles;
  std::int32_t num_rounds;
  std::int32_t top_k;
  std::int32_t num_experts;  // of this rank
  std::int32_t* expert_offsets;
  std::int32_t* row_indices;
  std::int32_t* term_offsets;
  std::int32_t* term_indices;
  float* term_weights;
  std::int32_t* tile_counts;  // [num_tiles, num_experts], when there are several tiles
};

/// Slots of received rows: their headers.
struct HeaderSlots {
  static constexpr bool kAreAnnounced = true;  // the pairs are as many as was said before, or else

  const std::byte* headers;  // of row 0; the others at multiples of row_bytes
  std::int64_t row_bytes;
  std::uint32_t top_k;
  std::int32_t num_experts;
  const std::int32_t* local_index;

  __device__ const std::int32_t* entry(std::int64_t slot) const {
    const std::uint32_t row = static_cast<std::uint32_t>(slot) / top_k;
    const std::uint32_t k = static_cast<std::uint32_t>(slot) - row * top_k;
    // Headers are aligned to four bytes.
    return reinterpret_cast<const std::int32_t*>(headers + row * row_bytes) + 2 * k;
  }
  __device__ std::int32_t key(std::int64_t slot) const {
    const std::int32_t expert = *entry(slot);
    if (expert < 0) return kUnused;
    const std::int32_t local = expert < num_experts ? local_index[expert] : -1;
    return local < 0 ? kForeign : local;
  }
  __device__ float weight(std::int64_t slot) const { return __int_as_float(entry(slot)[1]); }
  __device__ void report(FaultSink faults, std::int64_t slot) const {
    report_fault(faults, FaultSite::kGroupExpert, static_cast<std::uint32_t>(slot) / top_k, *entry(slot),
                 num_experts);
  }
};

/// Slots of tokens whose experts are all here: every one is a pair.
struct PairSlots {
  static constexpr bool kAreAnnounced = false;

  const std::int32_t* expert_ids;
  std::int32_t num_experts;

  __device__ std::int32_t key(std::int64_t slot) const {
    const std::int32_t expert = expert_ids[slot];
    return expert >= 0 && expert < num_experts ? expert : kForeign;
  }
  __device__ void report(FaultSink faults, std::int64_t slot) const {
    report_fault(faults, FaultSite::kGroupPairsExpertIds, slot, expert_ids[slot], num_experts);
  }
};

/// Where a thread stands.
struct RunLane {
  std::int64_t first_slot;  // of the thread; the others a warp's width apart
  int warp;                 // of the block
  int lane;
};

__device__ RunLane run_lane(const Grouping& g) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t run = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kWarp) + warp;
  return {run * g.num_rounds * kWarp + lane, warp, lane};
}

template <class Slots>
__device__ void read_keys(const Slots& slots, const Grouping& g, const RunLane& at,
                          std::int32_t (&keys)[kMostRounds]) {
#pragma unroll
  for (int round = 0; round < kMostRounds; ++round) {
    const std::int64_t slot = at.first_slot + round * kWarp;
    keys[round] = round < g.num_rounds && slot < g.num_slots ? slots.key(slot) : kUnused;
  }
}

/// Gives every lane the next place of its key, in the order of lanes. `places` are the warp's own; all lanes
/// must call.
__device__ std::int32_t take_place(std::int32_t* places, std::int32_t key, int lane) {
  const std::uint32_t same = __match_any_sync(~0U, key);
  const std::int32_t place = key < 0 ? 0 : places[key] + __popc(same & lanes_below(lane));
  __syncwarp();
  const bool is_last = (same >> lane) == 1;
  if (key >= 0 && is_last) places[key] = place + 1;
  __syncwarp();
  return place;
}

/// Leaves how often each key comes in the warp's words, which it clears first. Returns how many slots have
/// one.
__device__ std::int32_t count_keys(const Grouping& g, const std::int32_t (&keys)[kMostRounds],
                                   std::int32_t* counts, int lane) {
  std::int32_t num_used = 0;
#pragma unroll
  for (int round = 0; round < kMostRounds; ++round) {
    if (round >= g.num_rounds) break;
    take_place(counts, keys[round], lane);
    num_used += __popc(__ballot_sync(~0U, keys[round] >= 0));
  }
  return num_used;
}

__device__ void clear_counts(const Grouping& g, std::int32_t* counts, int lane) {
  for (std::int32_t expert = lane; expert < g.num_experts; expert += kWarp) counts[expert] = 0;
  __syncwarp();
}

__device__ std::int32_t sum_over_warps(const Grouping& g, const std::int32_t* counts, std::int32_t expert) {
  const int num_warps = static_cast<int>(blockDim.x) / kWarp;
  std::int32_t sum = 0;
  for (int warp = 0; warp < num_warps; ++warp) sum += counts[warp * g.num_experts + expert];
  return sum;
}

template <class Slots>
__global__ void __launch_bounds__(kMostWarps* kWarp) count_kernel(Slots slots, Grouping g) {
  extern __shared__ std::int32_t counts[];  // [warps, num_experts]
  const RunLane at = run_lane(g);
  std::int32_t* own = counts + at.warp * g.num_experts;
  clear_counts(g, own, at.lane);
  wait_for_kernel_before();
  let_next_kernel_begin();
  std::int32_t keys[kMostRounds];
  read_keys(slots, g, at, keys);
  count_keys(g, keys, own, at.lane);
  __syncthreads();
  for (auto expert = static_cast<std::int32_t>(threadIdx.x); expert < g.num_experts;
       expert += static_cast<std::int32_t>(blockDim.x)) {
    g.tile_counts[static_cast<std::int64_t>(blockIdx.x) * g.num_experts + expert] =
        sum_over_warps(g, counts, expert);
  }
}

/// The sum over the threads of the block below this one, and over all of them. All threads must call.
__device__ std::int32_t block_sum_below(std::int32_t value, std::int32_t* warp_sums, std::int32_t& all) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int32_t below = sum_below(value, lane);
  __syncthreads();  // an earlier use of `warp_sums` is over
  if (lane == kWarp - 1) warp_sums[warp] = below + value;
  __syncthreads();
  const std::int32_t of_warp = lane < static_cast<int>(blockDim.x) / kWarp ? warp_sums[lane] : 0;
  const std::int32_t before = sum_below(of_warp, lane);
  all = __shfl_sync(~0U, before + of_warp, kWarp - 1);
  return below + __shfl_sync(~0U, before, warp);
}

/// Pairs of one expert.
struct ExpertCounts {
  std::int32_t in_tiles_before = 0;
  std::int32_t all = 0;
};

__device__ ExpertCounts counts_of(const Grouping& g, const std::int32_t* counts, std::int32_t expert) {
  if (expert >= g.num_experts) return {};
  if (g.num_tiles == 1) return {0, sum_over_warps(g, counts, expert)};
  ExpertCounts sums;
#pragma unroll 8
  for (std::int64_t tile = 0; tile < g.num_tiles; ++tile) {
    const std::int32_t count = g.tile_counts[tile * g.num_experts + expert];
    sums.all += count;
    if (tile < blockIdx.x) sums.in_tiles_before += count;
  }
  return sums;
}

/// More pairs than announced have no place in the outputs; the offsets stay within it.
template <class Slots>
__device__ void write_offset(const Grouping& g, std::int32_t expert, std::int32_t offset, FaultSink faults) {
  g.expert_offsets[expert] = min(offset, static_cast<std::int32_t>(g.num_pairs));
  if (Slots::kAreAnnounced && expert == g.num_experts && offset != g.num_pairs) {
    report_fault(faults, FaultSite::kGroupPairs, 0, offset, g.num_pairs);
  }
}

/// Turns the block's counts into the places of each warp's next slots. Returns the pairs in the tiles before.
template <class Slots>
__device__ std::int32_t lay_out(const Grouping& g, std::int32_t* counts, FaultSink faults) {
  __shared__ std::int32_t warp_sums[kWarp];
  const auto num_threads = static_cast<std::int32_t>(blockDim.x);
  std::int32_t carried = 0;  // pairs of all experts before `first`, in every thread
  std::int32_t before = 0;   // the thread's experts' pairs in the tiles before
  for (std::int32_t first = 0; first <= g.num_experts; first += num_threads) {
    const std::int32_t expert = first + static_cast<std::int32_t>(threadIdx.x);
    const ExpertCounts found = counts_of(g, counts, expert);
    std::int32_t all = 0;
    const std::int32_t offset = carried + block_sum_below(found.all, warp_sums, all);
    carried += all;
    before += found.in_tiles_before;
    if (blockIdx.x == 0 && expert <= g.num_experts) write_offset<Slots>(g, expert, offset, faults);
    if (expert >= g.num_experts) continue;
    std::int32_t place = offset + found.in_tiles_before;
    for (int warp = 0; warp < num_threads / kWarp; ++warp) {
      std::int32_t& cell = counts[warp * g.num_experts + expert];
      const std::int32_t count = cell;
      cell = place;
      place += count;
    }
  }
  return g.num_tiles == 1 ? 0 : block_sum(before, warp_sums);
}

/// One slot, whose pair is the `term`-th of all in the order of slots and goes to `place`.
template <class Slots>
__device__ void fill_slot(const Slots& slots, const Grouping& g, std::int64_t slot, std::int32_t key,
                          std::int32_t place, std::int32_t term, FaultSink faults) {
  if (slot >= g.num_slots) return;
  const auto top_k = static_cast<std::uint32_t>(g.top_k);
  const std::uint32_t row = static_cast<std::uint32_t>(slot) / top_k;
  if (row * top_k == slot) g.term_offsets[row] = term;
  if (slot == g.num_slots - 1) g.term_offsets[row + 1] = term + (key >= 0 ? 1 : 0);
  if (key == kForeign) slots.report(faults, slot);
  // More pairs than announced are a fault already; they have no place.
  if (key < 0 || place >= g.num_pairs || term >= g.num_pairs) return;
  g.row_indices[place] = static_cast<std::int32_t>(row);
  g.term_indices[term] = place;
  if constexpr (Slots::kAreAnnounced) g.term_weights[term] = slots.weight(slot);
}

template <class Slots>
__global__ void __launch_bounds__(kMostWarps* kWarp) fill_kernel(Slots slots, Grouping g, FaultSink faults) {
  extern __shared__ std::int32_t counts[];  // [warps, num_experts]
  __shared__ std::int32_t warp_terms[kMostWarps];
  const RunLane at = run_lane(g);
  std::int32_t* own = counts + at.warp * g.num_experts;
  clear_counts(g, own, at.lane);
  if (threadIdx.x < kMostWarps) warp_terms[threadIdx.x] = 0;
  __syncthreads();
  wait_for_kernel_before();
  let_next_kernel_begin();
  std::int32_t keys[kMostRounds];
  read_keys(slots, g, at, keys);
  const std::int32_t num_terms = count_keys(g, keys, own, at.lane);
  if (at.lane == 0) warp_terms[at.warp] = num_terms;
  __syncthreads();
  std::int32_t term = lay_out<Slots>(g, counts, faults);
  term += __shfl_sync(~0U, sum_below(warp_terms[at.lane], at.lane), at.warp);
  __syncthreads();  // every warp's places are there
#pragma unroll
  for (int round = 0; round < kMostRounds; ++round) {
    if (round >= g.num_rounds) break;
    const std::int32_t key = keys[round];
    const std::uint32_t used = __ballot_sync(~0U, key >= 0);
    const std::int32_t place = take_place(own, key, at.lane);
    fill_slot(slots, g, at.first_slot + round * kWarp, key, place, term + __popc(used & lanes_below(at.lane)),
              faults);
    term += __popc(used);
  }
}

/// How slots are cut.
struct Tiling {
  std::int64_t num_warps;   // of a block
  std::int64_t num_rounds;  // of a warp
  std::int64_t num_tiles;   // blocks
};

std::int64_t ceiling(std::int64_t count, std::int64_t per) { return (count + per - 1) / per; }

Tiling tiling_of(std::int64_t num_slots, std::int64_t num_experts) {
  std::int64_t most_warps = kMostWarps;
  const std::int64_t words_bytes = num_experts * std::int64_t{sizeof(std::int32_t)};
  while (most_warps > kFewestWarps && most_warps * words_bytes > kCountBytes) most_warps /= 2;
  const std::int64_t num_rounds = ceiling(num_slots, kWarp);
  if (num_rounds <= most_warps * kRoundsOfOne) {
    // A thread for each expert too, as far as there are so many.
    const std::int64_t num_warps =
        std::min(most_warps, std::max(num_rounds, ceiling(num_experts + 1, kWarp)));
    return {num_warps, ceiling(num_rounds, num_warps), 1};
  }
  const std::int64_t rounds_of_many =
      std::clamp<std::int64_t>(ceiling(num_rounds, most_warps * kManyTiles), kRoundsOfMany, kMostRounds);
  return {most_warps, rounds_of_many, ceiling(num_rounds, most_warps * rounds_of_many)};
}

/// `g` needs no more than the tiling.
template <class Slots>
void submit_grouping(CudaStream& stream, const Slots& slots, Grouping g) {
  if (g.num_experts > kMostExperts) {
    throw Error(ErrorKind::kUnsupported, "grouping on cuda: " + std::to_string(g.num_experts) +
                                             " experts on one rank; at most " + std::to_string(kMostExperts) +
                                             " are supported");
  }
  const Tiling tiling = tiling_of(g.num_slots, g.num_experts);
  g.num_tiles = tiling.num_tiles;
  g.num_rounds = static_cast<std::int32_t>(tiling.num_rounds);
  const auto blocks = static_cast<unsigned>(tiling.num_tiles);
  const auto threads = static_cast<unsigned>(tiling.num_warps * kWarp);
  const std::size_t shared_bytes =
      static_cast<std::size_t>(tiling.num_warps * g.num_experts) * sizeof(std::int32_t);
  if (tiling.num_tiles > 1) {
    launch_dependent(count_kernel<Slots>, blocks, threads, shared_bytes, stream.handle(), "grouping: count",
                     slots, g);
  }
  launch_dependent(fill_kernel<Slots>, blocks, threads, shared_bytes, stream.handle(), "grouping: fill",
                   slots, g, stream.faults());
}

}  // namespace

std::size_t CudaOps::group_rows_scratch_bytes(std::int64_t num_rows, std::int64_t top_k,
                                              std::int64_t num_local_experts) const {
  const Tiling tiling = tiling_of(num_rows * top_k, num_local_experts);
  if (tiling.num_tiles == 1) return 0;
  return static_cast<std::size_t>(tiling.num_tiles * num_local_experts) * sizeof(std::int32_t);
}

void CudaOps::group_rows(Stream& stream, const GroupRowsArgs& args) const {
  const std::int64_t num_local = args.expert_offsets.dim(0) - 1;
  check_args(args, group_rows_scratch_bytes(args.num_rows, args.top_k, num_local));
  if (args.num_rows == 0) return;
  CudaStream& own = cuda_stream(stream);
  const HeaderSlots slots{.headers = args.rows + args.header_offset,
                          .row_bytes = static_cast<std::int64_t>(args.row_bytes),
                          .top_k = static_cast<std::uint32_t>(args.top_k),
                          .num_experts = static_cast<std::int32_t>(args.local_index.dim(0)),
                          .local_index = args.local_index.i32()};
  submit_grouping(own, slots,
                  {.num_slots = args.num_rows * args.top_k,
                   .num_pairs = args.row_indices.dim(0),
                   .num_tiles = 0,
                   .num_rounds = 0,
                   .top_k = args.top_k,
                   .num_experts = static_cast<std::int32_t>(num_local),
                   .expert_offsets = args.expert_offsets.i32(),
                   .row_indices = args.row_indices.i32(),
                   .term_offsets = args.term_offsets.i32(),
                   .term_indices = args.term_indices.i32(),
                   .term_weights = args.term_weights.f32(),
                   .tile_counts = data_of<std::int32_t>(args.scratch)});
}

void CudaOps::group_pairs(Stream& stream, const GroupPairsArgs& args) const {
  const std::int64_t num_tokens = args.expert_ids.dim(0);
  const std::int64_t top_k = args.expert_ids.dim(1);
  const std::int64_t num_experts = args.expert_offsets.dim(0) - 1;
  check_args(args, group_rows_scratch_bytes(num_tokens, top_k, num_experts));
  if (num_tokens == 0) return;
  CudaStream& own = cuda_stream(stream);
  const PairSlots slots{.expert_ids = args.expert_ids.i32(),
                        .num_experts = static_cast<std::int32_t>(num_experts)};
  submit_grouping(own, slots,
                  {.num_slots = num_tokens * top_k,
                   .num_pairs = num_tokens * top_k,
                   .num_tiles = 0,
                   .num_rounds = 0,
                   .top_k = static_cast<std::int32_t>(top_k),
                   .num_experts = static_cast<std::int32_t>(num_experts),
                   .expert_offsets = args.expert_offsets.i32(),
                   .row_indices = args.row_indices.i32(),
                   .term_offsets = args.term_offsets.i32(),
                   .term_indices = args.term_indices.i32(),
                   .term_weights = nullptr,
                   .tile_counts = data_of<std::int32_t>(args.scratch)});
}

}  // namespace aurora::cuda
