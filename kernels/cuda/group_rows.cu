#include <string>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/stable_slots.cuh"

namespace aurora::cuda {
namespace {

/// The arguments as a kernel reads them, and the scratch.
struct Grouping {
  const std::byte* headers;  // of row 0; the others at multiples of row_bytes
  std::int64_t row_bytes;
  std::int64_t num_rows;
  std::int64_t num_chunks;
  std::int64_t num_pairs;
  std::int32_t top_k;
  std::int32_t num_experts;
  std::int32_t num_local_experts;
  const std::int32_t* local_index;
  std::int32_t* expert_offsets;
  std::int32_t* row_indices;
  std::int32_t* term_offsets;
  std::int32_t* term_indices;
  float* term_weights;
  std::int32_t* chunk_pairs = nullptr;  // [num_local_experts, num_chunks] and the sum
  std::int32_t* chunk_terms = nullptr;  // [num_chunks] and the sum
};

__device__ RowEntry entry_of(const Grouping& g, std::int64_t row, std::int32_t k) {
  // Headers are aligned to four bytes.
  const auto* words = reinterpret_cast<const std::int32_t*>(g.headers + row * g.row_bytes) + 2 * k;
  return {words[0], __int_as_float(words[1])};
}

/// Position of the expert among this rank's, or -1 when it is not here.
__device__ std::int32_t local_index_of(const Grouping& g, std::int32_t expert) {
  return expert < g.num_experts ? g.local_index[expert] : -1;
}

/// Marks the lane's row in the word of each of its experts; returns how many these are.
__device__ std::int32_t mark_experts(const Grouping& g, const ChunkLane& at, std::uint32_t* lanes) {
  clear_words(lanes, g.num_local_experts, at.lane);
  std::int32_t num_entries = 0;
  for (std::int32_t k = 0; at.item < g.num_rows && k < g.top_k; ++k) {
    const RowEntry entry = entry_of(g, at.item, k);
    if (entry.expert < 0) break;
    const std::int32_t local = local_index_of(g, entry.expert);
    if (local < 0) continue;
    atomicOr(&lanes[local], 1U << at.lane);
    ++num_entries;
  }
  __syncwarp();
  return num_entries;
}

__global__ void count_kernel(Grouping g) {
  extern __shared__ std::uint32_t shared[];
  const ChunkLane at = chunk_lane();
  if (at.chunk >= g.num_chunks) return;
  std::uint32_t* lanes = shared + at.warp * g.num_local_experts;
  const std::int32_t num_entries = mark_experts(g, at, lanes);
  for (std::int32_t local = at.lane; local < g.num_local_experts; local += kWarp) {
    g.chunk_pairs[local * g.num_chunks + at.chunk] = __popc(lanes[local]);
  }
  const std::int32_t before = sum_below(num_entries, at.lane);
  if (at.lane == kWarp - 1) g.chunk_terms[at.chunk] = before + num_entries;
}

/// Where each local expert's pairs begin. Any number of threads. More pairs than announced have no place in
/// the outputs; the offsets stay within it.
__device__ void write_offsets(const Grouping& g, FaultSink faults) {
  const auto num_threads = static_cast<std::int32_t>(gridDim.x * blockDim.x);
  const auto first = static_cast<std::int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  for (std::int32_t local = first; local <= g.num_local_experts; local += num_threads) {
    const std::int32_t offset = g.chunk_pairs[local * g.num_chunks];
    g.expert_offsets[local] = min(offset, static_cast<std::int32_t>(g.num_pairs));
    if (local == g.num_local_experts && offset != g.num_pairs) {
      report_fault(faults, FaultSite::kGroupPairs, 0, offset, g.num_pairs);
    }
  }
}

__global__ void fill_kernel(Grouping g, FaultSink faults) {
  extern __shared__ std::uint32_t shared[];
  write_offsets(g, faults);
  const ChunkLane at = chunk_lane();
  if (at.chunk >= g.num_chunks) return;
  std::uint32_t* lanes = shared + at.warp * g.num_local_experts;
  const std::int32_t num_entries = mark_experts(g, at, lanes);
  std::int32_t term = g.chunk_terms[at.chunk] + sum_below(num_entries, at.lane);
  if (at.item >= g.num_rows) return;
  g.term_offsets[at.item] = term;
  if (at.item == g.num_rows - 1) g.term_offsets[g.num_rows] = term + num_entries;
  for (std::int32_t k = 0; k < g.top_k; ++k) {
    const RowEntry entry = entry_of(g, at.item, k);
    if (entry.expert < 0) break;
    const std::int32_t local = local_index_of(g, entry.expert);
    if (local < 0) {
      report_fault(faults, FaultSite::kGroupExpert, at.item, entry.expert, g.num_experts);
      continue;
    }
    const std::int32_t position =
        g.chunk_pairs[local * g.num_chunks + at.chunk] + __popc(lanes[local] & lanes_below(at.lane));
    // More pairs than announced are a fault already; they have no place.
    if (position >= g.num_pairs || term >= g.num_pairs) continue;
    g.row_indices[position] = static_cast<std::int32_t>(at.item);
    g.term_indices[term] = position;
    g.term_weights[term++] = entry.weight;
  }
}

Grouping grouping_of(const GroupRowsArgs& args) {
  const std::int64_t num_chunks = num_chunks_of(args.num_rows);
  Grouping g{.headers = args.rows + args.header_offset,
             .row_bytes = static_cast<std::int64_t>(args.row_bytes),
             .num_rows = args.num_rows,
             .num_chunks = num_chunks,
             .num_pairs = args.row_indices.dim(0),
             .top_k = args.top_k,
             .num_experts = static_cast<std::int32_t>(args.local_index.dim(0)),
             .num_local_experts = static_cast<std::int32_t>(args.expert_offsets.dim(0)) - 1,
             .local_index = args.local_index.i32(),
             .expert_offsets = args.expert_offsets.i32(),
             .row_indices = args.row_indices.i32(),
             .term_offsets = args.term_offsets.i32(),
             .term_indices = args.term_indices.i32(),
             .term_weights = args.term_weights.f32(),
             .chunk_pairs = data_of<std::int32_t>(args.scratch)};
  g.chunk_terms = g.chunk_pairs + g.num_local_experts * num_chunks + 1;
  return g;
}

}  // namespace

std::size_t CudaOps::group_rows_scratch_bytes(std::int64_t num_rows, std::int64_t num_local_experts) const {
  const std::int64_t words = (num_local_experts + 1) * num_chunks_of(num_rows) + 2;
  return static_cast<std::size_t>(words) * sizeof(std::int32_t);
}

void CudaOps::group_rows(Stream& stream, const GroupRowsArgs& args) const {
  const std::int64_t num_local = args.expert_offsets.dim(0) - 1;
  check_args(args, group_rows_scratch_bytes(args.num_rows, num_local));
  if (args.num_rows == 0) return;
  constexpr std::int64_t kMostLocalExperts = 1536;  // a word each for eight chunks in 48 KiB of shared memory
  if (num_local > kMostLocalExperts) {
    throw Error(ErrorKind::kUnsupported, "group_rows on cuda: " + std::to_string(num_local) +
                                             " experts on one rank; at most " +
                                             std::to_string(kMostLocalExperts) + " are supported");
  }
  CudaStream& own = cuda_stream(stream);
  const Grouping g = grouping_of(args);
  const unsigned blocks = blocks_for(g.num_chunks, kChunksPerBlock);
  const std::size_t shared_bytes =
      static_cast<std::size_t>(kChunksPerBlock * g.num_local_experts) * sizeof(std::uint32_t);
  count_kernel<<<blocks, kChunkThreads, shared_bytes, own.handle()>>>(g);
  check_launch("group_rows count");
  submit_exclusive_sums(
      own, {{{g.chunk_pairs, g.num_local_experts * g.num_chunks}, {g.chunk_terms, g.num_chunks}}}, 2);
  fill_kernel<<<blocks, kChunkThreads, shared_bytes, own.handle()>>>(g, own.faults());
  check_launch("group_rows fill");
}

}  // namespace aurora::cuda
