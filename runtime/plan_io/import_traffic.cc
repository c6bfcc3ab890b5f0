#include "runtime/plan_io/import_traffic.h"

#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/plan_io/json_fields.h"
#include "runtime/plan_io/routing_record.h"
#include "runtime/plan_io/text_file.h"
#include "scheduler/expert_load.h"

namespace aurora {
namespace {

LayerTraffic import_layer(const RoutingRecord& record, std::int64_t layer, const ImportOptions& options) {
  const auto num_sources = static_cast<std::size_t>(options.num_sources);
  LayerTraffic traffic;
  traffic.dispatch.assign(num_sources, std::vector<double>(static_cast<std::size_t>(record.num_experts)));
  traffic.samples.resize(num_sources);
  const std::int64_t tokens_per_source = (record.num_tokens + options.num_sources - 1) / options.num_sources;
  const std::int64_t stride =
      options.max_samples == 0 ? 0
                               : (tokens_per_source - 1) / static_cast<std::int64_t>(options.max_samples) + 1;
  std::vector<std::int64_t> seen(num_sources);
  for (std::int64_t token = 0; token < record.num_tokens; ++token) {
    const auto source = static_cast<std::size_t>(token * options.num_sources / record.num_tokens);
    const std::span<const std::uint16_t> experts = record.experts_of(layer, token);
    for (const std::uint16_t expert : experts) traffic.dispatch[source][expert] += 1;
    if (stride == 0 || seen[source]++ % stride != 0) continue;
    auto& sample = traffic.samples[source].emplace_back();
    for (const std::uint16_t expert : experts) sample.push_back(ExpertId{expert});
  }
  return traffic;
}

void check_options(const ImportOptions& options) {
  constexpr int kMaxSources = 1 << 16;
  if (options.num_sources >= 1 && options.num_sources <= kMaxSources) return;
  throw Error(ErrorKind::kInvalidArgument, "number of sources is " + std::to_string(options.num_sources) +
                                               "; it lies between 1 and " + std::to_string(kMaxSources));
}

}  // namespace

ModelTraffic traffic_of(const RoutingRecord& record, const ImportOptions& options) {
  check_options(options);
  ModelTraffic traffic;
  traffic.model = record.model;
  traffic.num_experts = static_cast<int>(record.num_experts);
  traffic.top_k = static_cast<int>(record.top_k);
  for (std::int64_t layer = 0; layer < record.num_layers; ++layer) {
    traffic.layers.push_back(import_layer(record, layer, options));
  }
  return traffic;
}

ModelTraffic import_routing_record(const std::filesystem::path& file, const ImportOptions& options) {
  ModelTraffic traffic = traffic_of(read_routing_record(file), options);
  if (traffic.model.empty()) traffic.model = file.stem().string();
  return traffic;
}

ModelTraffic parse_expert_popularity(std::string_view text, int top_k, const ImportOptions& options,
                                     const std::string& origin) {
  check_options(options);
  const nlohmann::json document = parse_json_text(text, origin);
  const JsonPlace root(document, origin + ": ");
  root.expect_keys({"total_input_tokens", "expert_popularity"});
  const JsonPlace layers = root.at("expert_popularity");
  ModelTraffic traffic;
  traffic.top_k = top_k;
  if (layers.size_of_list() == 0) layers.refuse("holds no layer");
  traffic.num_experts = static_cast<int>(layers.at(std::size_t{0}).size_of_list());
  for (std::size_t layer = 0; layer < layers.size_of_list(); ++layer) {
    const JsonPlace counts = layers.at(layer);
    std::vector<double> part;
    for (std::size_t expert = 0; expert < counts.size_of_list(); ++expert) {
      part.push_back(counts.at(expert).quantity() / options.num_sources);
    }
    traffic.layers.push_back(
        {std::vector<std::vector<double>>(static_cast<std::size_t>(options.num_sources), part), {}});
  }
  try {
    validate(traffic);
  } catch (const std::invalid_argument& error) {
    throw Error(ErrorKind::kFormat, origin + ": " + error.what());
  }
  return traffic;
}

ModelTraffic import_expert_popularity(const std::filesystem::path& file, int top_k,
                                      const ImportOptions& options) {
  ModelTraffic traffic = parse_expert_popularity(read_whole_file(file), top_k, options, file.string());
  traffic.model = file.stem().string();
  return traffic;
}

}  // namespace aurora
