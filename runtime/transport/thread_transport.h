// A transport whose ranks are threads of one process: the oracle for the others, and what runs under the
// sanitizers.
//
// Every ordered pair of ranks has a lane of its own: a lock and the ends that were posted and have not met
// yet. The end that is posted second copies the bytes inside its `post` and completes both; a send is
// therefore complete only once its receive was posted (a rendezvous), which shows schedules that would
// deadlock on a transport without buffers. `test` reads one counter and takes no lock. A size mismatch fails
// both ends: their next `test` throws kInvalidArgument naming both.
#pragma once

#include <memory>

#include "runtime/transport/transport.h"

namespace aurora {

/// What the ranks of one process share. `connect` may be called from any thread, once per rank; the
/// transports keep what they need alive, so the fabric itself may go first.
class ThreadFabric {
 public:
  /// Throws kInvalidArgument when `num_ranks` is below 1 or above 256.
  explicit ThreadFabric(int num_ranks);
  ~ThreadFabric();
  ThreadFabric(const ThreadFabric&) = delete;
  ThreadFabric& operator=(const ThreadFabric&) = delete;

  int num_ranks() const;
  /// The transport of one rank. Throws kInvalidArgument for a rank out of range or connected before.
  std::unique_ptr<Transport> connect(int rank);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace aurora
