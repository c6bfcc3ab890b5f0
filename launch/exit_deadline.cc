#include "launch/exit_deadline.h"

#include <unistd.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace aurora {

struct ExitDeadline::Watch {
  std::mutex mutex;
  std::condition_variable changed;
  bool is_called_off = false;
  std::thread thread;

  void run(std::chrono::milliseconds limit, int exit_code) {
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, limit, [this] { return is_called_off; })) _exit(exit_code);
  }
};

ExitDeadline::ExitDeadline(std::chrono::milliseconds limit, int exit_code)
    : watch_(std::make_unique<Watch>()) {
  try {
    watch_->thread = std::thread([watch = watch_.get(), limit, exit_code] { watch->run(limit, exit_code); });
  } catch (const std::exception&) {
    // No thread, no limit.
  }
}

ExitDeadline::~ExitDeadline() {
  {
    const std::lock_guard lock(watch_->mutex);
    watch_->is_called_off = true;
  }
  watch_->changed.notify_one();
  if (watch_->thread.joinable()) watch_->thread.join();
}

}  // namespace aurora
