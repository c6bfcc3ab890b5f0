// Reading the JSON files of a checkpoint (config.json, the index of a sharded checkpoint, the header of a
// safetensors file) strictly: one error type, no duplicate keys, bounded nesting, and messages that stay
// short and printable whatever the file holds. Not for JSON that users write (launch/ and plan_io have their
// own messages).
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace aurora {

/// Parses `text`, the contents of `origin` (a file name, used in messages). Throws Error(kFormat) naming
/// origin and byte for malformed JSON, text that is not UTF-8, a key given twice in one object, or nesting
/// deeper than 32.
nlohmann::json parse_strict_json(std::string_view text, const std::string& origin);

/// The whole of `file`. Throws Error kNotFound or kIo, and kFormat when it is longer than `limit_bytes`.
std::string read_text_file(const std::filesystem::path& file, std::size_t limit_bytes);

/// `text` in double quotes for a message: control and non-ASCII bytes escaped, cut after 96 bytes.
std::string quote_for_message(std::string_view text);

/// A JSON value for a message: its text, cut short; containers only as "an object" or "an array".
std::string describe_json(const nlohmann::json& value);

}  // namespace aurora
