// A limit to how long a process may take to end.
#pragma once

#include <chrono>
#include <memory>

namespace aurora {

/// While it lives longer than `limit`, the process ends with `exit_code` and without running destructors: for
/// the end of a process whose cause of failure has been told, and whose device may never let its memory go.
/// Destruction before that calls it off. Where no thread can be started, there is no limit.
class ExitDeadline {
 public:
  ExitDeadline(std::chrono::milliseconds limit, int exit_code);
  ~ExitDeadline();
  ExitDeadline(const ExitDeadline&) = delete;
  ExitDeadline& operator=(const ExitDeadline&) = delete;

 private:
  struct Watch;
  std::unique_ptr<Watch> watch_;
};

}  // namespace aurora
