// One planned all-to-all under way. Never blocks.
//
// The message from source s to destination d is one contiguous range of s's send buffer and one of d's
// receive buffer; transfers carry consecutive pieces of it. The part that stays on this rank is not the
// exchange's business. Collective rule: all ranks start the same exchanges of one tag in the same order, with
// the same plan; on a stream-ordered transport the same order over all tags.
//
// On transports that the host drives, the host waits for the send buffer, posts, and posts again whenever
// something is done. Messages are cut into chunks, and the two sides of a rank's port work through theirs
// independently: of sends the first kMostSendsUnderWay chunks that have not ended are under way, of receives
// the first kMostReceivesUnderWay, whatever the other side is at. So neighbouring rounds overlap, and nothing
// waits for a rank that it has no traffic with. The messages of a side in one round of several are under way
// together, their chunks in turns. It cannot deadlock: of the chunks that have not ended, the first of the
// global order is posted at both of its ends.
//
// An order by the clock (pace.h) is one list of the chunks of all its transfers by their starts, and a chunk
// is not sent before its time: what a rank hands over early meets others' in buffers where nobody orders it.
//
// On a stream-ordered transport everything is posted at once, behind the work that fills the send buffer, and
// the compute stream waits for its end; the host waits for nothing. Such a transport runs its batches in one
// order, so a port order becomes rounds there (one_to_one_rounds).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "runtime/dispatch/exchange_plan.h"
#include "runtime/transport/transport.h"

namespace aurora {

/// What a message is cut into. MPI over TCP (Open MPI's default eager limit is 64 KiB with a header) sends as
/// much at once; above that it asks the receiver first, and question and answer queue behind everything else
/// that both ports have to send. On eight hosts behind shaped ports of 0.1 Gbit/s, 2 MB for the most loaded,
/// group, rotation, exact and longest-first, on a machine with no processor idle: whole messages took 1.13 to
/// 1.34 of the bound on uniform traffic and 1.37 to 1.90 on uneven traffic that fills all ports, chunks 1.01
/// to 1.08 and 1.21 to 1.33. Chunks whose ends the receiver acknowledges (MPI_Issend), six under way,
/// took 1.07 to 1.35 and 1.27 to 1.71: acknowledgements wait for busy processes.
inline constexpr std::size_t kChunkBytes = std::size_t{48} << 10;
/// A chunk that the network has taken has ended for its sender, so two keep a port busy. Receives are ahead,
/// so that chunks find theirs and are not copied twice; measured as above, 3 and 48 took the same.
inline constexpr std::size_t kMostSendsUnderWay = 2;
inline constexpr std::size_t kMostReceivesUnderWay = 24;
/// The same where the host computes between two looks at an exchange, milliseconds at a time: what is under
/// way is all that moves meanwhile, and hiding it counts for more than its order. Two ranks, exchanges and
/// compute alike, the example models' prompts: colocated 1.26 of serial with 64 sends, 1.09 with two.
inline constexpr std::size_t kMostSendsRunningAhead = 64;
inline constexpr std::size_t kMostReceivesRunningAhead = 128;

/// Where the messages of one rank lie. Offsets are in bytes, [num_ranks]; sizes come from the plan.
struct ExchangeBuffers {
  std::byte* send = nullptr;
  std::span<const std::size_t> send_offsets;  // by destination
  std::byte* receive = nullptr;
  std::span<const std::size_t> receive_offsets;  // by source
};

/// When the device moved the bytes of one exchange, in seconds after the base.
struct ExchangeSpan {
  std::size_t exchange_index = 0;  // among those started since `time_from`
  double start_seconds = 0;
  double end_seconds = 0;
  std::int64_t sent_bytes = 0;
};

class Exchange {
 public:
  /// `compute` writes what is sent and reads what is received.
  Exchange(Transport& transport, Backend& backend, Stream& compute, std::uint32_t tag);

  /// Call when the work that fills the send buffer has been submitted.
  void mark_ready();
  /// Whether `start` may be called: not before the exchange before it has ended, and where the host moves the
  /// bytes not before the send buffer is full. A rank without others need not wait.
  bool can_start();
  /// Whether exchanges from the next `start` on are to go on by themselves while the host is away.
  void run_ahead(bool runs_ahead) { runs_ahead_ = runs_ahead; }
  /// Posts what can be posted. The buffers must stay in place until `advance` has returned true and the work
  /// that reads them is done.
  void start(const TransmissionOrder& order, const ExchangeBuffers& buffers);
  /// True once work that is submitted to `compute` from now on reads what was received. Call until then.
  bool advance();

  /// Whether what the device receives is there, so that a stream need not wait for it. Always, where the host
  /// moves the bytes: there `advance` tells.
  bool has_arrived() {
    return !transport_->is_stream_ordered() || rounds_.empty() || device_end_->is_complete();
  }

  /// After `advance`: true once no transfer is under way. Throws what the transport found wrong.
  bool is_settled();
  /// Seconds that exchanges took since the last call, from when they could begin to their end as seen by
  /// this rank: by the device's clock on a stream-ordered transport. Call when settled.
  double take_seconds();

  /// On a stream-ordered transport, keeps spans from now on. `base` is a timed event, complete, and stays so.
  /// Call when settled.
  void time_from(Event& base);
  /// Of all exchanges since then that moved something. Call when settled.
  std::vector<ExchangeSpan> take_spans();

 private:
  using Clock = std::chrono::steady_clock;
  using Batch = std::vector<Message>;
  /// What is posted together, and how long after the exchange's start at the earliest.
  struct Post {
    Batch messages;
    double start_us = 0;
  };
  /// One side of this rank's port: posts in this order.
  struct Lane {
    std::vector<Post> posts;
    std::size_t next = 0;
    std::vector<Ticket> under_way;
  };

  /// Whether the host moves bytes, and so must know when they are there.
  bool is_driven_by_host() const { return !transport_->is_stream_ordered() && transport_->num_ranks() > 1; }
  std::vector<Batch> messages_by_round(const TransmissionOrder& order, const ExchangeBuffers& buffers) const;
  void fill_lanes(const std::vector<Batch>& rounds, Pacing pacing);
  static void fill_lane(Lane& lane, const Batch& messages, bool together);
  void fill_paced_lanes(const TransmissionOrder& order, const ExchangeBuffers& buffers);
  static void add_paced_chunks(const Message& message, const TransferSpan& span, std::vector<Post>& posts);
  bool advance_lane(Lane& lane, std::size_t most_under_way, double most_us);
  bool advance_lanes();
  void post_all_on_device();
  void add_device_seconds();

  Transport* transport_;
  Backend* backend_;
  Stream* compute_;
  std::uint32_t tag_;
  double seconds_ = 0;
  bool is_under_way_ = false;  // started, and its seconds are not counted yet

  std::unique_ptr<Event> filled_;
  // Where the host moves the bytes.
  bool runs_ahead_ = false;
  Lane sends_, receives_;
  Clock::time_point start_;
  // Where the device does.
  std::unique_ptr<Event> device_start_, device_end_;  // timed
  std::vector<Batch> rounds_;
  std::vector<Ticket> tickets_;
  Event* base_ = nullptr;  // null: spans are not kept
  std::vector<ExchangeSpan> spans_;
  std::size_t num_started_ = 0;
  ExchangeSpan under_way_;  // its index and bytes
};

}  // namespace aurora
