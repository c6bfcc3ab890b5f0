// A batch is assigned by pairs (token, k): which rank each goes to, then where the rows of that rank, and
// their headers and terms, lie (stable_slots.cuh). A small batch is the work of one block in one launch; a
// large one is counted, summed and filled in three.
#include <algorithm>
#include <string>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/stable_slots.cuh"

namespace aurora::cuda {
namespace {

constexpr std::int32_t kNoRank = -1;  // of a pair whose expert id is out of range: reported, then left out
constexpr int kPartChunks = 2;        // of a block, of three launches: small, so that all of the GPU has some
constexpr unsigned kPartThreads = 256;

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
  int chunks_per_block;
  std::int32_t* pair_ranks = nullptr;   // [num_tokens, top_k]
  std::int32_t* chunk_rows = nullptr;   // [num_ranks, num_chunks] and the sum
  std::int32_t* chunk_pairs = nullptr;  // the same
  std::int32_t* chunk_terms = nullptr;  // [num_chunks] and the sum: rows of the chunk's tokens
};

std::int64_t scratch_words(std::int64_t num_tokens, std::int64_t top_k, std::int64_t num_ranks) {
  const std::int64_t num_chunks = num_chunks_of(num_tokens);
  return num_tokens * top_k + 2 * (num_ranks * num_chunks + 1) + num_chunks + 1;
}

__host__ __device__ void place_scratch(Assignment& a, std::int32_t* words) {
  a.pair_ranks = words;
  a.chunk_rows = a.pair_ranks + a.num_tokens * a.top_k;
  a.chunk_pairs = a.chunk_rows + a.num_ranks * a.num_chunks + 1;
  a.chunk_terms = a.chunk_pairs + a.num_ranks * a.num_chunks + 1;
}

__host__ __device__ ExclusiveSum row_sums(const Assignment& a) {
  return {a.chunk_rows, a.num_ranks * a.num_chunks};
}

/// What the positions of terms come from: the pairs of each rank, or the rows of each token.
__host__ __device__ ExclusiveSum term_sums(const Assignment& a) {
  if (a.terms_are_pairs) return {a.chunk_pairs, a.num_ranks * a.num_chunks};
  return {a.chunk_terms, a.num_chunks};
}

/// The rule of ReplicaTable.
__device__ std::int32_t select_replica(const Assignment& a, std::int32_t expert, std::int64_t token) {
  const std::int32_t last = a.replica_offsets[expert + 1] - 1;
  const std::uint32_t point = (static_cast<std::uint32_t>(token + 1) * 2654435769U) >> 1;
  std::int32_t replica = a.replica_offsets[expert];
  while (replica < last && point >= static_cast<std::uint32_t>(a.replica_bounds[replica])) ++replica;
  return replica;
}

/// Whether no earlier pair of the token goes to the rank of its pair k.
__device__ bool is_first_of_rank(const std::int32_t* ranks, std::int32_t k) {
  bool is_first = true;
  for (std::int32_t before = 0; before < k; ++before) is_first &= ranks[before] != ranks[k];
  return is_first;
}

/// A block's share of the tokens, and what it keeps of them in shared memory.
struct BlockPart {
  std::int64_t first_chunk;
  std::int64_t first_pair;
  int num_chunks;
  int num_tokens;
  int num_pairs;
  std::uint32_t* lanes;   // [num_chunks, num_ranks] one bit a token that goes to the rank
  std::uint32_t* pairs;   // [num_chunks, num_ranks] how many; at last the position of the next one
  std::uint32_t* firsts;  // [num_chunks, kChunk] of a token: bit k as in is_first_of_rank
  std::int32_t* terms;    // [num_chunks, kChunk] where the token's terms begin
  std::uint32_t* slots;   // [num_replicas] pairs; only while counting
};

/// Words of a part without its slots.
std::int64_t part_words(const Assignment& a) {
  return static_cast<std::int64_t>(a.chunks_per_block) * 2 * (a.num_ranks + kChunk);
}

/// The part of this block, in cleared shared memory. Reads nothing that a kernel writes.
__device__ BlockPart clear_part(const Assignment& a, std::uint32_t* shared, int num_slots) {
  BlockPart part{.first_chunk = static_cast<std::int64_t>(blockIdx.x) * a.chunks_per_block};
  const std::int64_t first_token = part.first_chunk * kChunk;
  const auto most_tokens = static_cast<std::int64_t>(a.chunks_per_block) * kChunk;
  part.first_pair = first_token * a.top_k;
  part.num_tokens = static_cast<int>(min(most_tokens, a.num_tokens - first_token));
  part.num_chunks = (part.num_tokens + kChunk - 1) / kChunk;
  part.num_pairs = part.num_tokens * a.top_k;
  part.lanes = shared;
  part.pairs = part.lanes + a.chunks_per_block * a.num_ranks;
  part.firsts = part.pairs + a.chunks_per_block * a.num_ranks;
  part.terms = reinterpret_cast<std::int32_t*>(part.firsts + most_tokens);
  part.slots = part.firsts + 2 * most_tokens;
  const auto num_words = static_cast<int>(part.slots - shared) + num_slots;
  for (int i = static_cast<int>(threadIdx.x); i < num_words; i += static_cast<int>(blockDim.x)) shared[i] = 0;
  __syncthreads();
  return part;
}

/// Finds the rank of each pair and counts the pairs by slot, a thread a pair.
__device__ void choose_replicas(const Assignment& a, const BlockPart& part, FaultSink faults) {
  for (int i = static_cast<int>(threadIdx.x); i < part.num_pairs; i += static_cast<int>(blockDim.x)) {
    const std::int64_t pair = part.first_pair + i;
    const std::int32_t expert = a.expert_ids[pair];
    std::int32_t rank = kNoRank;
    if (index_fits(faults, FaultSite::kAssignExpertIds, pair, expert, a.num_experts)) {
      const std::int32_t replica = select_replica(a, expert, part.first_chunk * kChunk + i / a.top_k);
      rank = a.replica_ranks[replica];
      atomicAdd(&part.slots[a.replica_slots[replica]], 1U);
    }
    a.pair_ranks[pair] = rank;
  }
  __syncthreads();
}

/// Marks each pair of known rank in the words of the part, a thread a pair.
__device__ void mark_pairs(const Assignment& a, const BlockPart& part) {
  for (int i = static_cast<int>(threadIdx.x); i < part.num_pairs; i += static_cast<int>(blockDim.x)) {
    const int token = i / a.top_k;
    const int k = i % a.top_k;
    const std::int32_t* ranks = a.pair_ranks + part.first_pair + static_cast<std::int64_t>(token) * a.top_k;
    const std::int32_t rank = ranks[k];
    if (rank == kNoRank) continue;
    const int word = token / kChunk * a.num_ranks + rank;
    if (a.terms_are_pairs) atomicAdd(&part.pairs[word], 1U);
    if (!is_first_of_rank(ranks, k)) continue;
    atomicOr(&part.lanes[word], 1U << token % kChunk);
    atomicOr(&part.firsts[token], 1U << k);
  }
  __syncthreads();
}

/// What the chunks of the part add to the sums.
__device__ void write_chunk_counts(const Assignment& a, const BlockPart& part) {
  const auto num_threads = static_cast<int>(blockDim.x);
  for (int i = static_cast<int>(threadIdx.x); i < part.num_chunks * a.num_ranks; i += num_threads) {
    const std::int64_t chunk = part.first_chunk + i / a.num_ranks;
    const std::int64_t at = i % a.num_ranks * a.num_chunks + chunk;
    a.chunk_rows[at] = __popc(part.lanes[i]);
    if (a.terms_are_pairs) a.chunk_pairs[at] = static_cast<std::int32_t>(part.pairs[i]);
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int chunk = static_cast<int>(threadIdx.x) / kWarp; chunk < part.num_chunks;
       chunk += num_threads / kWarp) {
    const std::int32_t num_rows = __popc(part.firsts[chunk * kChunk + lane]);
    const std::int32_t before = sum_below(num_rows, lane);
    if (lane == kWarp - 1) a.chunk_terms[part.first_chunk + chunk] = before + num_rows;
  }
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

/// Where the terms of each token begin, a warp a chunk.
__device__ void write_term_offsets(const Assignment& a, const BlockPart& part) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int chunk = static_cast<int>(threadIdx.x) / kWarp; chunk < part.num_chunks;
       chunk += static_cast<int>(blockDim.x) / kWarp) {
    const int token = chunk * kChunk + lane;  // of the part
    const std::int64_t item = part.first_chunk * kChunk + token;
    std::int32_t num_terms = __popc(part.firsts[token]);
    std::int32_t first = a.chunk_terms[part.first_chunk + chunk] + sum_below(num_terms, lane);
    if (a.terms_are_pairs) {
      num_terms = a.top_k;
      first = static_cast<std::int32_t>(item) * a.top_k;
    }
    part.terms[token] = first;
    if (item < a.num_tokens) a.term_offsets[item] = first;
    if (item == a.num_tokens - 1) a.term_offsets[a.num_tokens] = first + num_terms;
  }
  __syncthreads();
}

