#include "runtime/plan_io/traffic_file.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "runtime/plan_io/json_fields.h"
#include "scheduler/expert_load.h"

namespace aurora {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxExperts = 1 << 16;

/// The scalar members with their keys: one list for reading and writing.
template <class Traffic, class Visit>
void for_each_quantity(Traffic& traffic, Visit visit) {
  visit("dispatch_bytes_per_token", traffic.dispatch_bytes_per_token);
  visit("combine_bytes_per_token", traffic.combine_bytes_per_token);
  visit("expert_bytes", traffic.expert_bytes);
  visit("attention_us", traffic.attention_us);
  visit("gate_us", traffic.gate_us);
  visit("expert_us_per_token", traffic.expert_us_per_token);
  visit("expert_us_per_hit", traffic.expert_us_per_hit);
  visit("aggregate_us", traffic.aggregate_us);
}

std::vector<double> read_counts(const JsonPlace& row, int num_experts) {
  if (row.size_of_list() != static_cast<std::size_t>(num_experts)) {
    row.refuse("has " + std::to_string(row.size_of_list()) +
               " counts where experts = " + std::to_string(num_experts));
  }
  std::vector<double> counts;
  for (std::size_t expert = 0; expert < row.size_of_list(); ++expert)
    counts.push_back(row.at(expert).quantity());
  return counts;
}

/// A source's tokens each go to top_k experts, so that no expert can have more than 1 / top_k of the sum.
void check_counts(const JsonPlace& row, const std::vector<double>& counts, int top_k) {
  double sum = 0;
  for (const double count : counts) sum += count;
  const double tokens = sum / top_k;
  for (std::size_t expert = 0; expert < counts.size(); ++expert) {
    if (counts[expert] <= tokens * (1 + 1e-6) + 1e-9) continue;
    row.refuse("expert " + std::to_string(expert) + " got " + std::to_string(counts[expert]) +
               " tokens, but " + std::to_string(sum) + " copies with top_k = " + std::to_string(top_k) +
               " are only " + std::to_string(tokens) + " tokens: counts disagree with top_k");
  }
}

std::vector<ExpertId> read_sample(const JsonPlace& place, const ModelTraffic& traffic) {
  if (place.size_of_list() != static_cast<std::size_t>(traffic.top_k)) {
    place.refuse("has " + std::to_string(place.size_of_list()) +
                 " experts where top_k = " + std::to_string(traffic.top_k));
  }
  std::vector<ExpertId> set;
  for (std::size_t k = 0; k < place.size_of_list(); ++k) {
    const ExpertId expert{static_cast<std::int32_t>(place.at(k).integer(0, traffic.num_experts - 1))};
    if (std::ranges::find(set, expert) != set.end())
      place.refuse("names expert " + std::to_string(expert.value) + " twice");
    set.push_back(expert);
  }
  return set;
}

LayerTraffic read_layer(const JsonPlace& place, const ModelTraffic& traffic) {
  place.expect_keys({"dispatch", "samples"});
  LayerTraffic layer;
  const JsonPlace dispatch = place.at("dispatch");
  for (std::size_t source = 0; source < dispatch.size_of_list(); ++source) {
    layer.dispatch.push_back(read_counts(dispatch.at(source), traffic.num_experts));
    check_counts(dispatch.at(source), layer.dispatch.back(), traffic.top_k);
  }
  if (layer.dispatch.empty()) dispatch.refuse("names no source");
  if (!place.has("samples")) return layer;
  const JsonPlace samples = place.at("samples");
  if (samples.size_of_list() != 0 && samples.size_of_list() != layer.dispatch.size()) {
    samples.refuse("has " + std::to_string(samples.size_of_list()) + " sources where dispatch has " +
                   std::to_string(layer.dispatch.size()));
  }
  for (std::size_t source = 0; source < samples.size_of_list(); ++source) {
    auto& sets = layer.samples.emplace_back();
    const JsonPlace list = samples.at(source);
    for (std::size_t i = 0; i < list.size_of_list(); ++i) sets.push_back(read_sample(list.at(i), traffic));
  }
  return layer;
}

json layer_json(const LayerTraffic& layer) {
  json samples = json::array();
  for (const auto& sets : layer.samples) {
    json list = json::array();
    for (const auto& set : sets) {
      json ids = json::array();
      for (const ExpertId expert : set) ids.push_back(expert.value);
      list.push_back(std::move(ids));
    }
    samples.push_back(std::move(list));
  }
  return {{"dispatch", layer.dispatch}, {"samples", std::move(samples)}};
}

}  // namespace

std::string traffic_text(const ModelTraffic& traffic) {
  json document = {
      {"version", 1}, {"model", traffic.model}, {"experts", traffic.num_experts}, {"top_k", traffic.top_k}};
  for_each_quantity(traffic, [&](const char* key, double value) { document[key] = value; });
  json layers = json::array();
  for (const LayerTraffic& layer : traffic.layers) layers.push_back(layer_json(layer));
  document["layers"] = std::move(layers);
  return document.dump() + "\n";
}

ModelTraffic parse_traffic(std::string_view text, const std::string& origin) {
  const json document = parse_json_text(text, origin);
  const JsonPlace root(document, origin + ": ");
  root.expect_keys({"version", "model", "experts", "top_k", "dispatch_bytes_per_token",
                    "combine_bytes_per_token", "expert_bytes", "attention_us", "gate_us",
                    "expert_us_per_token", "expert_us_per_hit", "aggregate_us", "layers"});
  if (root.has("version")) root.at("version").integer(1, 1);
  ModelTraffic traffic;
  traffic.model = root.at("model").text();
  traffic.num_experts = static_cast<int>(root.at("experts").integer(1, kMaxExperts));
  traffic.top_k = static_cast<int>(root.at("top_k").integer(1, traffic.num_experts));
  for_each_quantity(traffic, [&](const char* key, double& value) { value = root.quantity_or(key, 0); });
  const JsonPlace layers = root.at("layers");
  for (std::size_t layer = 0; layer < layers.size_of_list(); ++layer) {
    traffic.layers.push_back(read_layer(layers.at(layer), traffic));
    if (traffic.layers.back().dispatch.size() == traffic.layers.front().dispatch.size()) continue;
    layers.at(layer).refuse("has " + std::to_string(traffic.layers.back().dispatch.size()) +
                            " sources where layer 0 has " +
                            std::to_string(traffic.layers.front().dispatch.size()));
  }
  if (traffic.layers.empty()) layers.refuse("holds no layer");
  try {
    validate(traffic);
  } catch (const std::invalid_argument& error) {
    throw Error(ErrorKind::kFormat, origin + ": " + error.what());
  }
  return traffic;
}

ModelTraffic read_traffic_file(const std::filesystem::path& file) {
  return parse_traffic(read_whole_file(file), file.string());
}

}  // namespace aurora
