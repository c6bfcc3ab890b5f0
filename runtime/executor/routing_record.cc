#include "runtime/executor/routing_record.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "kernels/error.h"

namespace aurora {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

[[noreturn]] void refuse(const fs::path& file, const std::string& text) {
  throw Error(ErrorKind::kFormat, file.string() + ": " + text);
}

json read_description(const fs::path& file) {
  std::ifstream input(file);
  if (!input) throw Error(ErrorKind::kNotFound, file.string() + ": cannot open the routing record");
  try {
    return json::parse(input);
  } catch (const json::exception& error) {
    refuse(file, std::string("not JSON: ") + error.what());
  }
}

/// A positive integer of at most `limit`, under `key`.
std::int64_t read_count(const fs::path& file, const json& description, const char* key, std::int64_t limit) {
  const auto found = description.find(key);
  if (found == description.end() || !found->is_number_integer()) {
    refuse(file, std::string("key \"") + key + "\" must be an integer");
  }
  const auto value = found->get<std::int64_t>();
  if (value < 1 || value > limit) {
    refuse(file,
           std::string(key) + " = " + std::to_string(value) + " is outside 1.." + std::to_string(limit));
  }
  return value;
}

/// 1 for uint8, 2 for uint16.
std::size_t read_id_bytes(const fs::path& file, const json& description) {
  const std::string dtype = description.value("dtype", "uint8");
  if (dtype == "uint8") return 1;
  if (dtype == "uint16") return 2;
  refuse(file, "dtype \"" + dtype + "\" is neither uint8 nor uint16");
}

fs::path data_file(const fs::path& file, const json& description, std::size_t id_bytes) {
  if (description.contains("data")) return file.parent_path() / description["data"].get<std::string>();
  fs::path sibling = file;
  return sibling.replace_extension(id_bytes == 1 ? ".topk.u8" : ".topk.u16");
}

std::vector<std::uint16_t> read_ids(const fs::path& file, std::size_t count, std::size_t id_bytes) {
  std::ifstream input(file, std::ios::binary);
  if (!input) throw Error(ErrorKind::kNotFound, file.string() + ": cannot open the routing record's data");
  std::error_code ignored;
  const auto size = fs::file_size(file, ignored);
  if (size != count * id_bytes) {
    refuse(file, "has " + std::to_string(size) + " bytes where layers * tokens * topk ids need " +
                     std::to_string(count * id_bytes));
  }
  std::vector<std::uint16_t> ids(count);
  if (id_bytes == 2) {
    input.read(reinterpret_cast<char*>(ids.data()), static_cast<std::streamsize>(count * 2));
  } else {
    std::vector<std::uint8_t> narrow(count);
    input.read(reinterpret_cast<char*>(narrow.data()), static_cast<std::streamsize>(count));
    std::ranges::copy(narrow, ids.begin());
  }
  if (!input) throw Error(ErrorKind::kIo, file.string() + ": reading the routing record's data failed");
  return ids;
}

void write_whole(const fs::path& file, const char* data, std::size_t size) {
  const fs::path temporary = file.string() + ".partial";
  std::ofstream output(temporary, std::ios::binary);
  output.write(data, static_cast<std::streamsize>(size));
  output.close();
  std::error_code failure;
  if (output) fs::rename(temporary, file, failure);
  if (!output || failure) throw Error(ErrorKind::kIo, file.string() + ": cannot write the routing record");
}

}  // namespace

RoutingRecord read_routing_record(const fs::path& file) {
  const json description = read_description(file);
  if (!description.is_object()) refuse(file, "must be a JSON object");
  constexpr std::int64_t kMaxTokens = std::int64_t{1} << 32;
  RoutingRecord record;
  try {
    if (description.contains("version")) read_count(file, description, "version", 1);
    record.model = description.value("model", "");
    record.num_layers = read_count(file, description, "layers", 4096);
    record.num_experts = read_count(file, description, "experts", 65536);
    record.top_k = read_count(file, description, "topk", record.num_experts);
    record.num_tokens = read_count(file, description, "tokens", kMaxTokens);
    record.request_token_counts = description.value("request_token_counts", std::vector<std::int64_t>{});
    const std::size_t id_bytes = read_id_bytes(file, description);
    const auto count = static_cast<std::size_t>(record.num_layers * record.num_tokens * record.top_k);
    record.expert_ids = read_ids(data_file(file, description, id_bytes), count, id_bytes);
  } catch (const json::exception& error) {
    refuse(file, error.what());
  }
  if (record.request_token_counts.empty()) record.request_token_counts = {record.num_tokens};
  std::int64_t total = 0;
  for (const std::int64_t count : record.request_token_counts) {
    if (count < 1)
      refuse(file, "request_token_counts holds " + std::to_string(count) + "; each must be positive");
    total += count;
  }
  if (total != record.num_tokens) {
    refuse(file, "request_token_counts sums to " + std::to_string(total) + ", tokens is " +
                     std::to_string(record.num_tokens));
  }
  for (const std::uint16_t id : record.expert_ids) {
    if (id >= record.num_experts) {
      refuse(file, "expert id " + std::to_string(id) +
                       " is not below experts = " + std::to_string(record.num_experts));
    }
  }
  return record;
}

void write_routing_record(const fs::path& file, const RoutingRecord& record) {
  const bool is_narrow = record.num_experts <= 256;
  fs::path data = file;
  data.replace_extension(is_narrow ? ".topk.u8" : ".topk.u16");
  if (is_narrow) {
    const std::vector<std::uint8_t> narrow(record.expert_ids.begin(), record.expert_ids.end());
    write_whole(data, reinterpret_cast<const char*>(narrow.data()), narrow.size());
  } else {
    write_whole(data, reinterpret_cast<const char*>(record.expert_ids.data()), record.expert_ids.size() * 2);
  }
  const json description = {{"version", 1},
                            {"model", record.model},
                            {"layers", record.num_layers},
                            {"experts", record.num_experts},
                            {"topk", record.top_k},
                            {"tokens", record.num_tokens},
                            {"dtype", is_narrow ? "uint8" : "uint16"},
                            {"layout", "[layer][token][k] row-major"},
                            {"request_token_counts", record.request_token_counts},
                            {"data", data.filename().string()}};
  const std::string text = description.dump(1) + "\n";
  write_whole(file, text.data(), text.size());
}

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
