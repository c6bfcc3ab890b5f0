#include <algorithm>
#include <numeric>
#include <string>

#include "kernels/cpu/cpu_ops.h"

namespace aurora::cpu {
namespace {

/// The used entries of one row: those before the first unused one.
std::span<const RowEntry> used_entries(const GroupRowsArgs& args, std::int64_t row) {
  const auto* header = reinterpret_cast<const RowEntry*>(
      args.rows + static_cast<std::size_t>(row) * args.row_bytes + args.header_offset);
  const RowEntry* end = header + args.top_k;
  return {header, std::find_if(header, end, [](const RowEntry& entry) { return entry.expert < 0; })};
}

std::int32_t local_index_of(const GroupRowsArgs& args, std::int64_t row, std::int32_t expert) {
  const bool is_here = expert < args.local_index.dim(0) && args.local_index.i32()[expert] >= 0;
  check(is_here, "group_rows: row " + std::to_string(row) + " names expert " + std::to_string(expert) +
                     ", which does not live on this rank");
  return args.local_index.i32()[expert];
}

/// Counts the pairs of each local expert and lays the experts out one after the other.
void sum_offsets(const GroupRowsArgs& args) {
  std::int32_t* offsets = args.expert_offsets.i32();
  const std::int64_t num_local = args.expert_offsets.dim(0) - 1;
  std::fill_n(offsets, num_local + 1, 0);
  for (std::int64_t row = 0; row < args.num_rows; ++row) {
    for (const RowEntry& entry : used_entries(args, row)) {
      ++offsets[local_index_of(args, row, entry.expert) + 1];
    }
  }
  std::partial_sum(offsets, offsets + num_local + 1, offsets);
  const std::int64_t announced = args.row_indices.dim(0);
  if (offsets[num_local] == announced) return;
  check(false, "group_rows: the rows hold " + std::to_string(offsets[num_local]) +
                   " pairs, the counts announced " + std::to_string(announced));
}

void run_group_rows(const GroupRowsArgs& args) {
  sum_offsets(args);
  auto* next = reinterpret_cast<std::int32_t*>(args.scratch.bytes());
  std::copy_n(args.expert_offsets.i32(), args.expert_offsets.dim(0) - 1, next);
  std::int32_t term = 0;
  for (std::int64_t row = 0; row < args.num_rows; ++row) {
    args.term_offsets.i32()[row] = term;
    for (const RowEntry& entry : used_entries(args, row)) {
      const std::int32_t position = next[args.local_index.i32()[entry.expert]]++;
      args.row_indices.i32()[position] = static_cast<std::int32_t>(row);
      args.term_indices.i32()[term] = position;
      args.term_weights.f32()[term++] = entry.weight;
    }
  }
  args.term_offsets.i32()[args.num_rows] = term;
}

/// Pairs are numbered token by token; those of each expert are laid out in that order.
void run_group_pairs(const GroupPairsArgs& args) {
  const std::int64_t num_tokens = args.expert_ids.dim(0);
  const std::int64_t top_k = args.expert_ids.dim(1);
  const std::int64_t num_pairs = num_tokens * top_k;
  const std::int64_t num_experts = args.expert_offsets.dim(0) - 1;
  const std::int32_t* expert_ids = args.expert_ids.i32();
  std::int32_t* offsets = args.expert_offsets.i32();
  std::fill_n(offsets, num_experts + 1, 0);
  for (std::int64_t pair = 0; pair < num_pairs; ++pair) {
    check_index(expert_ids[pair], num_experts, pair, "group_pairs: expert_ids");
    ++offsets[expert_ids[pair] + 1];
  }
  std::partial_sum(offsets, offsets + num_experts + 1, offsets);
  auto* next = reinterpret_cast<std::int32_t*>(args.scratch.bytes());
  std::copy_n(offsets, num_experts, next);
  for (std::int64_t pair = 0; pair < num_pairs; ++pair) {
    const std::int32_t position = next[expert_ids[pair]]++;
    args.row_indices.i32()[position] = static_cast<std::int32_t>(pair / top_k);
    args.term_indices.i32()[pair] = position;
  }
  for (std::int64_t token = 0; token <= num_tokens; ++token) {
    args.term_offsets.i32()[token] = static_cast<std::int32_t>(token * top_k);
  }
}

}  // namespace

std::size_t CpuOps::group_rows_scratch_bytes(std::int64_t /*num_rows*/, std::int64_t /*top_k*/,
                                             std::int64_t num_local_experts) const {
  return static_cast<std::size_t>(num_local_experts) * sizeof(std::int32_t);
}

void CpuOps::group_rows(Stream& stream, const GroupRowsArgs& args) const {
  check_args(args, group_rows_scratch_bytes(args.num_rows, args.top_k, args.expert_offsets.dim(0) - 1));
  if (args.num_rows == 0) return;
  cpu_stream(stream).submit([args] { run_group_rows(args); });
}

void CpuOps::group_pairs(Stream& stream, const GroupPairsArgs& args) const {
  const std::int64_t num_experts = args.expert_offsets.dim(0) - 1;
  check_args(args, group_rows_scratch_bytes(args.expert_ids.dim(0), args.expert_ids.dim(1), num_experts));
  if (args.expert_ids.dim(0) == 0) return;
  cpu_stream(stream).submit([args] { run_group_pairs(args); });
}

}  // namespace aurora::cpu
