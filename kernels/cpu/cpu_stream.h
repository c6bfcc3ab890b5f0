// Streams and events of the CPU backend.
//
// A stream numbers what is submitted to it; an event remembers a stream and a number (a ticket) and is
// complete when the stream has done that much. Recording an event again moves it; who waited for the earlier
// ticket still waits for that one, as with CUDA. Since a wait refers to a ticket that exists already, streams
// cannot wait for each other in a circle.
//
// When work throws, its stream has failed for good: the work behind it is skipped, and the error comes out of
// every event recorded after it, every `synchronize`, and every stream that waits for such an event. Inline
// streams throw out of the submitting call instead and go on.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/backend.h"

namespace aurora::cpu {

/// How far a worker stream has come. Shared with events, which may outlive the stream.
class StreamProgress {
 public:
  /// Throws the stream's error when it struck at or before `ticket`.
  bool is_complete(std::uint64_t ticket);
  void wait(std::uint64_t ticket, Deadline deadline);
  /// Without a deadline: for one stream waiting for another, which finishes because its work does.
  void wait(std::uint64_t ticket);

  /// The worker's side: one more piece of work is done. `error` is null when it went well.
  void advance(std::exception_ptr error);
  bool has_failed() const;

 private:
  void rethrow_if_failed(std::uint64_t ticket);

  static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
  std::mutex mutex_;
  std::condition_variable advanced_;
  std::atomic<std::uint64_t> completed_{0};
  std::atomic<std::uint64_t> failed_ticket_{kNever};
  std::exception_ptr error_;  // guarded by mutex_
};

/// One point in one worker stream.
struct Milestone {
  std::shared_ptr<StreamProgress> progress;
  std::uint64_t ticket = 0;
};

class CpuEvent : public Event {
 public:
  bool is_complete() override;
  void wait(Deadline deadline) override;

  void set(std::vector<Milestone> milestones);
  std::vector<Milestone> milestones() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Milestone> milestones_;  // guarded by mutex_; complete when all are, so empty is complete
};

/// Recording it submits one more piece of work, which reads the clock. On an inline stream this waits for
/// what the stream waits for.
class TimedCpuEvent final : public CpuEvent {
 public:
  using Clock = std::chrono::steady_clock;

  /// What the next recording writes; earlier recordings keep theirs.
  std::shared_ptr<Clock::time_point> start_recording() {
    return time_ = std::make_shared<Clock::time_point>();
  }
  Clock::time_point time() const { return *time_; }
  bool is_recorded() const { return time_ != nullptr; }

 private:
  std::shared_ptr<Clock::time_point> time_;
};

/// Throws kInternal unless `event` is timed, recorded and complete.
TimedCpuEvent::Clock::time_point completion_time(Event& event);

class CpuStream final : public Stream {
 public:
  enum class Kind : std::uint8_t { kInline, kWorker };

  explicit CpuStream(Kind kind);
  /// Waits for the work that was submitted; errors that nobody asked for are dropped.
  ~CpuStream() override;

  void record(Event& event) override;
  void wait(Event& event) override;
  void synchronize(Deadline deadline) override;

  bool is_inline() const { return kind_ == Kind::kInline; }
  /// Whether submitted work is done when `submit` returns, so that it may refer to the caller's memory.
  bool runs_at_once() const { return is_inline() && recording_ == nullptr; }

  /// What `submit` submits here, which does not run.
  std::vector<std::function<void()>> record_work(const std::function<void()>& submit);

  /// Runs `work` now (inline) or after what was submitted before (worker); it is then copied.
  template <typename Work>
  void submit(const Work& work) {
    if (recording_ != nullptr) return recording_->push_back(work);
    if (!is_inline()) return enqueue(work);
    if (!awaited_.empty()) finish_awaited();
    work();
  }

 private:
  void enqueue(std::function<void()> work);
  void finish_awaited();
  void serve();
  std::vector<Milestone> position() const;

  void check_not_recording() const {
    check(recording_ == nullptr, "events and waits cannot be recorded in a graph");
  }

  const Kind kind_;
  std::vector<std::function<void()>>* recording_ = nullptr;
  // Inline: what the next work has to wait for.
  std::vector<Milestone> awaited_;
  // Worker: the queue and the thread that empties it.
  std::shared_ptr<StreamProgress> progress_;
  std::uint64_t num_submitted_ = 0;
  std::mutex mutex_;
  std::condition_variable submitted_;
  std::deque<std::function<void()>> queue_;  // guarded by mutex_
  bool is_closing_ = false;                  // guarded by mutex_
  std::thread worker_;
};

}  // namespace aurora::cpu
