#include "kernels/cpu/cpu_stream.h"

#include <string>
#include <utility>

namespace aurora::cpu {

void StreamProgress::rethrow_if_failed(std::uint64_t ticket) {
  if (failed_ticket_.load(std::memory_order_acquire) > ticket) return;
  std::exception_ptr error;
  {
    const std::lock_guard lock(mutex_);
    error = error_;
  }
  std::rethrow_exception(error);
}

bool StreamProgress::is_complete(std::uint64_t ticket) {
  if (completed_.load(std::memory_order_acquire) < ticket) return false;
  rethrow_if_failed(ticket);
  return true;
}

void StreamProgress::wait(std::uint64_t ticket, Deadline deadline) {
  if (is_complete(ticket)) return;
  {
    std::unique_lock lock(mutex_);
    const bool is_done = advanced_.wait_until(lock, deadline, [&] { return completed_.load() >= ticket; });
    if (!is_done) {
      throw Error(ErrorKind::kTimeout, "a stream did not finish its work before the deadline: " +
                                           std::to_string(completed_.load()) + " of " +
                                           std::to_string(ticket) + " operations are done");
    }
  }
  rethrow_if_failed(ticket);
}

void StreamProgress::wait(std::uint64_t ticket) {
  {
    std::unique_lock lock(mutex_);
    advanced_.wait(lock, [&] { return completed_.load() >= ticket; });
  }
  rethrow_if_failed(ticket);
}

void StreamProgress::advance(std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t ticket = completed_.load() + 1;
    if (error) {
      error_ = std::move(error);
      failed_ticket_.store(ticket, std::memory_order_release);
    }
    completed_.store(ticket, std::memory_order_release);
  }
  advanced_.notify_all();
}

bool StreamProgress::has_failed() const { return failed_ticket_.load(std::memory_order_acquire) != kNever; }

bool CpuEvent::is_complete() {
  const std::lock_guard lock(mutex_);
  for (const Milestone& milestone : milestones_) {
    if (!milestone.progress->is_complete(milestone.ticket)) return false;
  }
  return true;
}

void CpuEvent::wait(Deadline deadline) {
  for (const Milestone& milestone : milestones()) milestone.progress->wait(milestone.ticket, deadline);
}

void CpuEvent::set(std::vector<Milestone> milestones) {
  const std::lock_guard lock(mutex_);
  milestones_ = std::move(milestones);
}

std::vector<Milestone> CpuEvent::milestones() const {
  const std::lock_guard lock(mutex_);
  return milestones_;
}

namespace {

CpuEvent& cpu_event(Event& event) {
  auto* own = dynamic_cast<CpuEvent*>(&event);
  check(own != nullptr, "an event of another backend was given to a CPU stream");
  return *own;
}

}  // namespace

CpuStream::CpuStream(Kind kind) : kind_(kind) {
  if (is_inline()) return;
  progress_ = std::make_shared<StreamProgress>();
  worker_ = std::thread([this] { serve(); });
}

CpuStream::~CpuStream() {
  if (!worker_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    is_closing_ = true;
  }
  submitted_.notify_one();
  worker_.join();
}

std::vector<Milestone> CpuStream::position() const {
  if (is_inline()) return awaited_;
  return {Milestone{progress_, num_submitted_}};
}

TimedCpuEvent::Clock::time_point completion_time(Event& event) {
  auto* timed = dynamic_cast<TimedCpuEvent*>(&event);
  check(timed != nullptr && timed->is_recorded() && timed->is_complete(),
        "a time is asked of an event that is not timed, not recorded or not complete");
  return timed->time();
}

void CpuStream::record(Event& event) {
  check_not_recording();
  if (auto* timed = dynamic_cast<TimedCpuEvent*>(&event)) {
    submit([time = timed->start_recording()] { *time = TimedCpuEvent::Clock::now(); });
  }
  cpu_event(event).set(position());
}

void CpuStream::wait(Event& event) {
  check_not_recording();
  std::vector<Milestone> milestones = cpu_event(event).milestones();
  if (is_inline()) {
    awaited_.insert(awaited_.end(), milestones.begin(), milestones.end());
    return;
  }
  std::erase_if(milestones, [&](const Milestone& milestone) { return milestone.progress == progress_; });
  if (milestones.empty()) return;
  enqueue([waited = std::move(milestones)] {
    for (const Milestone& milestone : waited) milestone.progress->wait(milestone.ticket);
  });
}

void CpuStream::synchronize(Deadline deadline) {
  check_not_recording();
  for (const Milestone& milestone : position()) milestone.progress->wait(milestone.ticket, deadline);
  awaited_.clear();
}

std::vector<std::function<void()>> CpuStream::record_work(const std::function<void()>& submit) {
  check_not_recording();
  std::vector<std::function<void()>> work;
  recording_ = &work;
  try {
    submit();
  } catch (...) {
    recording_ = nullptr;
    throw;
  }
  recording_ = nullptr;
  return work;
}

void CpuStream::finish_awaited() {
  const std::vector<Milestone> awaited = std::exchange(awaited_, {});
  for (const Milestone& milestone : awaited) milestone.progress->wait(milestone.ticket);
}

void CpuStream::enqueue(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }
  ++num_submitted_;
  submitted_.notify_one();
}

void CpuStream::serve() {
  while (true) {
    std::function<void()> work;
    {
      std::unique_lock lock(mutex_);
      submitted_.wait(lock, [&] { return is_closing_ || !queue_.empty(); });
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    std::exception_ptr error;
    if (!progress_->has_failed()) {
      try {
        work();
      } catch (...) {
        error = std::current_exception();
      }
    }
    work = nullptr;  // what it captured is gone before anyone learns that it is done
    progress_->advance(std::move(error));
  }
}

}  // namespace aurora::cpu
