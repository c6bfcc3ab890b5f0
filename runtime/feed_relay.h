// Brings requests from rank 0, which has the feed, to the leaders of other groups of ranks, and their answers
// back, without making any rank wait: each group serves at its own pace.
//
// Rank 0 reads the feed through a `FeedHub`, which hands its own group the requests for its own models and
// passes the others on; every other leader reads from a `RemoteFeed`. Both move their messages along whenever
// the engine asks them something, which it does at least once a turn. The last message of either side says
// that it is the last, so no receive is left behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "runtime/request.h"
#include "runtime/serialization.h"
#include "runtime/transport/transport.h"

namespace aurora {

/// Contents of any size in both directions between this rank and one other, in order; nothing blocks.
class MessagePipe {
 public:
  /// The other end is made on rank `peer` with the same tag, which nothing else uses between the two.
  MessagePipe(Transport& transport, int peer, std::uint32_t tag);

  void send(std::span<const std::byte> contents);
  /// The next message that has come, if one has.
  std::optional<std::vector<std::byte>> receive();
  /// What came last was the last: `receive` expects nothing more.
  void stop_receiving() { is_receiving_ = false; }
  /// Waits until all that was sent is on its way and its memory free.
  void flush(Deadline deadline);

 private:
  struct Outgoing {
    std::uint64_t size_bytes = 0;
    std::vector<std::byte> contents;
    Ticket ticket;
  };

  Ticket post(Direction direction, std::byte* data, std::size_t size_bytes);
  void drop_sent();

  Transport* transport_;
  int peer_;
  std::uint32_t tag_;
  std::deque<std::unique_ptr<Outgoing>> outgoing_;
  bool is_receiving_ = true;
  std::uint64_t incoming_bytes_ = 0;  // what is received first
  std::vector<std::byte> incoming_;
  std::optional<Ticket> size_ticket_, contents_ticket_;  // posted, not complete
};

/// A leader other than rank 0, and the models that it serves.
struct FeedBranch {
  int leader = 0;
  std::vector<std::string> models;
};

/// Rank 0's feed without the requests of other groups. Exhausted when `outer` is and all branches are done.
class FeedHub final : public RequestFeed {
 public:
  /// `outer` and the transport outlive it.
  FeedHub(RequestFeed& outer, Transport& transport, const std::vector<FeedBranch>& branches,
          std::uint32_t tag);

  std::vector<GenerationRequest> take(std::size_t limit) override;
  bool is_exhausted() override;
  void on_text(RequestId id, const std::string& text, const std::vector<TokenId>& token_ids) override {
    outer_->on_text(id, text, token_ids);
  }
  void on_finished(GenerationResult result) override { outer_->on_finished(std::move(result)); }
  /// Call at the end.
  void flush(Deadline deadline);

 private:
  struct Branch {
    std::vector<std::string> models;
    std::unique_ptr<MessagePipe> pipe;
    bool is_closed = false;  // has been told that no request will come
    bool is_done = false;    // has answered all
  };

  void pump();
  void absorb(Branch& branch, const std::vector<std::byte>& contents);
  Branch* branch_of(const std::string& model);

  RequestFeed* outer_;
  std::vector<Branch> branches_;
};

/// What rank 0 passes on to this leader.
class RemoteFeed final : public RequestFeed {
 public:
  RemoteFeed(Transport& transport, std::uint32_t tag) : pipe_(transport, 0, tag) {}

  std::vector<GenerationRequest> take(std::size_t limit) override;
  bool is_exhausted() override;
  void on_text(RequestId id, const std::string& text, const std::vector<TokenId>& token_ids) override;
  void on_finished(GenerationResult result) override;
  /// Call at the end, when everything is answered: tells rank 0.
  void finish(Deadline deadline);

 private:
  void pump();

  MessagePipe pipe_;
  std::deque<GenerationRequest> requests_;
  bool is_closed_ = false;
};

}  // namespace aurora
