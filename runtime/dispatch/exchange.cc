#include "runtime/dispatch/exchange.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace aurora {
namespace {

Message chunk_of(const Message& message, std::size_t begin) {
  Message chunk = message;
  chunk.data += begin;
  chunk.size_bytes = std::min(kChunkBytes, message.size_bytes - begin);
  return chunk;
}

}  // namespace

Exchange::Exchange(Transport& transport, Backend& backend, Stream& compute, std::uint32_t tag)
    : transport_(&transport),
      backend_(&backend),
      compute_(&compute),
      tag_(tag),
      filled_(backend.create_event()),
      device_start_(backend.create_timed_event()),
      device_end_(backend.create_timed_event()) {}

void Exchange::mark_ready() {
  if (transport_->num_ranks() > 1) compute_->record(*filled_);
}

bool Exchange::can_start() { return is_driven_by_host() ? filled_->is_complete() : is_settled(); }

void Exchange::start(const TransmissionOrder& order, const ExchangeBuffers& buffers) {
  check(can_start(), "an exchange starts when its buffers are ready and the one before it has ended");
  add_device_seconds();
  is_under_way_ = true;
  if (transport_->is_stream_ordered()) {
    rounds_ = messages_by_round(order.pacing == Pacing::kPorts ? one_to_one_rounds(order) : order, buffers);
    post_all_on_device();
    return;
  }
  if (order.spans.empty()) {
    fill_lanes(messages_by_round(order, buffers), order.pacing);
  } else {
    fill_paced_lanes(order, buffers);
  }
  start_ = Clock::now();
  advance_lanes();
}

// One batch for each round, also where this rank has no part in it: on a stream-ordered transport batches
// match by their place in the sequence.
std::vector<Exchange::Batch> Exchange::messages_by_round(const TransmissionOrder& order,
                                                         const ExchangeBuffers& buffers) const {
  std::vector<std::size_t> sent(buffers.send_offsets.begin(), buffers.send_offsets.end());
  std::vector<std::size_t> received(buffers.receive_offsets.begin(), buffers.receive_offsets.end());
  std::vector<Batch> rounds;
  const int self = transport_->rank();
  for (const Round& round : order.rounds) {
    Batch messages;
    for (const Transfer& transfer : round.transfers) {
      const auto bytes = static_cast<std::size_t>(transfer.bytes);
      if (transfer.source.value == self) {
        const int peer = transfer.destination.value;
        messages.push_back({Direction::kSend, peer, tag_, buffers.send + sent[peer], bytes});
        sent[peer] += bytes;
      } else if (transfer.destination.value == self) {
        const int peer = transfer.source.value;
        messages.push_back({Direction::kReceive, peer, tag_, buffers.receive + received[peer], bytes});
        received[peer] += bytes;
      }
    }
    rounds.push_back(std::move(messages));
  }
  return rounds;
}

void Exchange::fill_lanes(const std::vector<Batch>& rounds, Pacing pacing) {
  sends_ = {};
  receives_ = {};
  for (const Batch& round : rounds) {
    Batch sides[2];  // receives, sends
    for (const Message& message : round) sides[message.direction == Direction::kSend].push_back(message);
    fill_lane(receives_, sides[0], pacing == Pacing::kRounds);
    fill_lane(sends_, sides[1], pacing == Pacing::kRounds);
  }
}

/// Appends one side's part of a round. `together`: several messages are one batch, a chunk of each in turns.
void Exchange::fill_lane(Lane& lane, const Batch& messages, bool together) {
  if (!together || messages.size() == 1) {
    for (const Message& message : messages) {
      for (std::size_t begin = 0; begin < message.size_bytes; begin += kChunkBytes) {
        lane.posts.push_back({{chunk_of(message, begin)}});
      }
    }
    return;
  }
  Batch batch;
  bool has_more = true;
  for (std::size_t begin = 0; has_more; begin += kChunkBytes) {
    has_more = false;
    for (const Message& message : messages) {
      if (begin >= message.size_bytes) continue;
      batch.push_back(chunk_of(message, begin));
      has_more = true;
    }
  }
  if (!batch.empty()) lane.posts.push_back({std::move(batch)});
}

void Exchange::add_paced_chunks(const Message& message, const TransferSpan& span, std::vector<Post>& posts) {
  const double us_per_byte = (span.end_us - span.start_us) / static_cast<double>(message.size_bytes);
  for (std::size_t begin = 0; begin < message.size_bytes; begin += kChunkBytes) {
    const std::size_t before = begin - std::min(begin, kChunkBytes);
    posts.push_back({{chunk_of(message, begin)}, span.start_us + static_cast<double>(before) * us_per_byte});
  }
}

