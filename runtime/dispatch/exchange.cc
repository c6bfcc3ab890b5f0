#include "runtime/dispatch/exchange.h"

#include <utility>

namespace aurora {

Exchange::Exchange(Transport& transport, Backend& backend, Stream& compute, std::uint32_t tag)
    : transport_(&transport),
      backend_(&backend),
      compute_(&compute),
      tag_(tag),
      filled_(backend.create_event()),
      device_start_(backend.create_timed_event()),
      device_end_(backend.create_timed_event()) {}

void Exchange::mark_ready() {
  if (is_driven_by_host()) compute_->record(*filled_);
}

bool Exchange::can_start() { return is_driven_by_host() ? filled_->is_complete() : is_settled(); }

void Exchange::start(const TransmissionOrder& order, const ExchangeBuffers& buffers) {
  check(can_start(), "an exchange starts when its buffers are ready and the one before it has ended");
  add_device_seconds();
  is_under_way_ = true;
  if (!transport_->is_stream_ordered()) {
    fill_lanes(order, buffers);
    start_ = Clock::now();
    for (Lane& lane : lanes_) advance_lane(lane);
    return;
  }
  fill_lanes(order.pacing == Pacing::kPorts ? one_to_one_rounds(order) : order, buffers);
  post_all_on_device();
}

void Exchange::fill_lanes(const TransmissionOrder& order, const ExchangeBuffers& buffers) {
  std::vector<std::size_t> sent(buffers.send_offsets.begin(), buffers.send_offsets.end());
  std::vector<std::size_t> received(buffers.receive_offsets.begin(), buffers.receive_offsets.end());
  for (Lane& lane : lanes_) lane = {};
  const int self = transport_->rank();
  for (const Round& round : order.rounds) {
    std::vector<Message> messages;
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
    if (order.pacing == Pacing::kPorts) {
      for (const Message& message : messages) {
        lanes_[message.direction == Direction::kSend ? 0 : 1].batches.push_back({message});
      }
    } else if (!messages.empty()) {
      lanes_[0].batches.push_back(std::move(messages));
    }
  }
}

bool Exchange::advance_lane(Lane& lane) {
  while (transport_->test(lane.ticket)) {
    lane.ticket = {};
    if (lane.next == lane.batches.size()) return true;
    lane.ticket = transport_->post(lane.batches[lane.next++]);
  }
  return false;
}

void Exchange::post_all_on_device() {
  const auto& rounds = lanes_[0].batches;
  under_way_ = {.exchange_index = num_started_++};
  if (rounds.empty()) return;
  // Recorded now and not when the buffer was filled, so that the time does not count the host's way here.
  compute_->record(*device_start_);
  for (std::size_t round = 0; round < rounds.size(); ++round) {
    StreamOrder order;
    if (round == 0) order.after = device_start_.get();
    if (round + 1 == rounds.size()) order.done = device_end_.get();
    tickets_.push_back(transport_->post_on_device(rounds[round], order));
    for (const Message& message : rounds[round]) {
      const bool is_sent = message.direction == Direction::kSend;
      under_way_.sent_bytes += is_sent ? static_cast<std::int64_t>(message.size_bytes) : 0;
    }
  }
}

bool Exchange::advance() {
  if (transport_->is_stream_ordered()) {
    if (!lanes_[0].batches.empty()) compute_->wait(*device_end_);
    return true;
  }
  bool is_done = true;
  for (Lane& lane : lanes_) is_done = advance_lane(lane) && is_done;
  if (is_done) {
    seconds_ += std::chrono::duration<double>(Clock::now() - start_).count();
    is_under_way_ = false;
  }
  return is_done;
}

bool Exchange::is_settled() {
  if (!transport_->is_stream_ordered()) return !is_under_way_;
  std::erase_if(tickets_, [&](Ticket ticket) { return transport_->test(ticket); });
  return tickets_.empty() && (lanes_[0].batches.empty() || device_end_->is_complete());
}

void Exchange::add_device_seconds() {
  const bool has_run = is_under_way_ && !lanes_[0].batches.empty();
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
