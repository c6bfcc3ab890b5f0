// Who computes on a rank's device, where several models, or two halves of one model's batch, share it.
//
// Each has a stream of its own, and two of them never compute at the same time: every stretch of compute
// waits for the one that was submitted before it. Nothing is submitted whose input is not there, so a stretch
// in line never keeps the device waiting for the wire; and only few are in line at once, so that who comes
// next is decided late, by the executor's priorities. On backends whose streams run inside the submitting
// call all this holds by itself and costs nothing.
//
// One thread uses it. Streams and backend outlive it.
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

  explicit ComputeTurns(Backend& backend);

  /// How many take part from now on. With one alone nothing is in its way. Call between turns.
  void share_among(std::size_t num_sharers) { has_sharers_ = num_sharers > 1; }
  /// Whether streams run behind the host and several share the device.
  bool is_shared() const { return is_asynchronous_ && has_sharers_; }
  /// Whether several share a host that computes inside the submitting call, and drives no exchange meanwhile.
  bool is_host_shared() const { return !is_asynchronous_ && has_sharers_; }

  /// Whether a stretch may be submitted now. Throws what the work under way threw.
  bool has_room();
  /// What is submitted to `stream` from now on starts when all earlier stretches are done.
  void begin(Stream& stream);
  /// The stretch that `begin` began has been submitted.
  void end(Stream& stream);

 private:
  const bool is_asynchronous_;
  bool has_sharers_ = false;
  // The ends of the last stretches, in a ring. An event may be recorded anew before who waits for its earlier
  // recording has gone on (kernels/backend.h).
  std::array<std::unique_ptr<Event>, kMostUnderWay> ends_;
  std::size_t next_ = 0;
  const Stream* last_stream_ = nullptr;  // whose stretch ended last; null: none has since they share
};

}  // namespace aurora
