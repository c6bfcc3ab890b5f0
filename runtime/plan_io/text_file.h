// A whole text file at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace aurora {

/// The contents of `file`. Throws Error naming the file: kNotFound, kIo, and kFormat when it has more than
/// `largest` bytes (1 GiB).
std::string read_whole_file(const std::filesystem::path& file,
                            std::uintmax_t largest = std::uintmax_t{1} << 30);

}  // namespace aurora
