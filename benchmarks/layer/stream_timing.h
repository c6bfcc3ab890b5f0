// How long submitted work takes on the device, from timed events around it.
//
// What is timed is a list of submissions, run one after the other: the same work on memory of its own each,
// so that none finds its data in a cache. A sample is the mean over whole passes of the list, as many as take
// a millisecond, recorded in one graph where that is wanted and can be, so that neither events
// nor the host's calls count.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "benchmarks/sampling.h"
#include "kernels/backend.h"

namespace aurora::bench {

using Submission = std::function<void()>;

struct TimingOptions {
  double seconds = 0.25;  // samples are taken for this long, at least five
  bool graphs = false;    // record the work where the backend can
  double timeout_seconds = 60;
};

struct Timing {
  Quantiles us;           // of one submission
  bool is_graph = false;  // whether what ran was recorded
};

class StreamTimer {
 public:
  /// Both outlive it.
  StreamTimer(Backend& backend, Stream& stream, const TimingOptions& options);

  /// `submissions` submit to the stream. They run at least twice before the first sample. Throws kTimeout,
  /// and what the work throws.
  Timing time(const std::vector<Submission>& submissions);
  /// Why the last work that should have been recorded was not; empty when it was.
  const std::string& why_no_graph() const { return why_no_graph_; }
  /// Waits for everything submitted so far.
  void synchronize();

 private:
  Deadline deadline() const;
  double run_us(const Submission& work);

  Backend* backend_;
  Stream* stream_;
  TimingOptions options_;
  std::unique_ptr<Event> start_, end_;
  std::string why_no_graph_;
};

}  // namespace aurora::bench
