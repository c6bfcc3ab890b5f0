#include <nlohmann/json.hpp>

#include "kernels/error.h"
#include "launch/output_file.h"
#include "launch/plan_commands.h"
#include "runtime/plan_io/import_traffic.h"
#include "runtime/plan_io/text_file.h"
#include "runtime/plan_io/traffic_file.h"

namespace aurora {
namespace {

/// Popularity counts and routing records are both JSON; the former have this key.
bool is_popularity(const std::filesystem::path& file) {
  const nlohmann::json document = nlohmann::json::parse(read_whole_file(file), nullptr, false);
  return document.is_object() && document.contains("expert_popularity");
}

}  // namespace

std::string plan_import_command(const PlanImportOptions& options) {
  const ImportOptions import{.num_sources = options.num_gpus,
                             .max_samples = static_cast<std::size_t>(options.max_samples)};
  ModelTraffic traffic = is_popularity(options.data)
                             ? import_expert_popularity(options.data, options.top_k, import)
                             : import_routing_record(options.data, import);
  if (!options.model.empty()) traffic.model = options.model;
  traffic.dispatch_bytes_per_token = options.dispatch_bytes_per_token;
  traffic.combine_bytes_per_token = options.combine_bytes_per_token;
  traffic.expert_bytes = options.expert_bytes;
  traffic.attention_us = options.attention_us;
  traffic.gate_us = options.gate_us;
  traffic.expert_us_per_token = options.expert_us_per_token;
  traffic.expert_us_per_hit = options.expert_us_per_hit;
  traffic.aggregate_us = options.aggregate_us;
  std::string text = traffic_text(traffic);
  if (options.out.empty()) return text;
  OutputFile file(options.out);
  file.write(text);
  file.commit();
  return options.out.string() + ": model " + traffic.model + ", " + std::to_string(traffic.layers.size()) +
         " layers of " + std::to_string(traffic.num_experts) + " experts, top_k " +
         std::to_string(traffic.top_k) + ", " + std::to_string(options.num_gpus) + " sources\n";
}

}  // namespace aurora
