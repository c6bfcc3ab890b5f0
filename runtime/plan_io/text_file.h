// A whole text file at once.
#pragma once

#include <filesystem>
#include <string>

namespace aurora {

/// The contents of `file`, at most 1 GiB. Throws Error naming the file.
std::string read_whole_file(const std::filesystem::path& file);

}  // namespace aurora