// Chunks of all transfers in the order of their starts, which both ends of a message compute alike. A chunk
// may start one chunk early, so that the first of a round are all there at once; those go to every rank's
// next neighbour first, and no two to one rank.
void Exchange::fill_paced_lanes(const TransmissionOrder& order, const ExchangeBuffers& buffers) {
  const std::vector<Batch> rounds = messages_by_round(order, buffers);
  std::vector<Post> sides[2];  // receives, sends
  for (std::size_t round = 0; round < rounds.size(); ++round) {
    std::size_t next = 0;  // of this rank's messages
    for (std::size_t index = 0; index < order.rounds[round].transfers.size(); ++index) {
      const Transfer& transfer = order.rounds[round].transfers[index];
      if (transfer.source.value != transport_->rank() && transfer.destination.value != transport_->rank())
        continue;
      const Message& message = rounds[round][next++];
      add_paced_chunks(message, order.spans[round][index], sides[message.direction == Direction::kSend]);
    }
  }
  const int num_ranks = transport_->num_ranks();
  for (std::vector<Post>& posts : sides) {
    const auto place = [&](const Post& post) {
      const Message& message = post.messages.front();
      const int distance = message.direction == Direction::kSend ? message.peer - transport_->rank()
                                                                 : transport_->rank() - message.peer;
      return std::pair(post.start_us, (distance + num_ranks) % num_ranks);
    };
    std::ranges::stable_sort(posts, {}, place);
  }
  receives_ = {};
  receives_.posts = std::move(sides[0]);
  sends_ = {};
  sends_.posts = std::move(sides[1]);
}

/// Posts what the lane has room for and whose time has come, `most_us` after the start. Whether all has
/// ended.
bool Exchange::advance_lane(Lane& lane, std::size_t most_under_way, double most_us) {
  for (;;) {
    std::erase_if(lane.under_way, [&](Ticket ticket) { return transport_->test(ticket); });
    if (lane.next == lane.posts.size()) return lane.under_way.empty();
    const Post& post = lane.posts[lane.next];
    if (lane.under_way.size() == most_under_way || post.start_us > most_us) return false;
    lane.under_way.push_back(transport_->post(post.messages));
    ++lane.next;
  }
}

void Exchange::post_all_on_device() {
  under_way_ = {.exchange_index = num_started_++};
  if (rounds_.empty()) return;
  for (std::size_t round = 0; round < rounds_.size(); ++round) {
    // Every batch waits for the buffers: neighbouring ones may run side by side.
    StreamOrder order{.after = filled_.get()};
    if (round == 0) order.begun = device_start_.get();
    if (round + 1 == rounds_.size()) order.done = device_end_.get();
    tickets_.push_back(transport_->post_on_device(rounds_[round], order));
    for (const Message& message : rounds_[round]) {
      const bool is_sent = message.direction == Direction::kSend;
      under_way_.sent_bytes += is_sent ? static_cast<std::int64_t>(message.size_bytes) : 0;
    }
  }
}

bool Exchange::advance_lanes() {
  constexpr double kAlways = std::numeric_limits<double>::infinity();
  const double now_us = std::chrono::duration<double, std::micro>(Clock::now() - start_).count();
  const bool all_received =
      advance_lane(receives_, runs_ahead_ ? kMostReceivesRunningAhead : kMostReceivesUnderWay, kAlways);
  return advance_lane(sends_, runs_ahead_ ? kMostSendsRunningAhead : kMostSendsUnderWay, now_us) &&
         all_received;
}

bool Exchange::advance() {
  if (transport_->is_stream_ordered()) {
    if (!rounds_.empty()) compute_->wait(*device_end_);
    return true;
  }
  const bool is_done = advance_lanes();
  if (is_done) {
    seconds_ += std::chrono::duration<double>(Clock::now() - start_).count();
    is_under_way_ = false;
  }
  return is_done;
}

bool Exchange::is_settled() {
  if (!transport_->is_stream_ordered()) return !is_under_way_;
  std::erase_if(tickets_, [&](Ticket ticket) { return transport_->test(ticket); });
  return tickets_.empty() && (rounds_.empty() || device_end_->is_complete());
}

void Exchange::add_device_seconds() {
  const bool has_run = is_under_way_ && !rounds_.empty();
  if (transport_->is_stream_ordered() && has_run) {
    seconds_ += backend_->seconds_between(*device_start_, *device_end_);
    if (base_ != nullptr) {
      under_way_.start_seconds = backend_->seconds_between(*base_, *device_start_);
      under_way_.end_seconds = backend_->seconds_between(*base_, *device_end_);
      spans_.push_back(under_way_);
    }
  }
  is_under_way_ = false;
}

double Exchange::take_seconds() {
  check(is_settled(), "the time of an exchange is known when it has ended");
  add_device_seconds();
  return std::exchange(seconds_, 0);
}

void Exchange::time_from(Event& base) {
  check(is_settled(), "exchanges are timed from a point between two of them");
  add_device_seconds();
  base_ = &base;
  num_started_ = 0;
  spans_.clear();
}

std::vector<ExchangeSpan> Exchange::take_spans() {
  check(is_settled(), "the time of an exchange is known when it has ended");
  add_device_seconds();
  return std::exchange(spans_, {});
}

}  // namespace aurora
