#include "runtime/executor/routing_replay.h"

#include <algorithm>
#include <string>

#include "kernels/error.h"

namespace aurora {

RoutingReplay::RoutingReplay(RoutingRecord record, std::string_view model, std::int64_t num_moe_layers,
                             std::int64_t num_experts, std::int64_t top_k)
    : record_(std::move(record)) {
  const auto require = [&](bool holds, const char* what, std::int64_t have, std::int64_t want) {
    if (holds) return;
    throw Error(ErrorKind::kInvalidArgument, "replayed routing has " + std::string(what) + " = " +
                                                 std::to_string(have) + ", model " + std::string(model) +
                                                 " needs " + std::to_string(want));
  };
  require(record_.num_layers >= num_moe_layers, "layers", record_.num_layers, num_moe_layers);
  require(record_.num_experts == num_experts, "experts", record_.num_experts, num_experts);
  require(record_.top_k == top_k, "topk", record_.top_k, top_k);
  first_token_.push_back(0);
  for (const std::int64_t count : record_.request_token_counts)
    first_token_.push_back(first_token_.back() + count);
}

void RoutingReplay::expert_ids(int moe_layer, std::span<const TokenOrigin> origins,
                               std::vector<std::int32_t>& ids) const {
  ids.clear();
  const std::size_t num_requests = first_token_.size() - 1;
  for (const TokenOrigin& origin : origins) {
    const std::size_t request = origin.request_ordinal % num_requests;
    const std::int64_t length = first_token_[request + 1] - first_token_[request];
    const std::int64_t token = first_token_[request] + origin.position % length;
    const auto first = record_.expert_ids.begin() + (moe_layer * record_.num_tokens + token) * record_.top_k;
    ids.insert(ids.end(), first, first + record_.top_k);
  }
}

void RoutingCollector::record(int moe_layer, std::span<const TokenOrigin> origins,
                              std::span<const std::int32_t> expert_ids) {
  const auto top_k = static_cast<std::size_t>(top_k_);
  for (std::size_t token = 0; token < origins.size(); ++token) {
    auto& layers = requests_[origins[token].request_ordinal];
    layers.resize(static_cast<std::size_t>(num_layers_));
    auto& ids = layers[moe_layer];
    const std::size_t first = static_cast<std::size_t>(origins[token].position) * top_k;
    ids.resize(std::max(ids.size(), first + top_k));
    for (std::size_t k = 0; k < top_k; ++k)
      ids[first + k] = static_cast<std::uint16_t>(expert_ids[token * top_k + k]);
  }
}

void RoutingCollector::serialize(ByteWriter& writer) const {
  writer.write<std::uint64_t>(requests_.size());
  for (const auto& [id, layers] : requests_) {
    writer.write(id);
    for (const auto& ids : layers) writer.write(ids);
  }
}

void merge_collected_routing(std::vector<ByteReader>& collected, RoutingRecord& record) {
  std::map<std::uint64_t, std::vector<std::vector<std::uint16_t>>> requests;
  for (ByteReader& reader : collected) {
    const auto num_requests = reader.read<std::uint64_t>();
    for (std::uint64_t i = 0; i < num_requests; ++i) {
      auto& layers = requests[reader.read<std::uint64_t>()];
      for (std::int64_t layer = 0; layer < record.num_layers; ++layer) {
        layers.push_back(reader.read_vector<std::uint16_t>());
      }
    }
  }
  record.num_tokens = 0;
  record.request_token_counts.clear();
  record.expert_ids.clear();
  for (const auto& [id, layers] : requests) {
    const auto count = static_cast<std::int64_t>(layers.empty() ? 0 : layers.front().size()) / record.top_k;
    record.request_token_counts.push_back(count);
    record.num_tokens += count;
  }
  for (std::int64_t layer = 0; layer < record.num_layers; ++layer) {
    for (const auto& [id, layers] : requests) {
      record.expert_ids.insert(record.expert_ids.end(), layers[layer].begin(), layers[layer].end());
    }
  }
}

}  // namespace aurora
