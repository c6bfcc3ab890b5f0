// Blocking conveniences over a Transport, each with a deadline; built from posts and tests only, so they work
// the same on every transport. For start-up and the control plane; exchanges of the serving path use tickets.
//
// Collective rule: all ranks call the same function in the same order with the same tag, and nothing else
// uses that tag meanwhile. Sizes travel first, together with the first bytes, so that small contents need one
// message per pair. A collective that misses its deadline throws kTimeout naming the ranks it waited for,
// after aborting the transport: its messages are still under way and their memory is about to go.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "runtime/transport/transport.h"

namespace aurora {

/// How a waiting thread spends its time: spins briefly, yields for `yield_time`, then sleeps in growing steps
/// of at most `longest_sleep`, so that eight ranks on two cores make progress and an idle server uses no CPU.
/// Yielding is bounded by time and not by number: on a free core a yield returns at once, and on a busy one,
/// where ranks that wait should leave the cores to ranks that compute, a single yield takes up the time.
class IdleBackoff {
 public:
  explicit IdleBackoff(std::chrono::microseconds longest_sleep = std::chrono::microseconds(50),
                       std::chrono::microseconds yield_time = std::chrono::microseconds(50))
      : longest_sleep_(longest_sleep), yield_time_(yield_time) {}
  void pause();
  void reset() { num_pauses_ = 0; }

 private:
  std::chrono::microseconds longest_sleep_;
  std::chrono::microseconds yield_time_;
  int num_pauses_ = 0;
  int num_sleeps_ = 0;
  std::chrono::steady_clock::time_point first_yield_;
};

/// Waits for a ticket. Throws kTimeout naming this rank and `what` (for example "step command from rank 0");
/// the ticket stays valid and may be waited for again. `longest_sleep` bounds the wake-up delay after a long
/// wait.
void wait(Transport& transport, Ticket ticket, Deadline deadline, std::string_view what,
          std::chrono::microseconds longest_sleep = std::chrono::microseconds(50));

/// Every rank gets every rank's bytes, indexed by rank; sizes may differ.
std::vector<std::vector<std::byte>> all_gather(Transport& transport, std::span<const std::byte> mine,
                                               std::uint32_t tag, Deadline deadline, std::string_view what);

/// `root` gets every rank's bytes, indexed by rank; the others get an empty vector.
std::vector<std::vector<std::byte>> gather(Transport& transport, int root, std::span<const std::byte> mine,
                                           std::uint32_t tag, Deadline deadline, std::string_view what);

/// Every rank gets `root`'s bytes; `mine` is read on the root only. `longest_sleep` bounds the wake-up delay
/// of a receiver that waits long (an idle server).
std::vector<std::byte> broadcast(Transport& transport, int root, std::span<const std::byte> mine,
                                 std::uint32_t tag, Deadline deadline, std::string_view what,
                                 std::chrono::microseconds longest_sleep = std::chrono::microseconds(50));

}  // namespace aurora