/// The positions of the part's pairs among all, a warp a chunk. The pairs of a rank follow each other as they
/// lie, so a warp takes them 32 at a time and counts those of the same rank in the lanes below.
__device__ void write_pair_positions(const Assignment& a, const BlockPart& part) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int chunk = static_cast<int>(threadIdx.x) / kWarp; chunk < part.num_chunks;
       chunk += static_cast<int>(blockDim.x) / kWarp) {
    std::uint32_t* next = part.pairs + chunk * a.num_ranks;
    for (std::int32_t rank = lane; rank < a.num_ranks; rank += kWarp) {
      next[rank] = static_cast<std::uint32_t>(a.chunk_pairs[rank * a.num_chunks + part.first_chunk + chunk]);
    }
    __syncwarp();
    const int begin = chunk * kChunk * a.top_k;
    const int end = min(begin + kChunk * a.top_k, part.num_pairs);
    for (int first = begin; first < end; first += kWarp) {
      const int i = first + lane;
      const std::int32_t rank = i < end ? a.pair_ranks[part.first_pair + i] : kNoRank;
      const std::uint32_t peers = __match_any_sync(~0U, rank);
      const std::uint32_t before = peers & lanes_below(lane);
      if (rank != kNoRank) {
        a.term_indices[part.first_pair + i] = static_cast<std::int32_t>(next[rank]) + __popc(before);
      }
      __syncwarp();
      if (rank != kNoRank && before == 0) next[rank] += static_cast<std::uint32_t>(__popc(peers));
      __syncwarp();
    }
  }
}

