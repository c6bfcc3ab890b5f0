// A deadline for calls into a library that block and know none: a thread of its own looks every tenth of a
// second whether the call has overstayed, and then ends it.
//
// `enter` and `leave` cost a lock that nobody else holds, some 20 ns each.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "kernels/backend.h"

namespace aurora {

class CallWatch {
 public:
  /// `end_call` runs on the watch's thread, at most once, when a call is not over by its deadline; the call
  /// is to return then. Of one that is still not over `grace` later kTimeout is thrown on the watch's thread,
  /// where nobody catches it, which ends the process: nothing else could give the caller its thread back.
  explicit CallWatch(std::function<void()> end_call,
                     std::chrono::milliseconds grace = std::chrono::seconds(10));
  ~CallWatch();
  CallWatch(const CallWatch&) = delete;
  CallWatch& operator=(const CallWatch&) = delete;

  /// A call begins. Calls do not nest.
  void enter(Deadline deadline);
  /// The call is over. False when `end_call` ran because of it, which has returned by now.
  [[nodiscard]] bool leave();

 private:
  void watch();
  void end_overdue(std::unique_lock<std::mutex>& lock);

  const std::function<void()> end_call_;
  const std::chrono::milliseconds grace_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Deadline> deadline_;  // of the call under way
  bool is_ending_ = false;            // `end_call` has begun
  bool has_ended_ = false;            // and returned
  bool is_over_ = false;              // no more calls
  std::thread thread_;                // after what it uses
};

}  // namespace aurora
