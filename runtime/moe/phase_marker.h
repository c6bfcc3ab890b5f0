// Tells apart by phase and layer what a model submits: for profilers (Backend::open_range), and for traces
// and reports, which want to know when it was done. Compute is marked in stretches, which also take turns
// with those of others on the device (ComputeTurns).
//
// Where streams run inside the submitting call a stretch lasts as long as its submission, by the host's
// clock. Where they run behind the host, compute is timed only on demand (`time_on_device`): a stretch then
// has an event before its work and one behind it on the stream. The first completes when the work before it
// is done, another model's too, and the stretch is submitted, so a span holds no wait. Times are relative to
// an event that `start_clock` waits for, once a step: the device's clock has no other tie to the host's, and
// differences are exact only while they are short. Exchanges that the host drives are timed by the host in
// either case.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "runtime/moe/compute_turns.h"
#include "runtime/moe/phase.h"

namespace aurora {

/// For phases that belong to no layer: the head.
inline constexpr std::int32_t kNoLayer = -1;

/// When something was computed or exchanged, in seconds after `start_clock`.
struct PhaseSpan {
  Phase phase = Phase::kAttention;
  std::int32_t layer = kNoLayer;
  double start_seconds = 0;
  double end_seconds = 0;
  std::int64_t sent_bytes = 0;  // by this rank; 0 for compute
};

class PhaseMarker {
 public:
  class Stretch;
  class Recording;

  /// Backend, stream and turns outlive the marker. `turns` may be null: nothing shares the device.
  PhaseMarker(Backend& backend, Stream& stream, std::size_t model_index, ComputeTurns* turns = nullptr);

  /// What is marked from now on belongs to `layer`, or to none.
  void enter_layer(std::int32_t layer) { layer_ = layer; }
  std::int32_t layer() const { return layer_; }
  [[nodiscard]] Stretch mark(Phase phase);

  /// Whether compute may be submitted now.
  bool may_compute() { return turns_ == nullptr || turns_->has_room(); }
  /// Whether the device has other work than this model's, so that nothing may be submitted that has to wait
  /// for the wire.
  bool is_shared() const { return turns_ != nullptr && turns_->is_shared(); }
  /// Whether the host computes for others while this model's exchanges are under way.
  bool is_host_shared() const { return turns_ != nullptr && turns_->is_host_shared(); }

  /// An exchange that the host drives, counts included. Phases do not overlap themselves.
  void begin_exchange(Phase phase);
  void end_exchange(Phase phase, std::int64_t sent_bytes);

  /// Compute of streams that run behind the host is timed from the next `start_clock` on.
  void time_on_device() { times_device_ = is_asynchronous_; }
  bool times_device() const { return times_device_; }
  /// Spans count from here. Call between steps; waits for one event on an idle stream where the device is
  /// timed.
  void start_clock(Deadline deadline);
  /// When that was: exactly where the host times everything, else to within half the time of one event's way
  /// to the device and back, some 10 us.
  std::chrono::steady_clock::time_point clock_start() const { return host_clock_; }
  /// Whether spans hold compute.
  bool times_compute() const { return !is_asynchronous_ || times_device_; }
  /// The device's clock: complete after `start_clock` where the device is timed.
  Event& clock() { return *clock_; }
  /// Since `start_clock`, compute first, then exchanges. Call when the stream has done its work.
  std::vector<PhaseSpan> spans() const;

 private:
  using HostClock = std::chrono::steady_clock;
  /// What is between two events, or between two times of the host.
  struct TimedStretch {
    std::unique_ptr<Event> start, end;
    HostClock::time_point host_start, host_end;
    Phase phase = Phase::kAttention;
    std::int32_t layer = kNoLayer;
  };

  void begin_stretch(Phase phase);
  void end_stretch(bool is_compute) noexcept;
  TimedStretch& next_stretch();
  double seconds_since_start(HostClock::time_point time) const {
    return std::chrono::duration<double>(time - host_clock_).count();
  }

  Backend* backend_;
  Stream* stream_;
  std::size_t model_index_;
  ComputeTurns* turns_;
  const bool is_asynchronous_;
  bool times_device_ = false;
  bool is_recording_ = false;  // a graph is being recorded: no events
  std::int32_t layer_ = kNoLayer;
  std::unique_ptr<Event> clock_;          // timed
  std::unique_ptr<Stream> clock_stream_;  // what others submit to `stream_` must not delay it; made on demand
  HostClock::time_point host_clock_;
  std::vector<TimedStretch> stretches_;  // of the longest step so far: events are used again
  std::size_t num_stretches_ = 0;        // of this step
  std::array<HostClock::time_point, kNumPhases> exchange_starts_;
  std::vector<PhaseSpan> exchanges_;
};

/// What is submitted while it lives belongs to its phase.
class PhaseMarker::Stretch {
 public:
  Stretch(PhaseMarker& marker, Phase phase);
  Stretch(const Stretch&) = delete;
  Stretch& operator=(const Stretch&) = delete;
  ~Stretch() { marker_->end_stretch(is_compute_); }

 private:
  PhaseMarker* marker_;
  bool is_compute_;
};

/// While it lives, stretches are recorded into a graph: they are told to profilers, and take part in nothing
/// else.
class PhaseMarker::Recording {
 public:
  explicit Recording(PhaseMarker& marker) : marker_(&marker) { marker.is_recording_ = true; }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() { marker_->is_recording_ = false; }

 private:
  PhaseMarker* marker_;
};

}  // namespace aurora
