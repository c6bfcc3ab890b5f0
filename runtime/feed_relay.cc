#include "runtime/feed_relay.h"

#include <algorithm>

#include "runtime/engine_protocol.h"
#include "runtime/transport/wait.h"

namespace aurora {
namespace {

/// What a message is; it begins with this.
enum class Relayed : std::uint32_t { kRequest, kClose, kText, kFinished, kDone };

ByteWriter message_of(Relayed kind) {
  ByteWriter writer;
  writer.write(kind);
  return writer;
}

}  // namespace

MessagePipe::MessagePipe(Transport& transport, int peer, std::uint32_t tag)
    : transport_(&transport), peer_(peer), tag_(tag) {}

Ticket MessagePipe::post(Direction direction, std::byte* data, std::size_t size_bytes) {
  const Message message{direction, peer_, tag_, data, size_bytes};
  return transport_->post({&message, 1});
}

void MessagePipe::drop_sent() {
  while (!outgoing_.empty() && transport_->test(outgoing_.front()->ticket)) outgoing_.pop_front();
}

void MessagePipe::send(std::span<const std::byte> contents) {
  check(!contents.empty(), "a relayed message has contents");
  drop_sent();
  auto& sent = *outgoing_.emplace_back(std::make_unique<Outgoing>());
  sent.size_bytes = contents.size();
  sent.contents.assign(contents.begin(), contents.end());
  const Message messages[] = {
      {Direction::kSend, peer_, tag_, reinterpret_cast<std::byte*>(&sent.size_bytes), sizeof(std::uint64_t)},
      {Direction::kSend, peer_, tag_, sent.contents.data(), sent.contents.size()}};
  sent.ticket = transport_->post(messages);
}

std::optional<std::vector<std::byte>> MessagePipe::receive() {
  drop_sent();
  if (!is_receiving_) return std::nullopt;
  if (!contents_ticket_) {
    if (!size_ticket_) {
      auto* size = reinterpret_cast<std::byte*>(&incoming_bytes_);
      size_ticket_ = post(Direction::kReceive, size, sizeof(incoming_bytes_));
    }
    if (!transport_->test(*size_ticket_)) return std::nullopt;
    size_ticket_.reset();
    incoming_.resize(incoming_bytes_);
    contents_ticket_ = post(Direction::kReceive, incoming_.data(), incoming_.size());
  }
  if (!transport_->test(*contents_ticket_)) return std::nullopt;
  contents_ticket_.reset();
  return std::move(incoming_);
}

void MessagePipe::flush(Deadline deadline) {
  for (const auto& sent : outgoing_) {
    wait(*transport_, sent->ticket, deadline, "relayed requests and answers");
  }
  outgoing_.clear();
}

FeedHub::FeedHub(RequestFeed& outer, Transport& transport, const std::vector<FeedBranch>& branches,
                 std::uint32_t tag)
    : outer_(&outer) {
  for (const FeedBranch& branch : branches) {
    branches_.push_back(
        {.models = branch.models, .pipe = std::make_unique<MessagePipe>(transport, branch.leader, tag)});
  }
}

FeedHub::Branch* FeedHub::branch_of(const std::string& model) {
  const auto found = std::ranges::find_if(branches_, [&](const Branch& branch) {
    return std::ranges::find(branch.models, model) != branch.models.end();
  });
  return found == branches_.end() ? nullptr : &*found;
}

std::vector<GenerationRequest> FeedHub::take(std::size_t limit) {
  pump();
  std::vector<GenerationRequest> own;
  for (GenerationRequest& request : outer_->take(limit)) {
    Branch* const branch = branch_of(request.model);
    if (branch == nullptr) {
      own.push_back(std::move(request));
      continue;
    }
    ByteWriter writer = message_of(Relayed::kRequest);
    serialize(request, writer);
    branch->pipe->send(writer.bytes());
  }
  return own;
}

bool FeedHub::is_exhausted() {
  pump();
  if (!outer_->is_exhausted()) return false;
  for (Branch& branch : branches_) {
    if (branch.is_closed) continue;
    branch.pipe->send(message_of(Relayed::kClose).bytes());
    branch.is_closed = true;
  }
  return std::ranges::all_of(branches_, [](const Branch& branch) { return branch.is_done; });
}

void FeedHub::pump() {
  for (Branch& branch : branches_) {
    while (const auto contents = branch.pipe->receive()) absorb(branch, *contents);
  }
}

void FeedHub::absorb(Branch& branch, const std::vector<std::byte>& contents) {
  ByteReader reader(contents);
  switch (reader.read<Relayed>()) {
    case Relayed::kText: {
      const auto id = reader.read<RequestId>();
      const std::string text = reader.read_string();
      return outer_->on_text(id, text, reader.read_vector<TokenId>());
    }
    case Relayed::kFinished:
      return outer_->on_finished(read_result(reader));
    case Relayed::kDone:
      branch.is_done = true;
      return branch.pipe->stop_receiving();
    default:
      check(false, "a leader sends answers, and says when it is done");
  }
}

void FeedHub::flush(Deadline deadline) {
  for (Branch& branch : branches_) branch.pipe->flush(deadline);
}

void RemoteFeed::pump() {
  while (const auto contents = pipe_.receive()) {
    ByteReader reader(*contents);
    if (reader.read<Relayed>() == Relayed::kClose) {
      is_closed_ = true;
      pipe_.stop_receiving();
    } else {
      requests_.push_back(read_generation_request(reader));
    }
  }
}

std::vector<GenerationRequest> RemoteFeed::take(std::size_t limit) {
  pump();
  std::vector<GenerationRequest> taken;
  while (!requests_.empty() && taken.size() < limit) {
    taken.push_back(std::move(requests_.front()));
    requests_.pop_front();
  }
  return taken;
}

bool RemoteFeed::is_exhausted() {
  pump();
  return is_closed_ && requests_.empty();
}

void RemoteFeed::on_text(RequestId id, const std::string& text, const std::vector<TokenId>& token_ids) {
  ByteWriter writer = message_of(Relayed::kText);
  writer.write(id);
  writer.write(text);
  writer.write(token_ids);
  pipe_.send(writer.bytes());
}

void RemoteFeed::on_finished(GenerationResult result) {
  ByteWriter writer = message_of(Relayed::kFinished);
  serialize(result, writer);
  pipe_.send(writer.bytes());
}

void RemoteFeed::finish(Deadline deadline) {
  pipe_.send(message_of(Relayed::kDone).bytes());
  pipe_.flush(deadline);
}

}  // namespace aurora
