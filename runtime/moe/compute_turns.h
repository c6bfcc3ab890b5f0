// Who computes on a rank's device, where several models, or two halves of one model's batch, share it.
//
// All of them submit to one stream, so that two never compute at the same time. With a stream for each, and
// events between them, eight ranks that shared a GPU through MPS came to a stop for good: compute that waited
// for an event of the other stream did not start while exchanges of other ranks waited for this one. Nothing
// is submitted whose input is not there, so a stretch in line never keeps the device waiting for the wire;
// and only few are in line at once, so that who comes next is decided late, by the executor's priorities. On
// backends whose streams run inside the submitting call all this holds by itself and costs nothing.
//
// One thread uses it. Backend and stream outlive it.
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "kernels/backend.h"

namespace aurora {

class ComputeTurns {
 public:
  /// Stretches under way at once: one that runs and one that follows it without waiting for the host.
  static constexpr std::size_t kMostUnderWay = 2;

  /// `stream` is what all sharers submit to.
  ComputeTurns(Backend& backend, Stream& stream);

  /// How many take part from now on. With one alone nothing is in its way. Call between turns.
  void share_among(std::size_t num_sharers) { has_sharers_ = num_sharers > 1; }
  /// Whether streams run behind the host and several share the device.
  bool is_shared() const { return is_asynchronous_ && has_sharers_; }
  /// Whether several share a host that computes inside the submitting call, and drives no exchange meanwhile.
  bool is_host_shared() const { return !is_asynchronous_ && has_sharers_; }

  /// Whether a stretch may be submitted now. Throws what the work under way threw.
  bool has_room();
  /// A stretch has been submitted.
  void note_stretch();

 private:
  const bool is_asynchronous_;
  Stream* stream_;
  bool has_sharers_ = false;
  // The ends of the last stretches, in a ring.
  std::array<std::unique_ptr<Event>, kMostUnderWay> ends_;
  std::size_t next_ = 0;
};

}  // namespace aurora