/// The rows of the part: each pair writes its entry of the header, the first of a rank the rest of the row.
__device__ void write_rows(const Assignment& a, const BlockPart& part) {
  for (int i = static_cast<int>(threadIdx.x); i < part.num_pairs; i += static_cast<int>(blockDim.x)) {
    const RowEntry entry{a.expert_ids[part.first_pair + i], a.weights[part.first_pair + i]};
    const int token = i / a.top_k;
    const int k = i % a.top_k;
    const std::int32_t* ranks = a.pair_ranks + part.first_pair + static_cast<std::int64_t>(token) * a.top_k;
    const std::int32_t rank = ranks[k];
    if (rank == kNoRank) continue;
    const int chunk = token / kChunk;
    const std::int32_t row = a.chunk_rows[rank * a.num_chunks + part.first_chunk + chunk] +
                             __popc(part.lanes[chunk * a.num_ranks + rank] & lanes_below(token % kChunk));
    std::int32_t num_before = 0;  // pairs of the row, those before this one and all
    std::int32_t num_entries = 0;
    for (std::int32_t other = 0; other < a.top_k; ++other) {
      const std::int32_t is_same = ranks[other] == rank ? 1 : 0;
      num_entries += is_same;
      if (other < k) num_before += is_same;
    }
    RowEntry* entries = a.headers + static_cast<std::int64_t>(row) * a.top_k;
    entries[num_before] = entry;
    if (num_before > 0) continue;
    a.row_tokens[row] = static_cast<std::int32_t>(part.first_chunk * kChunk + token);
    for (std::int32_t rest = num_entries; rest < a.top_k; ++rest) entries[rest] = RowEntry{};
    if (a.terms_are_pairs) continue;
    std::int32_t num_lower = 0;  // ranks of the token below this one
    for (std::uint32_t left = part.firsts[token]; left != 0; left &= left - 1) {
      num_lower += ranks[__ffs(static_cast<int>(left)) - 1] < rank ? 1 : 0;
    }
    a.term_indices[part.terms[token] + num_lower] = row;
  }
}

__device__ void count_part(const Assignment& a, const BlockPart& part, FaultSink faults) {
  choose_replicas(a, part, faults);
  mark_pairs(a, part);
  write_chunk_counts(a, part);
}

__device__ void fill_part(const Assignment& a, const BlockPart& part) {
  write_row_offsets(a);
  if (a.terms_are_pairs) write_pair_positions(a, part);
  write_term_offsets(a, part);
  write_rows(a, part);
}

__global__ void count_kernel(Assignment a, FaultSink faults) {
  extern __shared__ std::uint32_t shared[];
  const BlockPart part = clear_part(a, shared, a.num_replicas);
  wait_for_kernel_before();
  let_next_kernel_begin();
  count_part(a, part, faults);
  for (int i = static_cast<int>(threadIdx.x); i < a.num_replicas; i += static_cast<int>(blockDim.x)) {
    if (part.slots[i] > 0) atomicAdd(&a.counts[a.num_ranks + i], static_cast<std::int32_t>(part.slots[i]));
  }
}

__global__ void fill_kernel(Assignment a) {
  extern __shared__ std::uint32_t shared[];
  const BlockPart part = clear_part(a, shared, 0);
  wait_for_kernel_before();
  let_next_kernel_begin();
  mark_pairs(a, part);
  fill_part(a, part);
}

