#include "runtime/model/strict_json.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <vector>

#include "kernels/error.h"

namespace aurora {
namespace {

// Deeper than any file of a checkpoint (config.json of the supported models: 3), shallow enough for any
// stack.
constexpr int kMaxDepth = 32;

constexpr std::size_t kMaxQuotedBytes = 96;

// Watches one parse: which keys each open object has had, and how deep it is.
class DuplicateKeyWatch {
 public:
  explicit DuplicateKeyWatch(const std::string& origin) : origin_(origin) {}

  bool operator()(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kMaxDepth) {
      throw Error(ErrorKind::kFormat,
                  origin_ + ": JSON nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    if (event == Event::object_start) keys_of_open_objects_.emplace_back();
    if (event == Event::object_end) keys_of_open_objects_.pop_back();
    if (event == Event::key && !keys_of_open_objects_.back().insert(parsed.get<std::string>()).second) {
      throw Error(ErrorKind::kFormat, origin_ + ": key " + quote_for_message(parsed.get<std::string>()) +
                                          " is given twice in one object");
    }
    return true;
  }

 private:
  const std::string& origin_;
  std::vector<std::set<std::string>> keys_of_open_objects_;
};

std::string escape(std::string_view text) {
  std::string escaped;
  for (const char character : text) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte >= 0x20 && byte < 0x7f) {
      escaped += character;
    } else {
      std::array<char, 5> hex{};
      std::snprintf(hex.data(), hex.size(), "\\x%02x", static_cast<unsigned>(byte));
      escaped += hex.data();
    }
  }
  return escaped;
}

}  // namespace

std::string quote_for_message(std::string_view text) {
  const bool is_cut = text.size() > kMaxQuotedBytes;
  return '"' + escape(text.substr(0, kMaxQuotedBytes)) + (is_cut ? "...\"" : "\"");
}

std::string describe_json(const nlohmann::json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array of " + std::to_string(value.size());
  if (value.is_string()) return quote_for_message(value.get_ref<const std::string&>());
  return value.dump();
}

nlohmann::json parse_strict_json(std::string_view text, const std::string& origin) {
  DuplicateKeyWatch watch(origin);
  try {
    return nlohmann::json::parse(
        text.begin(), text.end(),
        [&watch](int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
          return watch(depth, event, parsed);
        });
  } catch (const nlohmann::json::parse_error& failure) {
    throw Error(ErrorKind::kFormat, origin + ": malformed JSON at byte " + std::to_string(failure.byte) +
                                        " of " + std::to_string(text.size()) + ": " +
                                        escape(std::string_view(failure.what()).substr(0, 200)));
  } catch (const nlohmann::json::exception& failure) {  // a number beyond double, for one
    throw Error(ErrorKind::kFormat, origin + ": JSON that cannot be read: " +
                                        escape(std::string_view(failure.what()).substr(0, 200)));
  }
}

std::string read_text_file(const std::filesystem::path& file, std::size_t limit_bytes) {
  std::error_code failure;
  const auto status = std::filesystem::status(file, failure);
  if (status.type() == std::filesystem::file_type::not_found) {
    throw Error(ErrorKind::kNotFound, file.string() + ": no such file");
  }
  if (failure || !std::filesystem::is_regular_file(status)) {
    throw Error(ErrorKind::kIo, file.string() + ": not a readable file" +
                                    (failure ? ": " + failure.message() : std::string()));
  }
  const std::uintmax_t size = std::filesystem::file_size(file, failure);
  if (!failure && size > limit_bytes) {
    throw Error(ErrorKind::kFormat, file.string() + ": " + std::to_string(size) +
                                        " bytes, more than the limit of " + std::to_string(limit_bytes) +
                                        " for such a file");
  }
  std::ifstream stream(file, std::ios::binary);
  std::string text(failure ? 0 : static_cast<std::size_t>(size), '\0');
  if (failure || !stream || !stream.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    throw Error(ErrorKind::kIo, file.string() + ": cannot be read: " + std::strerror(errno));
  }
  return text;
}

}  // namespace aurora
