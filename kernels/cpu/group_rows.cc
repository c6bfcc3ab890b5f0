#include <algorithm>
#include <string>
#include <vector>

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

/// Throws unless the headers hold as many pairs for each expert as announced.
void check_offsets(const GroupRowsArgs& args, std::span<const std::int32_t> offsets, std::int32_t* counts) {
  const std::size_t num_local = offsets.size() - 1;
  std::fill_n(counts, num_local, 0);
  for (std::int64_t row = 0; row < args.num_rows; ++row) {
    for (const RowEntry& entry : used_entries(args, row)) ++counts[local_index_of(args, row, entry.expert)];
  }
  for (std::size_t local = 0; local < num_local; ++local) {
    const std::int32_t announced = offsets[local + 1] - offsets[local];
    if (counts[local] == announced) continue;
    check(false, "group_rows: the rows hold " + std::to_string(counts[local]) + " pairs of local expert " +
                     std::to_string(local) + ", the counts announced " + std::to_string(announced));
  }
}

void run_group_rows(const GroupRowsArgs& args, std::span<const std::int32_t> offsets) {
  auto* next = reinterpret_cast<std::int32_t*>(args.scratch.bytes());
  check_offsets(args, offsets, next);
  std::copy(offsets.begin(), offsets.end() - 1, next);
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

}  // namespace

std::size_t CpuOps::group_rows_scratch_bytes(std::int64_t, std::int64_t num_local_experts) const {
  return static_cast<std::size_t>(num_local_experts) * sizeof(std::int32_t);
}

void CpuOps::group_rows(Stream& stream, const GroupRowsArgs& args) const {
  const auto num_local = static_cast<std::int64_t>(args.expert_offsets.size()) - 1;
  check_args(args, group_rows_scratch_bytes(args.num_rows, num_local));
  if (args.num_rows == 0) return;
  CpuStream& own = cpu_stream(stream);
  if (own.is_inline()) return own.submit([&] { run_group_rows(args, args.expert_offsets); });
  own.submit([args, offsets = std::vector(args.expert_offsets.begin(), args.expert_offsets.end())] {
    run_group_rows(args, offsets);
  });
}

}  // namespace aurora::cpu
