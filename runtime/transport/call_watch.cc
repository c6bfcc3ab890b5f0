#include "runtime/transport/call_watch.h"

#include "kernels/error.h"

namespace aurora {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPeriod(100);

}  // namespace

CallWatch::CallWatch(std::function<void()> end_call, std::chrono::milliseconds grace)
    : end_call_(std::move(end_call)), grace_(grace), thread_([this] { watch(); }) {}

CallWatch::~CallWatch() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

// Nobody is woken: the thread looks by itself, so that a call costs no system call.
void CallWatch::enter(Deadline deadline) {
  const std::lock_guard lock(mutex_);
  deadline_ = deadline;
}

bool CallWatch::leave() {
  std::unique_lock lock(mutex_);
  deadline_.reset();
  if (!is_ending_) return true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return has_ended_; });
  return false;
}

void CallWatch::watch() {
  std::unique_lock lock(mutex_);
  while (!is_over_ && !is_ending_) {
    changed_.wait_for(lock, kPeriod, [this] { return is_over_; });
    if (deadline_ && Clock::now() > *deadline_) end_overdue(lock);
  }
}

void CallWatch::end_overdue(std::unique_lock<std::mutex>& lock) {
  is_ending_ = true;
  lock.unlock();
  end_call_();
  lock.lock();
  has_ended_ = true;
  changed_.notify_all();
  if (changed_.wait_for(lock, grace_, [this] { return is_over_ || !deadline_; })) return;
  throw Error(
      ErrorKind::kTimeout,
      "a call that missed its deadline did not return when it was ended; nothing can give its caller the "
      "thread back, so this process ends");
}

}  // namespace aurora
