// Traffic matrices as text, as nccl-tests' alltoallv reads them: one row per line, row = sender, numbers of
// bytes separated by blanks. Empty lines and what follows a # are passed over. The diagonal is local and
// dropped.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "scheduler/traffic_matrix.h"

namespace aurora {

/// `origin` names the source in messages. Throws Error(kFormat) naming line, column and value: ragged rows, a
/// matrix that is not square, numbers that are negative, not whole, not numbers or too large.
TrafficMatrix parse_matrix(std::string_view text, const std::string& origin);
TrafficMatrix read_matrix_file(const std::filesystem::path& file);
std::string matrix_text(const TrafficMatrix& traffic);

}  // namespace aurora
