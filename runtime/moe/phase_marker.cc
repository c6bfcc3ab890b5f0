#include "runtime/moe/phase_marker.h"

#include <exception>

namespace aurora {

PhaseMarker::PhaseMarker(Backend& backend, Stream& stream, std::size_t model_index)
    : backend_(&backend), stream_(&stream), model_index_(model_index) {}

PhaseMarker::Stretch PhaseMarker::mark(Phase phase) {
  Event* const end = clock_ == nullptr || is_exchange(phase) ? nullptr : begin_stretch(phase);
  backend_->open_range({phase_name(phase).data(), model_index_, layer_});
  return Stretch(*this, end);
}

Event* PhaseMarker::begin_stretch(Phase phase) {
  if (num_stretches_ == stretches_.size()) {
    stretches_.push_back({.start = backend_->create_timed_event(), .end = backend_->create_timed_event()});
  }
  TimedStretch& stretch = stretches_[num_stretches_++];
  stretch.phase = phase;
  stretch.layer = layer_;
  stream_->record(*stretch.start);
  return stretch.end.get();
}

void PhaseMarker::end_stretch(Event* end) noexcept {
  backend_->close_range();
  if (end == nullptr) return;
  try {
    stream_->record(*end);
  } catch (const std::exception&) {
    // The device has failed, which the next operation reports; the step will not come to its spans.
  }
}

void PhaseMarker::start_clock(Deadline deadline) {
  if (clock_ == nullptr) clock_ = backend_->create_timed_event();
  num_stretches_ = 0;
  stream_->record(*clock_);
  clock_->wait(deadline);
}

std::vector<DeviceSpan> PhaseMarker::spans() const {
  std::vector<DeviceSpan> spans;
  for (std::size_t i = 0; i < num_stretches_; ++i) {
    const TimedStretch& stretch = stretches_[i];
    spans.push_back({.phase = stretch.phase,
                     .layer = stretch.layer,
                     .start_seconds = backend_->seconds_between(*clock_, *stretch.start),
                     .end_seconds = backend_->seconds_between(*clock_, *stretch.end)});
  }
  return spans;
}

}  // namespace aurora
