// Moves bytes between ranks: posts messages, makes progress, tests for completion, aborts. Knows nothing of
// experts.
//
// A `Message` is one send or one receive; sends and receives match by (source, destination, tag) in the order
// of posting, and both ends must name the same number of bytes. Messages posted together form one concurrent
// batch (on NCCL one group). Nothing here blocks: `post` returns a ticket, `test` asks whether the batch is
// done, and the blocking conveniences (wait.h) loop over `test` up to a deadline. Zero-byte messages must not
// be posted: both ends skip them.
//
// When a rank fails it calls `abort`; every other rank's next `progress` or `test` throws Error(kAborted)
// with the failing rank and its reason, and so do further calls of the failing rank. When several abort, one
// prevails, the first or the lowest, and `progress` comes to name it on all of them. After that the transport
// can only be destroyed.
//
// Two kinds of transport: most move bytes themselves while the host calls them, and every message lies where
// the host can read it. On a *stream-ordered* transport (NCCL) the device moves what lies in its own memory:
// `post_on_device` enqueues a batch between two events, and neither its start nor its end needs the host.
// There batches of device memory have no tags: all ranks post them in the same order, over all models
// (submission_order.h), and a pair's messages match in that order. `post` is for host memory on every
// transport; `test`, `abort` and the rest of this page hold for both.
//
// Memory of a message belongs to the transport until its ticket tests true, or until this rank's `abort` or
// destructor has returned or one of its calls has thrown kAborted. A rank that fails for another reason calls
// `abort` before the memory of its messages goes.
//
// Threads: one thread per rank uses a transport at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kernels/backend.h"

namespace aurora {

enum class Direction : std::uint8_t { kSend, kReceive };

struct Message {
  Direction direction = Direction::kSend;
  int peer = 0;           // rank of the other end; never our own
  std::uint32_t tag = 0;  // below 2^20; tells apart concurrent conversations between the same two ranks
  std::byte* data =
      nullptr;  // not modified by a send; must stay alive until the ticket tests true or the job aborts
  std::size_t size_bytes = 0;  // above zero
};

/// A batch of messages under way. Cheap to copy; spent once `test` has returned true.
struct Ticket {
  std::uint64_t id = 0;  // 0: an empty batch, always complete
};

/// Where a batch stands among the device's work. Both events must outlive the batch.
struct StreamOrder {
  Event* after = nullptr;  // transfers start when it is complete; null: at once
  Event* done = nullptr;   // recorded, so that it completes with the last transfer of this batch and of all
                           // batches before it; null: not wanted
  Event* begun = nullptr;  // recorded, so that it completes when transfers may start: after `after`, and
                           // after batches that this one does not overlap; null: not wanted
};

class Transport {
 public:
  virtual ~Transport() = default;

  /// "threads", "mpi" or "nccl".
  virtual std::string_view name() const = 0;
  virtual int rank() const = 0;
  virtual int num_ranks() const = 0;

  /// Starts all of `messages`. Throws kInvalidArgument for an impossible peer, tag or size.
  virtual Ticket post(std::span<const Message> messages) = 0;
  /// Whether `post_on_device` is there.
  virtual bool is_stream_ordered() const { return false; }
  /// Enqueues all of `messages`, which lie in device memory. Every rank posts every batch, one without
  /// messages too. Batches may run side by side unless events order them. Throws as `post`, and kUnsupported
  /// on a transport that is not stream-ordered.
  virtual Ticket post_on_device(std::span<const Message> messages, const StreamOrder& order);
  /// True once every message of the batch is complete, and for a ticket spent before. Makes progress. Throws
  /// kInvalidArgument naming both ends, tag and sizes when a sender and its receiver disagree on the size
  /// (the sender may not notice), kDevice when the network fails.
  virtual bool test(Ticket ticket) = 0;
  /// Advances transfers under way; throws kAborted when another rank has aborted.
  virtual void progress() = 0;
  /// Tells all other ranks, once, that this one has failed and why. Does not wait for other ranks and does
  /// not throw; transfers under way come to rest within a tenth of a second, those between devices within two
  /// seconds.
  virtual void abort(std::string_view reason) noexcept = 0;
};

}  // namespace aurora
