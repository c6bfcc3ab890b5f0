#include "runtime/plan_io/import_traffic.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/plan_io/json_fields.h"
#include "runtime/plan_io/text_file.h"
#include "scheduler/expert_load.h"

namespace aurora {
namespace {

constexpr std::int64_t kMaxLayers = 1 << 12;
constexpr std::int64_t kMaxExperts = 1 << 16;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 31;

/// The description of a record, and its ids as bytes.
struct RecordFile {
  std::int64_t num_layers;
  std::int64_t num_experts;
  std::int64_t top_k;
  std::int64_t num_tokens;
  std::size_t id_bytes;
  std::string model;
  std::filesystem::path data_file;
  std::string data;

  /// Id k of a token in a layer; little-endian.
  int id(std::int64_t layer, std::int64_t token, std::int64_t k) const {
    const auto at = static_cast<std::size_t>((layer * num_tokens + token) * top_k + k) * id_bytes;
    const int low = static_cast<unsigned char>(data[at]);
    return id_bytes == 1 ? low : low + 256 * static_cast<unsigned char>(data[at + 1]);
  }
};

std::filesystem::path data_file_of(const JsonPlace& root, const std::filesystem::path& file,
                                   std::size_t id_bytes) {
  if (root.has("data")) return file.parent_path() / root.at("data").text();
  std::filesystem::path data = file;
  data.replace_extension(id_bytes == 1 ? ".topk.u8" : ".topk.u16");
  return data;
}

RecordFile open_record(const std::filesystem::path& file) {
  const nlohmann::json document = parse_json_text(read_whole_file(file), file.string());
  const JsonPlace root(document, file.string() + ": ");
  if (!document.is_object()) root.refuse("must be an object");
  RecordFile record;
  if (root.has("version")) root.at("version").integer(1, 1);
  record.num_layers = root.at("layers").integer(1, kMaxLayers);
  record.num_experts = root.at("experts").integer(1, kMaxExperts);
  record.top_k = root.at("topk").integer(1, record.num_experts);
  record.num_tokens = root.at("tokens").integer(1, kMaxTokens);
  const std::string dtype = root.at("dtype").text();
  if (dtype != "uint8" && dtype != "uint16") root.at("dtype").refuse("must be \"uint8\" or \"uint16\"");
  record.id_bytes = dtype == "uint8" ? 1 : 2;
  const std::string layout = root.at("layout").text();
  if (layout != "[layer][token][k] row-major") {
    root.at("layout").refuse("must be \"[layer][token][k] row-major\"");
  }
  record.model = root.has("model") ? root.at("model").text() : file.stem().string();
  record.data_file = data_file_of(root, file, record.id_bytes);
  record.data = read_whole_file(record.data_file);
  const auto expected =
      static_cast<std::size_t>(record.num_layers * record.num_tokens * record.top_k) * record.id_bytes;
  if (record.data.size() != expected) {
    throw Error(ErrorKind::kFormat, record.data_file.string() + ": has " +
                                        std::to_string(record.data.size()) +
                                        " bytes; layers * tokens * topk of " + file.string() + " need " +
                                        std::to_string(expected));
  }
  return record;
}

/// The expert set of one token, checked.
std::vector<ExpertId> token_experts(const RecordFile& record, std::int64_t layer, std::int64_t token) {
  std::vector<ExpertId> experts;
  for (std::int64_t k = 0; k < record.top_k; ++k) {
    const ExpertId expert{record.id(layer, token, k)};
    const bool is_repeated = std::find(experts.begin(), experts.end(), expert) != experts.end();
    if (expert.value >= record.num_experts || is_repeated) {
      throw Error(ErrorKind::kFormat,
                  record.data_file.string() + ": layer " + std::to_string(layer) + ", token " +
                      std::to_string(token) + ": expert " + std::to_string(expert.value) +
                      (is_repeated ? " twice" : " of " + std::to_string(record.num_experts)));
    }
    experts.push_back(expert);
  }
  return experts;
}

LayerTraffic import_layer(const RecordFile& record, std::int64_t layer, const ImportOptions& options) {
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
    std::vector<ExpertId> experts = token_experts(record, layer, token);
    for (const ExpertId expert : experts) traffic.dispatch[source][expert.value] += 1;
    if (stride > 0 && seen[source]++ % stride == 0) traffic.samples[source].push_back(std::move(experts));
  }
  return traffic;
}

void check_options(const ImportOptions& options) {
  if (options.num_sources >= 1) return;
  throw Error(ErrorKind::kInvalidArgument,
              "number of sources is " + std::to_string(options.num_sources) + "; at least 1 is needed");
}

}  // namespace

ModelTraffic import_routing_record(const std::filesystem::path& file, const ImportOptions& options) {
  check_options(options);
  const RecordFile record = open_record(file);
  ModelTraffic traffic;
  traffic.model = record.model;
  traffic.num_experts = static_cast<int>(record.num_experts);
  traffic.top_k = static_cast<int>(record.top_k);
  for (std::int64_t layer = 0; layer < record.num_layers; ++layer) {
    traffic.layers.push_back(import_layer(record, layer, options));
  }
  return traffic;
}

ModelTraffic import_expert_popularity(const std::filesystem::path& file, int top_k,
                                      const ImportOptions& options) {
  check_options(options);
  const nlohmann::json document = parse_json_text(read_whole_file(file), file.string());
  const JsonPlace root(document, file.string() + ": ");
  root.expect_keys({"total_input_tokens", "expert_popularity"});
  const JsonPlace layers = root.at("expert_popularity");
  ModelTraffic traffic;
  traffic.model = file.stem().string();
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
    throw Error(ErrorKind::kFormat, file.string() + ": " + error.what());
  }
  return traffic;
}

}  // namespace aurora
