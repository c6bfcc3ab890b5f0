#include "runtime/executor/traffic_recorder.h"

#include <algorithm>

namespace aurora {

TrafficRecorder::TrafficRecorder(int num_moe_layers, int num_experts, int top_k, std::size_t max_samples)
    : top_k_(top_k), max_samples_(max_samples), layers_(static_cast<std::size_t>(num_moe_layers)) {
  std::uint64_t seed = 0x9e3779b97f4a7c15ULL;
  for (Layer& layer : layers_) {
    layer.tokens.assign(static_cast<std::size_t>(num_experts), 0);
    layer.random = seed++;
  }
}

void TrafficRecorder::record(int moe_layer, std::span<const std::int32_t> expert_ids) {
  Layer& layer = layers_[moe_layer];
  const auto top_k = static_cast<std::size_t>(top_k_);
  for (std::size_t first = 0; first < expert_ids.size(); first += top_k) {
    const auto set = expert_ids.subspan(first, top_k);
    for (const std::int32_t expert : set) ++layer.tokens[expert];
    ++layer.num_seen;
    if (layer.num_seen <= max_samples_) {
      layer.samples.insert(layer.samples.end(), set.begin(), set.end());
      continue;
    }
    layer.random = layer.random * 6364136223846793005ULL + 1442695040888963407ULL;
    const std::uint64_t slot = (layer.random >> 33) % layer.num_seen;
    if (slot < max_samples_)
      std::ranges::copy(set, layer.samples.begin() + static_cast<std::ptrdiff_t>(slot * top_k));
  }
}

void TrafficRecorder::clear() {
  for (Layer& layer : layers_) {
    std::ranges::fill(layer.tokens, 0);
    layer.samples.clear();
    layer.num_seen = 0;
  }
}

void TrafficRecorder::serialize(ByteWriter& writer) const {
  for (const Layer& layer : layers_) {
    writer.write(layer.tokens);
    writer.write(layer.samples);
  }
}

void merge_recorded_traffic(std::vector<ByteReader>& recorded, ModelTraffic& traffic,
                            std::vector<std::vector<std::int64_t>>& expert_tokens) {
  const auto top_k = static_cast<std::size_t>(traffic.top_k);
  expert_tokens.assign(traffic.layers.size(),
                       std::vector<std::int64_t>(static_cast<std::size_t>(traffic.num_experts), 0));
  for (std::size_t layer = 0; layer < traffic.layers.size(); ++layer) {
    LayerTraffic& merged = traffic.layers[layer];
    merged = {};
    for (ByteReader& reader : recorded) {
      const auto tokens = reader.read_vector<std::int64_t>();
      const auto samples = reader.read_vector<std::int32_t>();
      merged.dispatch.emplace_back(tokens.begin(), tokens.end());
      std::vector<std::vector<ExpertId>>& sets = merged.samples.emplace_back();
      for (std::size_t first = 0; first < samples.size(); first += top_k) {
        std::vector<ExpertId>& set = sets.emplace_back();
        for (std::size_t k = 0; k < top_k; ++k) set.push_back(ExpertId{samples[first + k]});
      }
      for (std::size_t expert = 0; expert < tokens.size(); ++expert)
        expert_tokens[layer][expert] += tokens[expert];
    }
  }
}

}  // namespace aurora
