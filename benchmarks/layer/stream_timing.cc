#include "benchmarks/layer/stream_timing.h"

#include <algorithm>
#include <cmath>

#include "kernels/error.h"

namespace aurora::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kShortestSampleUs = 1000;
constexpr double kMostPasses = 64;
constexpr std::size_t kFewestSamples = 5;

Clock::duration duration_of(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

StreamTimer::StreamTimer(Backend& backend, Stream& stream, const TimingOptions& options)
    : backend_(&backend),
      stream_(&stream),
      options_(options),
      start_(backend.create_timed_event()),
      end_(backend.create_timed_event()) {}

Deadline StreamTimer::deadline() const { return Clock::now() + duration_of(options_.timeout_seconds); }

void StreamTimer::synchronize() { stream_->synchronize(deadline()); }

double StreamTimer::run_us(const Submission& work) {
  stream_->record(*start_);
  work();
  stream_->record(*end_);
  end_->wait(deadline());
  return backend_->seconds_between(*start_, *end_) * 1e6;
}

Timing StreamTimer::time(const std::vector<Submission>& submissions) {
  check(!submissions.empty(), "there is something to time");
  const Submission pass = [&] {
    for (const Submission& submit : submissions) submit();
  };
  run_us(pass);  // loads code, grows scratch
  const double passes = std::clamp(std::ceil(kShortestSampleUs / run_us(pass)), 1.0, kMostPasses);
  Submission sample = [&] {
    for (int index = 0; index < static_cast<int>(passes); ++index) pass();
  };
  Timing timing;
  std::unique_ptr<Graph> graph;
  why_no_graph_.clear();
  if (options_.graphs) {
    try {
      graph = backend_->capture(*stream_, sample);
      timing.is_graph = true;
      sample = [&] { graph->launch(*stream_); };
    } catch (const Error& error) {
      why_no_graph_ = error.what();
    }
  }
  run_us(sample);
  std::vector<double> us;
  const Clock::time_point end = Clock::now() + duration_of(options_.seconds);
  while (us.size() < kFewestSamples || Clock::now() < end) {
    us.push_back(run_us(sample) / (passes * static_cast<double>(submissions.size())));
  }
  timing.us = quantiles_of(std::move(us));
  return timing;
}

}  // namespace aurora::bench