/// All steps by one block, whose scratch is in shared memory.
__global__ void assign_kernel(Assignment a, FaultSink faults) {
  extern __shared__ std::uint32_t shared[];
  const BlockPart part = clear_part(a, shared, a.num_replicas);
  place_scratch(a, reinterpret_cast<std::int32_t*>(part.slots) + a.num_replicas);
  wait_for_kernel_before();
  let_next_kernel_begin();
  count_part(a, part, faults);
  for (int i = static_cast<int>(threadIdx.x); i < a.num_replicas; i += static_cast<int>(blockDim.x)) {
    a.counts[a.num_ranks + i] = static_cast<std::int32_t>(part.slots[i]);
  }
  __syncthreads();
  sum_in_block(row_sums(a));
  sum_in_block(term_sums(a));
  __syncthreads();
  fill_part(a, part);
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
               .chunks_per_block = kPartChunks};
  place_scratch(a, data_of<std::int32_t>(args.scratch));
  return a;
}

constexpr std::int64_t kMostSharedWords = 48 * 1024 / sizeof(std::uint32_t);

void check_limits(const Assignment& a) {
  if (a.top_k <= kWarp && part_words(a) + a.num_replicas <= kMostSharedWords) return;
  throw Error(ErrorKind::kUnsupported,
              "assign_rows on cuda: top_k " + std::to_string(a.top_k) + ", " + std::to_string(a.num_ranks) +
                  " ranks and " + std::to_string(a.num_replicas) +
                  " replicas; top_k is at most 32, and replicas + 4 * ranks at most " +
                  std::to_string(kMostSharedWords - 2 * kPartChunks * kChunk));
}

std::size_t bytes_of_words(std::int64_t words) {
  return static_cast<std::size_t>(words) * sizeof(std::uint32_t);
}

/// Submits all steps as one block when the batch is small enough for it.
bool submit_in_one_block(CudaStream& stream, Assignment a) {
  // Beyond, the pairs of a block's threads take their turns for longer than two more launches.
  constexpr std::int64_t kMostPairs = 2048;
  constexpr std::int64_t kFewestThreads = 256;
  constexpr std::int64_t kMostThreads = 1024;
  if (a.num_tokens * a.top_k > kMostPairs) return false;
  a.chunks_per_block = static_cast<int>(a.num_chunks);
  const std::int64_t words =
      part_words(a) + a.num_replicas + scratch_words(a.num_tokens, a.top_k, a.num_ranks);
  if (words + kWarp > kMostSharedWords) return false;  // the sums have a word a warp of their own
  const std::int64_t num_threads = num_chunks_of(a.num_tokens * a.top_k) * kWarp;  // one a pair
  launch_dependent(assign_kernel, 1,
                   static_cast<unsigned>(std::clamp(num_threads, kFewestThreads, kMostThreads)),
                   bytes_of_words(words), stream.handle(), "assign_rows", a, stream.faults());
  return true;
}

void submit_in_three_launches(CudaStream& stream, const Assignment& a) {
  const unsigned blocks = blocks_for(a.num_chunks, a.chunks_per_block);
  launch_dependent(count_kernel, blocks, kPartThreads, bytes_of_words(part_words(a) + a.num_replicas),
                   stream.handle(), "assign_rows count", a, stream.faults());
  submit_exclusive_sums(stream, {{row_sums(a), term_sums(a)}}, 2);
  launch_dependent(fill_kernel, blocks, kPartThreads, bytes_of_words(part_words(a)), stream.handle(),
                   "assign_rows fill", a);
}

void clear(CudaStream& stream, const Tensor& tensor) {
  check_cuda(cudaMemsetAsync(tensor.bytes(), 0, tensor.size_bytes(), stream.handle()), "assign_rows");
}

}  // namespace

std::size_t CudaOps::assign_rows_scratch_bytes(std::int64_t num_tokens, std::int64_t top_k,
                                               std::int32_t num_ranks) const {
  return bytes_of_words(scratch_words(num_tokens, top_k, num_ranks));
}

void CudaOps::assign_rows(Stream& stream, const AssignRowsArgs& args) const {
  check_args(args, assign_rows_scratch_bytes(args.expert_ids.dim(0), args.expert_ids.dim(1), args.num_ranks));
  CudaStream& own = cuda_stream(stream);
  const Assignment a = assignment_of(args);
  if (a.num_tokens > 0) {
    check_limits(a);
    if (submit_in_one_block(own, a)) return;
  }
  clear(own, args.counts);
  if (a.num_tokens > 0) return submit_in_three_launches(own, a);
  clear(own, args.row_offsets);
}

}  // namespace aurora::cuda
