#include <algorithm>
#include <numeric>
#include <span>

#include "kernels/cpu/cpu_ops.h"

namespace aurora::cpu {
namespace {

/// The replica, an index into the table, that serves `expert` for the token with index `token`.
std::int32_t select_replica(const ReplicaTable& replicas, std::int32_t expert, std::int64_t token) {
  const std::int32_t* offsets = replicas.offsets.i32();
  const std::int32_t last = offsets[expert + 1] - 1;
  constexpr std::uint32_t kGoldenRatio = 2654435769U;  // 2^32 / 1.618...
  const std::uint32_t point = (static_cast<std::uint32_t>(token + 1) * kGoldenRatio) >> 1;
  std::int32_t replica = offsets[expert];
  while (replica < last && point >= static_cast<std::uint32_t>(replicas.bounds.i32()[replica])) ++replica;
  return replica;
}

/// Visits the distinct ranks of one token in order of first appearance.
template <class Visit>
void for_each_destination(std::span<const std::int32_t> ranks, const Visit& visit) {
  for (std::size_t k = 0; k < ranks.size(); ++k) {
    const auto earlier = ranks.first(k);
    if (std::ranges::find(earlier, ranks[k]) == earlier.end()) visit(ranks[k]);
  }
}

class Assignment {
 public:
  explicit Assignment(const AssignRowsArgs& args)
      : args_(args),
        num_tokens_(static_cast<std::size_t>(args.expert_ids.dim(0))),
        top_k_(static_cast<std::size_t>(args.expert_ids.dim(1))),
        num_ranks_(static_cast<std::size_t>(args.num_ranks)),
        rank_of_pair_(reinterpret_cast<std::int32_t*>(args.scratch.bytes())),
        next_row_(rank_of_pair_ + num_tokens_ * top_k_),
        next_pair_(next_row_ + num_ranks_) {}

  void run() {
    count();
    offset();
    for (std::size_t token = 0; token < num_tokens_; ++token) fill(token);
  }

 private:
  std::span<const std::int32_t> ranks_of(std::size_t token) const {
    return {rank_of_pair_ + token * top_k_, top_k_};
  }

  /// Rows by rank and pairs by slot into `counts`; pairs by rank into `next_pair_`.
  void count() {
    const std::int32_t num_experts = static_cast<std::int32_t>(args_.replicas.offsets.dim(0)) - 1;
    std::int32_t* counts = args_.counts.i32();
    std::fill_n(counts, args_.counts.dim(0), 0);
    std::fill_n(next_pair_, num_ranks_, 0);
    for (std::size_t token = 0; token < num_tokens_; ++token) {
      for (std::size_t pair = token * top_k_; pair < (token + 1) * top_k_; ++pair) {
        const std::int32_t expert = args_.expert_ids.i32()[pair];
        check_index(expert, num_experts, static_cast<std::int64_t>(pair), "assign_rows: expert_ids");
        const std::int32_t replica = select_replica(args_.replicas, expert, static_cast<std::int64_t>(token));
        const std::int32_t rank = args_.replicas.ranks.i32()[replica];
        rank_of_pair_[pair] = rank;
        ++next_pair_[rank];
        ++counts[num_ranks_ + static_cast<std::size_t>(args_.replicas.slots.i32()[replica])];
      }
      for_each_destination(ranks_of(token), [&](std::int32_t rank) { ++counts[rank]; });
    }
  }

  void offset() {
    const std::int32_t* counts = args_.counts.i32();
    std::int32_t* row_offsets = args_.row_offsets.i32();
    row_offsets[0] = 0;
    std::partial_sum(counts, counts + num_ranks_, row_offsets + 1);
    std::copy_n(row_offsets, num_ranks_, next_row_);
    std::exclusive_scan(next_pair_, next_pair_ + num_ranks_, next_pair_, 0);
    if (num_tokens_ > 0) args_.term_offsets.i32()[0] = 0;
  }

  /// Rows, headers and terms of one token. Tokens come in ascending order.
  void fill(std::size_t token) {
    const std::span<const std::int32_t> ranks = ranks_of(token);
    const std::size_t first_pair = token * top_k_;
    auto* headers = reinterpret_cast<RowEntry*>(args_.headers.bytes());
    std::int32_t* const first_term = args_.term_indices.i32() + args_.term_offsets.i32()[token];
    std::int32_t* next_term = first_term;
    for_each_destination(ranks, [&](std::int32_t rank) {
      const std::int32_t row = next_row_[rank]++;
      args_.row_tokens.i32()[row] = static_cast<std::int32_t>(token);
      RowEntry* entry = headers + static_cast<std::size_t>(row) * top_k_;
      RowEntry* const end = entry + top_k_;
      for (std::size_t k = 0; k < top_k_; ++k) {
        if (ranks[k] != rank) continue;
        *entry++ = {args_.expert_ids.i32()[first_pair + k], args_.weights.f32()[first_pair + k]};
        if (args_.terms_are_pairs) first_term[k] = next_pair_[rank]++;
      }
      std::fill(entry, end, RowEntry{});
      if (!args_.terms_are_pairs) *next_term++ = row;
    });
    // Rows are numbered by rank, so ascending rows are ascending ranks.
    if (args_.terms_are_pairs) {
      next_term += top_k_;
    } else {
      std::sort(first_term, next_term);
    }
    args_.term_offsets.i32()[token + 1] = static_cast<std::int32_t>(next_term - args_.term_indices.i32());
  }

  const AssignRowsArgs& args_;
  std::size_t num_tokens_;
  std::size_t top_k_;
  std::size_t num_ranks_;
  // In the scratch.
  std::int32_t* rank_of_pair_;  // [num_tokens * top_k]
  std::int32_t* next_row_;      // [num_ranks]
  std::int32_t* next_pair_;     // [num_ranks]
};

}  // namespace

std::size_t CpuOps::assign_rows_scratch_bytes(std::int64_t num_tokens, std::int64_t top_k,
                                              std::int32_t num_ranks) const {
  return static_cast<std::size_t>(num_tokens * top_k + 2 * std::int64_t{num_ranks}) * sizeof(std::int32_t);
}

void CpuOps::assign_rows(Stream& stream, const AssignRowsArgs& args) const {
  check_args(args, assign_rows_scratch_bytes(args.expert_ids.dim(0), args.expert_ids.dim(1), args.num_ranks));
  cpu_stream(stream).submit([args] { Assignment(args).run(); });
}

}  // namespace aurora::cpu
