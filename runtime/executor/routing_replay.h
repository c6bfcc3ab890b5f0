// Recorded routing at work: a gate that is driven from a record, and the collection of what gates chose into
// one. The record and its file format stand in runtime/plan_io/routing_record.h.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/executor/request_batcher.h"
#include "runtime/plan_io/routing_record.h"
#include "runtime/serialization.h"

namespace aurora {

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
