#include "runtime/plan_io/json_fields.h"

namespace aurora {

nlohmann::json parse_json_text(std::string_view text, const std::string& origin) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kFormat, origin + ": not valid JSON: " + error.what());
  }
}

}  // namespace aurora
