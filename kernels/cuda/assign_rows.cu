#include <algorithm>
#include <string>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/stable_slots.cuh"

namespace aurora::cuda {
namespace {

constexpr std::int32_t kNoRank = -1;  // of a pair whose expert id is out of range: reported, then left out

/// The arguments as a kernel reads them, and the scratch.
struct Assignment {
  const std::int32_t* expert_ids;
  const float* weights;
  const std::int32_t* replica_offsets;
  const std::int32_t* replica_ranks;
  const std::int32_t* replica_bounds;
  const std::int32_t* replica_slots;
  std::int64_t num_tokens;
  std::int64_t num_chunks;
  std::int32_t num_experts;
  std::int32_t num_replicas;
  std::int32_t num_ranks;
  std::int32_t top_k;
  bool terms_are_pairs;
  std::int32_t* counts;
  std::int32_t* row_offsets;
  std::int32_t* row_tokens;
  RowEntry* headers;
  std::int32_t* term_offsets;
  std::int32_t* term_indices;
  std::int32_t* pair_ranks = nullptr;   // [num_tokens, top_k]
  std::int32_t* chunk_rows = nullptr;   // [num_ranks, num_chunks] and the sum
  std::int32_t* chunk_pairs = nullptr;  // the same
  std::int32_t* chunk_terms = nullptr;  // [num_chunks] and the sum: rows of the chunk's tokens
};

/// The rule of ReplicaTable.
__device__ std::int32_t select_replica(const Assignment& a, std::int32_t expert, std::int64_t token) {
  const std::int32_t last = a.replica_offsets[expert + 1] - 1;
  const std::uint32_t point = (static_cast<std::uint32_t>(token + 1) * 2654435769U) >> 1;
  std::int32_t replica = a.replica_offsets[expert];
  while (replica < last && point >= static_cast<std::uint32_t>(a.replica_bounds[replica])) ++replica;
  return replica;
}

/// Bit k: no earlier pair of the token goes to the rank of pair k.
__device__ std::uint32_t first_of_rank(const std::int32_t* ranks, std::int32_t top_k) {
  std::uint32_t first = 0;
  for (std::int32_t k = 0; k < top_k; ++k) {
    bool is_first = ranks[k] != kNoRank;
    for (std::int32_t before = 0; before < k; ++before) is_first &= ranks[before] != ranks[k];
    if (is_first) first |= 1U << k;
  }
  return first;
}

/// Shared memory: pairs by slot of the block; then per warp a word of lanes and a number of pairs by rank.
__global__ void count_kernel(Assignment a, FaultSink faults) {
  extern __shared__ std::uint32_t shared[];
  const ChunkLane at = chunk_lane();
  std::uint32_t* slots = shared;
  std::uint32_t* lanes = shared + a.num_replicas + at.warp * 2 * a.num_ranks;
  std::uint32_t* pairs = lanes + a.num_ranks;
  for (int i = static_cast<int>(threadIdx.x); i < a.num_replicas; i += kChunkThreads) slots[i] = 0;
  clear_words(lanes, 2 * a.num_ranks, at.lane);
  __syncthreads();
  std::int32_t num_rows = 0;
  if (at.item < a.num_tokens) {
    std::int32_t* ranks = a.pair_ranks + at.item * a.top_k;
    for (std::int32_t k = 0; k < a.top_k; ++k) {
      const std::int64_t pair = at.item * a.top_k + k;
      const std::int32_t expert = a.expert_ids[pair];
      ranks[k] = kNoRank;
      if (!index_fits(faults, FaultSite::kAssignExpertIds, pair, expert, a.num_experts)) continue;
      const std::int32_t replica = select_replica(a, expert, at.item);
      const std::int32_t rank = a.replica_ranks[replica];
      ranks[k] = rank;
      atomicOr(&lanes[rank], 1U << at.lane);
      atomicAdd(&pairs[rank], 1U);
      atomicAdd(&slots[a.replica_slots[replica]], 1U);
    }
    num_rows = __popc(first_of_rank(ranks, a.top_k));
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < a.num_replicas; i += kChunkThreads) {
    if (slots[i] > 0) atomicAdd(&a.counts[a.num_ranks + i], static_cast<std::int32_t>(slots[i]));
  }
  if (at.chunk >= a.num_chunks) return;
  for (std::int32_t rank = at.lane; rank < a.num_ranks; rank += kWarp) {
    a.chunk_rows[rank * a.num_chunks + at.chunk] = __popc(lanes[rank]);
    a.chunk_pairs[rank * a.num_chunks + at.chunk] = static_cast<std::int32_t>(pairs[rank]);
  }
  const std::int32_t before = sum_below(num_rows, at.lane);
  if (at.lane == kWarp - 1) a.chunk_terms[at.chunk] = before + num_rows;
}

/// Where the rows of each rank begin, and how many there are. Any number of threads.
__device__ void write_row_offsets(const Assignment& a) {
  const auto num_threads = static_cast<std::int32_t>(gridDim.x * blockDim.x);
  const auto first = static_cast<std::int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  for (std::int32_t rank = first; rank <= a.num_ranks; rank += num_threads) {
    // The entry behind the last rank's chunks is the sum of all.
    const std::int32_t begin = a.chunk_rows[rank * a.num_chunks];
    a.row_offsets[rank] = begin;
    if (rank < a.num_ranks) a.counts[rank] = a.chunk_rows[(rank + 1) * a.num_chunks] - begin;
  }
}

/// Row `row` of the token: its token and its header.
__device__ void write_row(const Assignment& a, std::int64_t token, std::int32_t row, std::int32_t rank) {
  const std::int32_t* ranks = a.pair_ranks + token * a.top_k;
  RowEntry* entry = a.headers + static_cast<std::int64_t>(row) * a.top_k;
  RowEntry* const end = entry + a.top_k;
  a.row_tokens[row] = static_cast<std::int32_t>(token);
  for (std::int32_t k = 0; k < a.top_k; ++k) {
    if (ranks[k] != rank) continue;
    const std::int64_t pair = token * a.top_k + k;
    *entry++ = {a.expert_ids[pair], a.weights[pair]};
  }
  for (; entry < end; ++entry) *entry = RowEntry{};
}

/// Position of pair k of the lane's token among all pairs. `lanes` marks the tokens of the chunk that go to
/// the pair's rank. Costs up to 32 * top_k comparisons; only terms that are pairs need it.
__device__ std::int32_t pair_position(const Assignment& a, const ChunkLane& at, std::uint32_t lanes,
                                      std::int32_t k) {
  const std::int32_t* ranks = a.pair_ranks + at.item * a.top_k;
  const std::int32_t rank = ranks[k];
  std::int32_t position = a.chunk_pairs[rank * a.num_chunks + at.chunk];
  for (std::uint32_t left = lanes & lanes_below(at.lane); left != 0; left &= left - 1) {
    const std::int32_t* others =
        a.pair_ranks + (at.chunk * kChunk + __ffs(static_cast<int>(left)) - 1) * a.top_k;
    for (std::int32_t other = 0; other < a.top_k; ++other) position += others[other] == rank ? 1 : 0;
  }
  for (std::int32_t before = 0; before < k; ++before) position += ranks[before] == rank ? 1 : 0;
  return position;
}

__global__ void fill_kernel(Assignment a) {
  extern __shared__ std::uint32_t shared[];
  write_row_offsets(a);
  const ChunkLane at = chunk_lane();
  if (at.chunk >= a.num_chunks) return;
  std::uint32_t* lanes = shared + at.warp * a.num_ranks;
  clear_words(lanes, a.num_ranks, at.lane);
  const bool has_token = at.item < a.num_tokens;
  const std::int32_t* ranks = a.pair_ranks + at.item * a.top_k;
  const std::int32_t num_pairs = has_token ? a.top_k : 0;
  for (std::int32_t k = 0; k < num_pairs; ++k) {
    if (ranks[k] != kNoRank) atomicOr(&lanes[ranks[k]], 1U << at.lane);
  }
  __syncwarp();
  const std::uint32_t first = first_of_rank(ranks, num_pairs);
  std::int32_t first_term = a.chunk_terms[at.chunk] + sum_below(__popc(first), at.lane);
  if (a.terms_are_pairs) first_term = static_cast<std::int32_t>(at.item) * a.top_k;
  if (!has_token) return;
  a.term_offsets[at.item] = first_term;
  if (at.item == a.num_tokens - 1) {
    a.term_offsets[a.num_tokens] = first_term + (a.terms_are_pairs ? a.top_k : __popc(first));
  }
  for (std::int32_t k = 0; k < a.top_k; ++k) {
    const std::int32_t rank = ranks[k];
    if (rank == kNoRank) continue;
    if (a.terms_are_pairs) a.term_indices[first_term + k] = pair_position(a, at, lanes[rank], k);
    if ((first >> k & 1U) == 0) continue;
    const std::int32_t row =
        a.chunk_rows[rank * a.num_chunks + at.chunk] + __popc(lanes[rank] & lanes_below(at.lane));
    write_row(a, at.item, row, rank);
    if (a.terms_are_pairs) continue;
    std::int32_t num_lower = 0;  // ranks of the token below this one
    for (std::int32_t other = 0; other < a.top_k; ++other) {
      num_lower += (first >> other & 1U) != 0 && ranks[other] < rank ? 1 : 0;
    }
    a.term_indices[first_term + num_lower] = row;
  }
}

Assignment assignment_of(const AssignRowsArgs& args) {
  const std::int64_t num_tokens = args.expert_ids.dim(0);
  const std::int64_t num_chunks = num_chunks_of(num_tokens);
  Assignment a{.expert_ids = args.expert_ids.i32(),
               .weights = args.weights.f32(),
               .replica_offsets = args.replicas.offsets.i32(),
               .replica_ranks = args.replicas.ranks.i32(),
               .replica_bounds = args.replicas.bounds.i32(),
               .replica_slots = args.replicas.slots.i32(),
               .num_tokens = num_tokens,
               .num_chunks = num_chunks,
               .num_experts = static_cast<std::int32_t>(args.replicas.offsets.dim(0)) - 1,
               .num_replicas = static_cast<std::int32_t>(args.replicas.ranks.dim(0)),
               .num_ranks = args.num_ranks,
               .top_k = static_cast<std::int32_t>(args.expert_ids.dim(1)),
               .terms_are_pairs = args.terms_are_pairs,
               .counts = args.counts.i32(),
               .row_offsets = args.row_offsets.i32(),
               .row_tokens = args.row_tokens.i32(),
               .headers = data_of<RowEntry>(args.headers),
               .term_offsets = args.term_offsets.i32(),
               .term_indices = args.term_indices.i32(),
               .pair_ranks = data_of<std::int32_t>(args.scratch)};
  a.chunk_rows = a.pair_ranks + num_tokens * a.top_k;
  a.chunk_pairs = a.chunk_rows + a.num_ranks * num_chunks + 1;
  a.chunk_terms = a.chunk_pairs + a.num_ranks * num_chunks + 1;
  return a;
}

void check_limits(const Assignment& a, std::size_t shared_bytes) {
  constexpr std::size_t kMostSharedBytes = 48 * 1024;
  if (a.top_k <= kWarp && shared_bytes <= kMostSharedBytes) return;
  throw Error(ErrorKind::kUnsupported,
              "assign_rows on cuda: top_k " + std::to_string(a.top_k) + ", " + std::to_string(a.num_ranks) +
                  " ranks and " + std::to_string(a.num_replicas) +
                  " replicas; top_k is at most 32, and replicas + 16 * ranks at most 12288");
}

}  // namespace

std::size_t CudaOps::assign_rows_scratch_bytes(std::int64_t num_tokens, std::int64_t top_k,
                                               std::int32_t num_ranks) const {
  const std::int64_t num_chunks = num_chunks_of(num_tokens);
  const std::int64_t words = num_tokens * top_k + 2 * (num_ranks * num_chunks + 1) + num_chunks + 1;
  return static_cast<std::size_t>(words) * sizeof(std::int32_t);
}

void CudaOps::assign_rows(Stream& stream, const AssignRowsArgs& args) const {
  check_args(args, assign_rows_scratch_bytes(args.expert_ids.dim(0), args.expert_ids.dim(1), args.num_ranks));
  CudaStream& own = cuda_stream(stream);
  check_cuda(cudaMemsetAsync(args.counts.bytes(), 0, args.counts.size_bytes(), own.handle()), "assign_rows");
  const Assignment a = assignment_of(args);
  if (a.num_tokens == 0) {
    check_cuda(cudaMemsetAsync(args.row_offsets.bytes(), 0, args.row_offsets.size_bytes(), own.handle()),
               "assign_rows");
    return;
  }
  const auto words_by_rank = static_cast<std::size_t>(kChunksPerBlock * a.num_ranks);
  const std::size_t count_bytes =
      (static_cast<std::size_t>(a.num_replicas) + 2 * words_by_rank) * sizeof(std::uint32_t);
  check_limits(a, count_bytes);
  const unsigned blocks = blocks_for(a.num_chunks, kChunksPerBlock);
  count_kernel<<<blocks, kChunkThreads, count_bytes, own.handle()>>>(a, own.faults());
  check_launch("assign_rows count");
  const std::int64_t num_sums = a.num_ranks * a.num_chunks;
  submit_exclusive_sums(
      own, {{{a.chunk_rows, num_sums}, {a.chunk_pairs, num_sums}, {a.chunk_terms, a.num_chunks}}}, 3);
  fill_kernel<<<blocks, kChunkThreads, words_by_rank * sizeof(std::uint32_t), own.handle()>>>(a);
  check_launch("assign_rows fill");
}

}  // namespace aurora::cuda
