// Recorded routing: the expert ids of every token in every MoE layer, to be written to a file or replayed
// from one.
//
// The format is that of the published DeepSeek-V2-Lite routing data: a JSON description and, beside it, the
// ids as [layer][token][k] in uint8 or uint16 (launch/formats.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/executor/request_batcher.h"
#include "runtime/serialization.h"

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
};

/// Throws Error naming file, key, value and limit.
RoutingRecord read_routing_record(const std::filesystem::path& file);
/// Writes `file` (JSON) and its binary sibling; each appears whole or not at all.
void write_routing_record(const std::filesystem::path& file, const RoutingRecord& record);

/// Feeds a model's gate from a record. The r-th request of the model at position p takes token p mod n of the
/// record's request r mod R, where n is that request's length: independent of ranks, batches and preemption.
class RoutingReplay {
 public:
  /// Throws kInvalidArgument when experts or top-k differ, or the record has fewer layers than the model.
  RoutingReplay(RoutingRecord record, std::string_view model, std::int64_t num_moe_layers,
                std::int64_t num_experts, std::int64_t top_k);

  /// [origins.size(), top_k]
  void expert_ids(int moe_layer, std::span<const TokenOrigin> origins, std::vector<std::int32_t>& ids) const;

 private:
  RoutingRecord record_;
  std::vector<std::int64_t> first_token_;  // [num_requests + 1]
};

/// Collects what the gate chose on this rank.
class RoutingCollector {
 public:
  RoutingCollector(int num_moe_layers, int top_k) : num_layers_(num_moe_layers), top_k_(top_k) {}

  void record(int moe_layer, std::span<const TokenOrigin> origins, std::span<const std::int32_t> expert_ids);
  void serialize(ByteWriter& writer) const;

 private:
  int num_layers_;
  int top_k_;
  // By request ordinal, [moe layer] -> [position, top_k].
  std::map<std::uint64_t, std::vector<std::vector<std::uint16_t>>> requests_;
};

/// Joins what all ranks collected: requests in the order of their ordinals. `record` has its sizes but
/// num_tokens filled in.
void merge_collected_routing(std::vector<ByteReader>& collected, RoutingRecord& record);

}  // namespace aurora
