#include "runtime/dispatch/routing.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

#include "kernels/error.h"

namespace aurora {
namespace {

/// The rank that serves `expert` for the token with index `token`.
int select_replica(const std::vector<ExpertReplica>& replicas, std::size_t token) {
  if (replicas.size() == 1) return replicas.front().gpu.value;
  // Golden-ratio sequence: any run of tokens is spread over the shares almost exactly (discrepancy O(log n /
  // n)).
  constexpr double kGoldenRatioConjugate = 0.6180339887498949;
  double point = static_cast<double>(token + 1) * kGoldenRatioConjugate;
  point -= std::floor(point);
  for (const ExpertReplica& replica : replicas) {
    point -= replica.share;
    if (point < 0) return replica.gpu.value;
  }
  return replicas.back().gpu.value;
}

/// Which rank serves each (token, k) pair. [num_tokens * top_k]
std::vector<std::int32_t> assign_ranks(const RoutingArgs& args) {
  std::vector<std::int32_t> rank_of_pair(args.expert_ids.size());
  const auto& experts = args.placement->experts;
  for (std::size_t pair = 0; pair < rank_of_pair.size(); ++pair) {
    const std::int32_t expert = args.expert_ids[pair];
    check(expert >= 0 && static_cast<std::size_t>(expert) < experts.size(), "routed expert id is in range");
    rank_of_pair[pair] = select_replica(experts[expert], pair / static_cast<std::size_t>(args.top_k));
  }
  return rank_of_pair;
}

/// Visits the distinct ranks of one token in order of first appearance.
template <class Visit>
void for_each_destination(std::span<const std::int32_t> ranks, Visit visit) {
  for (std::size_t k = 0; k < ranks.size(); ++k) {
    bool is_first = true;
    for (std::size_t before = 0; before < k; ++before) is_first = is_first && ranks[before] != ranks[k];
    if (is_first) visit(ranks[k]);
  }
}

void count_rows_and_pairs(std::span<const std::int32_t> rank_of_pair, int top_k, int num_ranks,
                          SourceRouting& routing) {
  routing.row_offsets.assign(static_cast<std::size_t>(num_ranks) + 1, 0);
  routing.pair_offsets.assign(static_cast<std::size_t>(num_ranks) + 1, 0);
  for (std::size_t first = 0; first < rank_of_pair.size(); first += top_k) {
    const auto ranks = rank_of_pair.subspan(first, top_k);
    for (const std::int32_t rank : ranks) ++routing.pair_offsets[rank + 1];
    for_each_destination(ranks, [&](std::int32_t rank) { ++routing.row_offsets[rank + 1]; });
  }
  std::partial_sum(routing.row_offsets.begin(), routing.row_offsets.end(), routing.row_offsets.begin());
  std::partial_sum(routing.pair_offsets.begin(), routing.pair_offsets.end(), routing.pair_offsets.begin());
}

/// Writes rows, headers and, per pair, the index of the pair's returned row under kPerPair.
void fill_rows(const RoutingArgs& args, std::span<const std::int32_t> rank_of_pair, SourceRouting& routing,
               std::vector<std::int32_t>& row_of_pair, std::vector<std::int32_t>& slot_of_pair) {
  const std::size_t top_k = static_cast<std::size_t>(args.top_k);
  routing.row_tokens.resize(routing.num_rows());
  routing.entries.assign(static_cast<std::size_t>(routing.num_rows()) * top_k, RowEntry{});
  row_of_pair.resize(rank_of_pair.size());
  slot_of_pair.resize(rank_of_pair.size());
  std::vector<std::int32_t> next_row(routing.row_offsets.begin(), routing.row_offsets.end() - 1);
  std::vector<std::int32_t> next_slot(routing.pair_offsets.begin(), routing.pair_offsets.end() - 1);
  for (std::size_t token = 0; token * top_k < rank_of_pair.size(); ++token) {
    const auto ranks = rank_of_pair.subspan(token * top_k, top_k);
    for_each_destination(ranks, [&](std::int32_t rank) {
      const std::int32_t row = next_row[rank]++;
      routing.row_tokens[row] = static_cast<std::int32_t>(token);
      std::size_t entry = static_cast<std::size_t>(row) * top_k;
      for (std::size_t k = 0; k < top_k; ++k) {
        if (ranks[k] != rank) continue;
        const std::size_t pair = token * top_k + k;
        routing.entries[entry++] = {args.expert_ids[pair], args.weights[pair]};
        row_of_pair[pair] = row;
        slot_of_pair[pair] = next_slot[rank]++;
      }
    });
  }
}

/// kPerRow: a token's terms are its rows by ascending destination, so that the sum does not depend on top-k
/// order.
void fill_terms_per_row(const RoutingArgs& args, SourceRouting& routing) {
  const std::size_t num_tokens = args.expert_ids.size() / static_cast<std::size_t>(args.top_k);
  routing.term_offsets.assign(num_tokens + 1, 0);
  for (const std::int32_t token : routing.row_tokens) ++routing.term_offsets[token + 1];
  std::partial_sum(routing.term_offsets.begin(), routing.term_offsets.end(), routing.term_offsets.begin());
  routing.term_indices.resize(routing.row_tokens.size());
  routing.term_weights.clear();
  std::vector<std::int32_t> next(routing.term_offsets.begin(), routing.term_offsets.end() - 1);
  for (std::size_t row = 0; row < routing.row_tokens.size(); ++row) {
    routing.term_indices[next[routing.row_tokens[row]]++] = static_cast<std::int32_t>(row);
  }
}

void fill_terms_per_pair(const RoutingArgs& args, std::span<const std::int32_t> slot_of_pair,
                         SourceRouting& routing) {
  const std::size_t num_tokens = args.expert_ids.size() / static_cast<std::size_t>(args.top_k);
  routing.term_offsets.resize(num_tokens + 1);
  for (std::size_t token = 0; token <= num_tokens; ++token) {
    routing.term_offsets[token] = static_cast<std::int32_t>(token) * args.top_k;
  }
  routing.term_indices.assign(slot_of_pair.begin(), slot_of_pair.end());
  routing.term_weights.assign(args.weights.begin(), args.weights.end());
}

}  // namespace

void route_tokens(const RoutingArgs& args, SourceRouting& routing) {
  check(args.top_k > 0 && args.expert_ids.size() % static_cast<std::size_t>(args.top_k) == 0 &&
            args.weights.size() == args.expert_ids.size(),
        "expert ids and weights are [num_tokens, top_k]");
  const std::vector<std::int32_t> rank_of_pair = assign_ranks(args);
  count_rows_and_pairs(rank_of_pair, args.top_k, args.num_ranks, routing);
  std::vector<std::int32_t> row_of_pair;
  std::vector<std::int32_t> slot_of_pair;
  fill_rows(args, rank_of_pair, routing, row_of_pair, slot_of_pair);
  if (args.return_mode == ReturnMode::kPerRow) {
    fill_terms_per_row(args, routing);
  } else {
    fill_terms_per_pair(args, slot_of_pair, routing);
  }
}

namespace {

/// The used entries of one row: those before the first unused one.
std::span<const RowEntry> used_entries(std::span<const RowEntry> header) {
  std::size_t count = 0;
  while (count < header.size() && header[count].expert >= 0) ++count;
  return header.first(count);
}

}  // namespace

void group_received_rows(std::span<const std::byte> rows, const RowLayout& layout,
                         std::span<const std::int32_t> local_index, int num_local_experts,
                         ReceivedRouting& routing) {
  const std::size_t num_rows = rows.size() / layout.row_bytes();
  const std::size_t top_k = static_cast<std::size_t>(layout.top_k());
  std::vector<RowEntry> headers(num_rows * top_k);
  for (std::size_t row = 0; row < num_rows && top_k > 0; ++row) {
    std::memcpy(&headers[row * top_k], rows.data() + row * layout.row_bytes() + layout.header_offset(),
                top_k * sizeof(RowEntry));
  }
  const auto header = [&](std::size_t row) {
    return used_entries(std::span<const RowEntry>(headers).subspan(row * top_k, top_k));
  };

  routing.expert_offsets.assign(static_cast<std::size_t>(num_local_experts) + 1, 0);
  routing.term_offsets.assign(num_rows + 1, 0);
  for (std::size_t row = 0; row < num_rows; ++row) {
    for (const RowEntry& entry : header(row)) {
      const bool is_here =
          static_cast<std::size_t>(entry.expert) < local_index.size() && local_index[entry.expert] >= 0;
      check(is_here, "received row " + std::to_string(row) + " names expert " + std::to_string(entry.expert) +
                         ", which does not live on this rank");
      ++routing.expert_offsets[local_index[entry.expert] + 1];
    }
    routing.term_offsets[row + 1] = routing.term_offsets[row] + static_cast<std::int32_t>(header(row).size());
  }
  std::partial_sum(routing.expert_offsets.begin(), routing.expert_offsets.end(),
                   routing.expert_offsets.begin());

  const std::size_t num_pairs = static_cast<std::size_t>(routing.term_offsets[num_rows]);
  routing.row_indices.resize(num_pairs);
  routing.term_indices.resize(num_pairs);
  routing.term_weights.resize(num_pairs);
  std::vector<std::int32_t> next(routing.expert_offsets.begin(), routing.expert_offsets.end() - 1);
  std::size_t pair = 0;
  for (std::size_t row = 0; row < num_rows; ++row) {
    for (const RowEntry& entry : header(row)) {
      const std::int32_t position = next[local_index[entry.expert]]++;
      routing.row_indices[position] = static_cast<std::int32_t>(row);
      routing.term_indices[pair] = position;
      routing.term_weights[pair++] = entry.weight;
    }
  }
}

}  // namespace aurora
