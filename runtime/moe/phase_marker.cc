#include "runtime/moe/phase_marker.h"

#include <exception>

namespace aurora {

PhaseMarker::PhaseMarker(Backend& backend, Stream& stream, std::size_t model_index, ComputeTurns* turns)
    : backend_(&backend),
      stream_(&stream),
      model_index_(model_index),
      turns_(turns),
      is_asynchronous_(backend.is_asynchronous()),
      clock_(backend.create_timed_event()) {}

PhaseMarker::Stretch::Stretch(PhaseMarker& marker, Phase phase)
    : marker_(&marker), is_compute_(!is_exchange(phase) && !marker.is_recording_) {
  if (is_compute_) marker.begin_stretch(phase);
  marker.backend_->open_range({phase_name(phase).data(), marker.model_index_, marker.layer_});
}

PhaseMarker::Stretch PhaseMarker::mark(Phase phase) { return Stretch(*this, phase); }

PhaseMarker::TimedStretch& PhaseMarker::next_stretch() {
  if (num_stretches_ == stretches_.size()) {
    TimedStretch& added = stretches_.emplace_back();
    if (is_asynchronous_) {
      added.start = backend_->create_timed_event();
      added.end = backend_->create_timed_event();
    }
  }
  return stretches_[num_stretches_++];
}

void PhaseMarker::begin_stretch(Phase phase) {
  if (!times_compute()) return;
  TimedStretch& stretch = next_stretch();
  stretch.phase = phase;
  stretch.layer = layer_;
  if (is_asynchronous_) {
    stream_->record(*stretch.start);
  } else {
    stretch.host_start = HostClock::now();
  }
}

void PhaseMarker::end_stretch(bool is_compute) noexcept {
  backend_->close_range();
  if (!is_compute) return;
  try {
    if (times_compute()) {
      TimedStretch& stretch = stretches_[num_stretches_ - 1];
      if (is_asynchronous_) {
        stream_->record(*stretch.end);
      } else {
        stretch.host_end = HostClock::now();
      }
    }
    if (turns_ != nullptr) turns_->note_stretch();
  } catch (const std::exception&) {
    // The device has failed, which the next operation reports; the step will not come to its spans.
  }
}

void PhaseMarker::begin_exchange(Phase phase) {
  exchange_starts_[static_cast<std::size_t>(phase)] = HostClock::now();
}

void PhaseMarker::end_exchange(Phase phase, std::int64_t sent_bytes) {
  const auto start = exchange_starts_[static_cast<std::size_t>(phase)];
  exchanges_.push_back({.phase = phase,
                        .layer = layer_,
                        .start_seconds = seconds_since_start(start),
                        .end_seconds = seconds_since_start(HostClock::now()),
                        .sent_bytes = sent_bytes});
}

void PhaseMarker::start_clock(Deadline deadline) {
  num_stretches_ = 0;
  exchanges_.clear();
  host_clock_ = HostClock::now();
  if (!times_device_) return;
  if (clock_stream_ == nullptr) clock_stream_ = backend_->create_stream();
  clock_stream_->record(*clock_);
  clock_->wait(deadline);
  host_clock_ += (HostClock::now() - host_clock_) / 2;
}

std::vector<PhaseSpan> PhaseMarker::spans() const {
  std::vector<PhaseSpan> spans;
  for (std::size_t i = 0; i < num_stretches_; ++i) {
    const TimedStretch& stretch = stretches_[i];
    PhaseSpan span{.phase = stretch.phase, .layer = stretch.layer};
    if (is_asynchronous_) {
      span.start_seconds = backend_->seconds_between(*clock_, *stretch.start);
      span.end_seconds = backend_->seconds_between(*clock_, *stretch.end);
    } else {
      span.start_seconds = seconds_since_start(stretch.host_start);
      span.end_seconds = seconds_since_start(stretch.host_end);
    }
    spans.push_back(span);
  }
  spans.insert(spans.end(), exchanges_.begin(), exchanges_.end());
  return spans;
}

}  // namespace aurora
