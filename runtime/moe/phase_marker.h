// Tells apart by phase and layer what a model submits: for profilers (Backend::open_range), and for traces,
// which want to know when the device did it.
//
// Timed, a stretch has an event before its work and one behind it on the model's stream. The first completes
// when the work before it is done and the stretch is submitted, so a span holds no wait for the host before
// it. Times are relative to an event that `start_clock` waits for, once a step: the device's clock has no
// other tie to the host's, and differences are exact only while they are short.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "runtime/moe/phase.h"

namespace aurora {

/// For phases that belong to no layer: the head.
inline constexpr std::int32_t kNoLayer = -1;

/// When the device worked on something, in seconds after `start_clock`.
struct DeviceSpan {
  Phase phase = Phase::kAttention;
  std::int32_t layer = kNoLayer;
  double start_seconds = 0;
  double end_seconds = 0;
  std::int64_t sent_bytes = 0;  // by this rank; 0 for compute
};

class PhaseMarker {
 public:
  /// What is submitted while it lives belongs to its phase.
  class Stretch {
   public:
    /// `end` is recorded when the stretch ends; null: it is not timed.
    Stretch(PhaseMarker& marker, Event* end) : marker_(&marker), end_(end) {}
    Stretch(const Stretch&) = delete;
    Stretch& operator=(const Stretch&) = delete;
    ~Stretch() { marker_->end_stretch(end_); }

   private:
    PhaseMarker* marker_;
    Event* end_;
  };

  /// Backend and stream outlive the marker.
  PhaseMarker(Backend& backend, Stream& stream, std::size_t model_index);

  /// What is marked from now on belongs to `layer`, or to none.
  void enter_layer(std::int32_t layer) { layer_ = layer; }
  std::int32_t layer() const { return layer_; }
  [[nodiscard]] Stretch mark(Phase phase);

  /// From now on stretches of computing phases are timed. Call between steps, when the stream has nothing to
  /// do; waits for one event.
  void start_clock(Deadline deadline);
  bool is_timed() const { return clock_ != nullptr; }
  Event& clock() { return *clock_; }
  /// Of all stretches since `start_clock`. Call when the stream has done them.
  std::vector<DeviceSpan> spans() const;

 private:
  /// Two events and what is between them.
  struct TimedStretch {
    std::unique_ptr<Event> start, end;
    Phase phase = Phase::kAttention;
    std::int32_t layer = kNoLayer;
  };

  Event* begin_stretch(Phase phase);
  void end_stretch(Event* end) noexcept;

  Backend* backend_;
  Stream* stream_;
  std::size_t model_index_;
  std::int32_t layer_ = kNoLayer;
  std::unique_ptr<Event> clock_;         // timed; null until the clock is started
  std::vector<TimedStretch> stretches_;  // of the longest step so far: events are used again
  std::size_t num_stretches_ = 0;        // of this step
};

}  // namespace aurora
