#include "runtime/plan_io/json_fields.h"

#include <set>
#include <string>
#include <vector>

namespace aurora {

nlohmann::json parse_json_text(std::string_view text, const std::string& origin) {
  // A key given twice would silently lose its first value.
  std::vector<std::set<std::string>> keys_of_open_objects;
  const auto refuse_repeated_keys = [&](int, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    if (event == nlohmann::json::parse_event_t::object_start) keys_of_open_objects.emplace_back();
    if (event == nlohmann::json::parse_event_t::object_end) keys_of_open_objects.pop_back();
    if (event == nlohmann::json::parse_event_t::key &&
        !keys_of_open_objects.back().insert(value.get<std::string>()).second) {
      throw Error(ErrorKind::kFormat,
                  origin + ": key \"" + value.get<std::string>().substr(0, 64) + "\" is given twice");
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, refuse_repeated_keys);
  } catch (const nlohmann::json::exception& error) {
    // Without the library's own "[json.exception.parse_error.101]".
    std::string cause = error.what();
    const std::size_t name_end = cause.find("] ");
    if (name_end != std::string::npos) cause.erase(0, name_end + 2);
    throw Error(ErrorKind::kFormat, origin + ": not valid JSON: " + cause);
  }
}

}  // namespace aurora
