#include "runtime/plan_io/text_file.h"

#include <fstream>
#include <sstream>

#include "kernels/error.h"

namespace aurora {

std::string read_whole_file(const std::filesystem::path& file, std::uintmax_t largest) {
  if (file.empty()) throw Error(ErrorKind::kNotFound, "the name of a file to read is empty");
  std::error_code unknown_kind;
  if (std::filesystem::is_directory(file, unknown_kind)) {
    throw Error(ErrorKind::kIo, file.string() + ": is a folder, not a file");
  }
  std::ifstream input(file, std::ios::binary);
  if (!input) throw Error(ErrorKind::kNotFound, file.string() + ": cannot be opened");
  std::error_code unknown_size;
  const std::uintmax_t size = std::filesystem::file_size(file, unknown_size);
  if (!unknown_size && size > largest) {
    throw Error(ErrorKind::kFormat, file.string() + ": has " + std::to_string(size) + " bytes; at most " +
                                        std::to_string(largest) + " are read");
  }
  std::ostringstream text;
  text << input.rdbuf();
  if (input.bad()) throw Error(ErrorKind::kIo, file.string() + ": reading failed");
  return std::move(text).str();
}

}  // namespace aurora
