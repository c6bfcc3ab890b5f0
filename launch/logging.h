// Log lines on standard error: "[12:34:56.789] [info] [rank 3] text".
#pragma once

#include <string>

namespace aurora {

struct LogOptions {
  std::string level = "info";  // trace, debug, info, warning, error, off
  bool quiet = false;          // warnings and errors only
};

/// Sets the process's logger up. Call once, before the first line.
void start_logging(const LogOptions& options);

/// The rank that lines of the calling thread carry from now on.
void set_log_rank(int rank);

}  // namespace aurora
