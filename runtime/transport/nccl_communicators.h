// A rank's NCCL communicators over all ranks, each with a CUDA stream of its own; and how they end.
//
// All communicators are blocking: non-blocking ones launch every group on a thread that NCCL starts for it,
// which took 3 times as long as launching from the caller's thread (4 KB between two H200s, 77 instead of 26
// us). So that no failure of another rank can hold this one, the start, which waits for all ranks, runs on a
// thread of its own beside the caller's polling, and a launch that misses its deadline is ended by a
// CallWatch, which aborts the communicators.
//
// Groups of one communicator run one after the other; two communicators are for groups that may overlap.
// Collective rule: all ranks construct with the same ids in the same order, and every message of a group
// meets its other end in some group of the same communicator, in the order of the pair's messages.
//
// Threads: one at a time.
#pragma once

#include <cuda_runtime.h>
#include <nccl.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "kernels/backend.h"
#include "runtime/transport/call_watch.h"
#include "runtime/transport/transport.h"

namespace aurora {

/// The oldest NCCL that this code is right with: the first 2.28. Aborting several communicators at once needs
/// no more than ncclCommAbort; ncclCommRevoke of 2.28.7 is not used.
inline constexpr int kOldestNccl = NCCL_VERSION(2, 28, 3);

/// Throws kUnsupported when the NCCL library found at run time is older than `kOldestNccl`.
void require_nccl_version();

class NcclCommunicators {
 public:
  /// Runs while the start is waited for; what it throws ends the wait.
  using Poll = std::function<void()>;

  struct Args {
    int rank = 0;
    int num_ranks = 1;
    int device = 0;
    std::span<const ncclUniqueId> ids;  // one communicator for each
  };

  /// Collective. On return all communicators are ready and all pairs are connected. Throws kTimeout when the
  /// other ranks have not come by `deadline`, kDevice for failures of NCCL and CUDA.
  NcclCommunicators(const Args& args, Deadline deadline, const Poll& poll);
  /// Ends like `abort` unless `close` or `abort` ran before.
  ~NcclCommunicators() { abort(); }
  NcclCommunicators(const NcclCommunicators&) = delete;
  NcclCommunicators& operator=(const NcclCommunicators&) = delete;

  std::size_t size() const { return lanes_->size(); }
  /// Highest priority, does not wait for the default stream. Valid for the life of this object.
  cudaStream_t stream(std::size_t index) const { return (*lanes_)[index].stream.get(); }

  /// Puts `messages` as one group on the communicator's stream. On return they are on the stream, and an
  /// event recorded there completes after them. NCCL waits for earlier groups when very many are under way;
  /// throws kTimeout when it has not launched this one by `deadline`, after an `abort`.
  void enqueue(std::size_t index, std::span<const Message> messages, Deadline deadline);

  /// Work that is submitted to the stream from now on starts after what is on the other communicators'
  /// streams.
  void join(std::size_t index);

  /// Throws kDevice when NCCL has noticed a failure, such as a lost connection to a rank.
  void check_health() const;

  /// Ends all transfers under way, whatever other ranks do, and gives the communicators up. Waits at most two
  /// seconds for the device to let go of the memory of messages.
  void abort() noexcept;
  /// Gives the communicators up when nothing is under way. Other ranks must close too; when they have not
  /// within a few seconds, aborts.
  void close() noexcept;
  /// After `abort` or `close`.
  bool is_closed() const { return is_closed_; }

 private:
  struct StreamRelease {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }  // does not wait for its work
  };
  struct EventRelease {
    void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  };
  struct Lane {
    ncclUniqueId id = {};
    ncclComm_t communicator = nullptr;
    std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamRelease> stream;
    std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, EventRelease> end;  // of what `join` waits for
  };

  using Lanes = std::vector<Lane>;
  struct Start;

  void open_lanes(std::span<const ncclUniqueId> ids);
  static void connect_all(Start& start) noexcept;
  static void greet_all_pairs(Start& start);
  void wait_for(Start& start, Deadline deadline, const Poll& poll);
  static ncclResult_t launch(const Lane& lane, std::span<const Message> messages) noexcept;
  void end_on_a_thread(void (*end)(const Lanes&), std::chrono::milliseconds longest) noexcept;
  static bool are_streams_idle(const Lanes& lanes) noexcept;

  int device_ = 0;
  std::shared_ptr<Lanes> lanes_;  // threads that NCCL does not let go of keep them
  bool is_closed_ = false;
  std::optional<CallWatch> watch_;  // last: it ends before what it aborts
};

}  // namespace aurora
