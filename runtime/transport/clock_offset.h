// How far a rank's steady clock is from another's, so that traces of all ranks share one time axis.
//
// Cristian's algorithm: a rank asks the root for its time, several times in turn, and trusts the answer with
// the shortest round trip: the root read its clock somewhere within it, so the error is at most half that
// round trip. On one host all ranks read the same clock and the estimate is zero up to that error.
#pragma once

#include <chrono>
#include <cstdint>

#include "kernels/backend.h"
#include "runtime/transport/transport.h"

namespace aurora {

struct ClockOffset {
  std::chrono::nanoseconds offset{0};       // add it to our steady_clock to get the root's
  std::chrono::nanoseconds uncertainty{0};  // the true offset is within this of `offset`
};

/// Collective rule and failure as in wait.h. Zero on the root itself.
ClockOffset estimate_clock_offset(Transport& transport, int root, std::uint32_t tag, Deadline deadline);

}  // namespace aurora
