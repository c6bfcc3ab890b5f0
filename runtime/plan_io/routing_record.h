// Recorded routing as a file: the expert ids of every token in every MoE layer, written by aurora-serve,
// replayed by it, and imported as traffic by aurora-plan.
//
// The format is that of the published DeepSeek-V2-Lite routing data: a JSON description and, beside it, the
// ids as [layer][token][k] in uint8 or uint16, little-endian (launch/formats.md). What replays and what
// collects such records stands in runtime/executor/routing_replay.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace aurora {

/// A routing record in memory.
struct RoutingRecord {
  std::string model;
  std::int64_t num_layers = 0;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  std::int64_t num_tokens = 0;
  std::vector<std::int64_t> request_token_counts;  // sums to num_tokens; empty: one request
  std::vector<std::uint16_t> expert_ids;           // [num_layers, num_tokens, top_k]

  /// The experts of one token in one layer, [top_k].
  std::span<const std::uint16_t> experts_of(std::int64_t layer, std::int64_t token) const {
    return std::span(expert_ids)
        .subspan(static_cast<std::size_t>((layer * num_tokens + token) * top_k),
                 static_cast<std::size_t>(top_k));
  }
};

/// Reads `file` (JSON) and its binary sibling. Throws Error naming file, place, value and limit: besides
/// wrong types and sizes, experts that a token has twice or that the model does not have. What it returns has
/// request_token_counts.
RoutingRecord read_routing_record(const std::filesystem::path& file);

/// The same from memory: `description` is the JSON, `data` the binary file's bytes.
RoutingRecord parse_routing_record(std::string_view description, std::string_view data,
                                   const std::string& origin);

/// Writes `file` (JSON) and its binary sibling; each appears whole or not at all.
void write_routing_record(const std::filesystem::path& file, const RoutingRecord& record);

}  // namespace aurora
