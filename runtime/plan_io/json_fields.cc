#include "runtime/plan_io/json_fields.h"

#include <fstream>
#include <sstream>

namespace aurora {

nlohmann::json parse_json_text(std::string_view text, const std::string& origin) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kFormat, origin + ": not valid JSON: " + error.what());
  }
}

std::string read_whole_file(const std::filesystem::path& file) {
  constexpr std::uintmax_t kLargest = std::uintmax_t{1} << 30;
  std::ifstream input(file, std::ios::binary);
  if (!input) throw Error(ErrorKind::kNotFound, file.string() + ": cannot be opened");
  std::error_code unknown_size;
  const std::uintmax_t size = std::filesystem::file_size(file, unknown_size);
  if (!unknown_size && size > kLargest) {
    throw Error(ErrorKind::kFormat, file.string() + ": has " + std::to_string(size) + " bytes; at most " +
                                        std::to_string(kLargest) + " are read");
  }
  std::ostringstream text;
  text << input.rdbuf();
  if (input.bad()) throw Error(ErrorKind::kIo, file.string() + ": reading failed");
  return std::move(text).str();
}

}  // namespace aurora
