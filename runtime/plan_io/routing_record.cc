#include "runtime/plan_io/routing_record.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/error.h"
#include "runtime/plan_io/json_fields.h"
#include "runtime/plan_io/text_file.h"

namespace aurora {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Bounds on what a description can make us allocate; their product in bytes is below 2^60.
constexpr std::int64_t kMaxLayers = 1 << 12;
constexpr std::int64_t kMaxExperts = 1 << 16;  // what uint16 can number
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 31;

const char* const kLayout = "[layer][token][k] row-major";

/// What the JSON says: a record without ids, and how to get at them.
struct Description {
  RoutingRecord record;
  std::size_t id_bytes = 1;
  std::string data;  // name of the binary file; empty: the description's own with another ending

  std::size_t num_ids() const {
    return static_cast<std::size_t>(record.num_layers * record.num_tokens * record.top_k);
  }
};

std::size_t read_id_bytes(const JsonPlace& dtype) {
  const std::string name = dtype.text();
  if (name == "uint8") return 1;
  if (name == "uint16") return 2;
  dtype.refuse("must be \"uint8\" or \"uint16\", not \"" + name.substr(0, 64) + "\"");
}

std::vector<std::int64_t> read_request_token_counts(const JsonPlace& list, std::int64_t num_tokens) {
  std::vector<std::int64_t> counts;
  std::int64_t sum = 0;
  for (std::size_t request = 0; request < list.size_of_list(); ++request) {
    counts.push_back(list.at(request).integer(1, num_tokens));
    sum += counts.back();
  }
  if (!counts.empty() && sum != num_tokens) {
    list.refuse("sums to " + std::to_string(sum) + ", tokens is " + std::to_string(num_tokens));
  }
  return counts;
}

Description parse_description(std::string_view text, const std::string& origin) {
  const json document = parse_json_text(text, origin);
  const JsonPlace root(document, origin + ": ");
  if (!document.is_object()) root.refuse("must be an object");
  if (root.has("version")) root.at("version").integer(1, 1);
  Description description;
  RoutingRecord& record = description.record;
  if (root.has("model")) record.model = root.at("model").text();
  record.num_layers = root.at("layers").integer(1, kMaxLayers);
  record.num_experts = root.at("experts").integer(1, kMaxExperts);
  record.top_k = root.at("topk").integer(1, record.num_experts);
  record.num_tokens = root.at("tokens").integer(1, kMaxTokens);
  description.id_bytes = read_id_bytes(root.at("dtype"));
  const JsonPlace layout = root.at("layout");
  if (layout.text() != kLayout) layout.refuse(std::string("must be \"") + kLayout + "\"");
  if (root.has("request_token_counts")) {
    record.request_token_counts =
        read_request_token_counts(root.at("request_token_counts"), record.num_tokens);
  }
  if (record.request_token_counts.empty()) record.request_token_counts = {record.num_tokens};
  if (root.has("data")) description.data = root.at("data").text();
  return description;
}

fs::path data_file_of(const fs::path& file, const std::string& named, std::size_t id_bytes) {
  if (!named.empty()) return file.parent_path() / named;
  fs::path sibling = file;
  return sibling.replace_extension(id_bytes == 1 ? ".topk.u8" : ".topk.u16");
}

void check_data_size(const Description& description, std::uintmax_t num_bytes, const std::string& origin) {
  const std::size_t expected = description.num_ids() * description.id_bytes;
  if (num_bytes == expected) return;
  throw Error(ErrorKind::kFormat, origin + ": has " + std::to_string(num_bytes) +
                                      " bytes; layers * tokens * topk of its description need " +
                                      std::to_string(expected));
}

/// Every token has top_k distinct experts that exist.
void check_ids(const RoutingRecord& record, const std::string& origin) {
  // The token, counted over all layers, that had an expert last; distinct then costs O(top_k) for a token.
  std::vector<std::int64_t> last_token(static_cast<std::size_t>(record.num_experts), -1);
  for (std::int64_t layer = 0; layer < record.num_layers; ++layer) {
    for (std::int64_t token = 0; token < record.num_tokens; ++token) {
      const std::int64_t ordinal = layer * record.num_tokens + token;
      for (const std::uint16_t expert : record.experts_of(layer, token)) {
        const bool is_known = expert < record.num_experts;
        if (is_known && last_token[expert] != ordinal) {
          last_token[expert] = ordinal;
          continue;
        }
        throw Error(ErrorKind::kFormat,
                    origin + ": layer " + std::to_string(layer) + ", token " + std::to_string(token) +
                        ": expert " + std::to_string(expert) +
                        (is_known ? " twice" : " of " + std::to_string(record.num_experts)));
      }
    }
  }
}

RoutingRecord with_ids(Description description, std::string_view data, const std::string& origin) {
  check_data_size(description, data.size(), origin);
  RoutingRecord record = std::move(description.record);
  record.expert_ids.reserve(data.size() / description.id_bytes);
  for (std::size_t at = 0; at < data.size(); at += description.id_bytes) {
    unsigned id = static_cast<unsigned char>(data[at]);
    if (description.id_bytes == 2) id += 256U * static_cast<unsigned char>(data[at + 1]);
    record.expert_ids.push_back(static_cast<std::uint16_t>(id));
  }
  check_ids(record, origin);
  return record;
}

void write_whole(const fs::path& file, std::string_view data) {
  const fs::path temporary = file.string() + ".partial";
  std::ofstream output(temporary, std::ios::binary);
  output.write(data.data(), static_cast<std::streamsize>(data.size()));
  output.close();
  std::error_code failure;
  if (output) fs::rename(temporary, file, failure);
  if (!output || failure) throw Error(ErrorKind::kIo, file.string() + ": cannot write the routing record");
}

}  // namespace

RoutingRecord read_routing_record(const fs::path& file) {
  Description description = parse_description(read_whole_file(file), file.string());
  const fs::path data = data_file_of(file, description.data, description.id_bytes);
  std::error_code unknown_size;
  const std::uintmax_t size = fs::file_size(data, unknown_size);
  if (!unknown_size) check_data_size(description, size, data.string());
  const std::size_t expected = description.num_ids() * description.id_bytes;
  return with_ids(std::move(description), read_whole_file(data, expected), data.string());
}

RoutingRecord parse_routing_record(std::string_view description, std::string_view data,
                                   const std::string& origin) {
  return with_ids(parse_description(description, origin), data, origin);
}

void write_routing_record(const fs::path& file, const RoutingRecord& record) {
  const std::size_t id_bytes = record.num_experts <= 256 ? 1 : 2;
  const fs::path data_file = data_file_of(file, "", id_bytes);
  std::string data;
  data.reserve(record.expert_ids.size() * id_bytes);
  for (const std::uint16_t id : record.expert_ids) {
    data += static_cast<char>(id & 255U);
    if (id_bytes == 2) data += static_cast<char>(id >> 8U);
  }
  write_whole(data_file, data);
  const json description = {{"version", 1},
                            {"model", record.model},
                            {"layers", record.num_layers},
                            {"experts", record.num_experts},
                            {"topk", record.top_k},
                            {"tokens", record.num_tokens},
                            {"dtype", id_bytes == 1 ? "uint8" : "uint16"},
                            {"layout", kLayout},
                            {"request_token_counts", record.request_token_counts},
                            {"data", data_file.filename().string()}};
  write_whole(file, description.dump(1) + "\n");
}

}  // namespace aurora
