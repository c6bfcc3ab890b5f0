// How far a run is, for whoever watches: a bar that redraws itself on a terminal, a log line now and then
// elsewhere.
#pragma once

#include <chrono>
#include <string>

#include "launch/batch_io.h"

namespace aurora {

class ProgressDisplay {
 public:
  /// On a terminal the bar goes to standard error; elsewhere lines are logged.
  explicit ProgressDisplay(bool is_terminal);
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  /// Shows `progress` when it is time to; cheap otherwise.
  void update(const BatchProgress& progress);
  /// Takes the bar away.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  bool is_terminal_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point next_;
  bool is_drawn_ = false;
};

/// "12 of 40 prompts, 345 tokens, 120.3 tokens/s, 1 failed"
std::string progress_text(const BatchProgress& progress, double seconds);

/// "[#####.....]" with `width` places; an unknown total gives nothing.
std::string progress_bar(const BatchProgress& progress, int width);

}  // namespace aurora
