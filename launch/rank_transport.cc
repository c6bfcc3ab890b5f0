#include "launch/rank_transport.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>

#include "kernels/error.h"
#include "launch/interrupt.h"

namespace aurora {
namespace {

using Clock = std::chrono::steady_clock;

/// Several times what an abort takes from rank to rank on machines that are not busy, so that ranks that fail
/// together line up behind the lowest. Also enough looks: one call of `progress` need not bring in all that
/// has arrived.
constexpr std::chrono::milliseconds kTurn(20);
/// Half a second at most.
constexpr int kMostTurns = 25;
/// How long a rank that has aborted looks whether a lower one did so at the same time: longer than a busy
/// machine lets a process wait between its last look and its abort.
constexpr std::chrono::milliseconds kOverlap(100);

/// How long rank `rank` listens. A rank that was stopped finds its own deadline passed when it goes on, which
/// it does when mpirun wakes it to end it (SIGCONT, then SIGTERM): so everybody listens for one turn, also
/// when interrupted. Longer turns are not for interrupted ranks, which must be gone within a second.
std::chrono::milliseconds listening_time(int rank) {
  return kTurn * (interrupting_signal() != 0 ? 1 : std::min(rank + 1, kMostTurns));
}

void stop_if_interrupted() {
  const int signal = interrupting_signal();
  if (signal == 0) return;
  throw Error(ErrorKind::kAborted, std::string("interrupted by ") + signal_name(signal));
}

}  // namespace

Ticket RankTransport::post(std::span<const Message> messages) {
  stop_if_interrupted();
  return inner_.post(messages);
}

Ticket RankTransport::post_on_device(std::span<const Message> messages, const StreamOrder& order) {
  stop_if_interrupted();
  return inner_.post_on_device(messages, order);
}

bool RankTransport::test(Ticket ticket) {
  stop_if_interrupted();
  return inner_.test(ticket);
}

void RankTransport::progress() {
  stop_if_interrupted();
  inner_.progress();
}

void RankTransport::abort(std::string_view reason) noexcept {
  if (is_aborted_) return;
  is_aborted_ = true;
  try {
    listen();
    if (earlier_abort_) return;
    inner_.abort(reason);
    settle();
  } catch (const std::exception&) {
    inner_.abort(reason);  // out of memory while failing already
  }
}

// Before this rank has aborted.
void RankTransport::listen() {
  const Clock::time_point start = Clock::now();
  // The last look comes right before the abort.
  while (!hears_abort() && Clock::now() - start < listening_time(inner_.rank())) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Any other failure is this rank's own: transfers that have failed say so at every look until they are
// aborted.
bool RankTransport::hears_abort() {
  try {
    inner_.progress();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kAborted) return false;
    earlier_abort_ = error.what();
  }
  return earlier_abort_.has_value();
}

// After it: whether another rank's abort prevails over ours. Over rank 0's none does that comes later.
void RankTransport::settle() {
  const std::string own = "rank " + std::to_string(inner_.rank()) + " failed: ";
  const Clock::time_point end = Clock::now() + kOverlap;
  do {
    try {
      inner_.progress();
    } catch (const std::exception& error) {
      if (!std::string_view(error.what()).starts_with(own)) earlier_abort_ = error.what();
    }
    if (earlier_abort_ || inner_.rank() == 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  } while (Clock::now() < end);
}

}  // namespace aurora
