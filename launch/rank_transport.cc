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

/// Several times what an abort takes from rank to rank, so that ranks that fail together line up behind the
/// lowest.
constexpr std::chrono::milliseconds kTurn(20);
/// Ranks above this one listen no longer than it does: half a second at most.
constexpr int kMostTurns = 25;

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
  if (interrupting_signal() == 0) listen();
  if (!earlier_abort_) inner_.abort(reason);
}

void RankTransport::listen() noexcept {
  const Clock::time_point end = Clock::now() + kTurn * std::min(inner_.rank(), kMostTurns);
  try {
    // The last look comes right before the abort.
    for (inner_.progress(); Clock::now() < end; inner_.progress()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  } catch (const std::exception& error) {
    earlier_abort_ = error.what();
  }
}

}  // namespace aurora
