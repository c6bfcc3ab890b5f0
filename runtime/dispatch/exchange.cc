#include "runtime/dispatch/exchange.h"

namespace aurora {

void Exchange::start(const TransmissionOrder& order, const ExchangeBuffers& buffers) {
  std::vector<std::size_t> sent(buffers.send_offsets.begin(), buffers.send_offsets.end());
  std::vector<std::size_t> received(buffers.receive_offsets.begin(), buffers.receive_offsets.end());
  rounds_.clear();
  next_round_ = 0;
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
    if (!messages.empty()) rounds_.push_back(std::move(messages));
  }
  ticket_ = {};
  if (!rounds_.empty()) post_next_round();
}

bool Exchange::advance() {
  while (transport_->test(ticket_)) {
    ticket_ = {};
    if (next_round_ == rounds_.size()) return true;
    post_next_round();
  }
  return false;
}

void Exchange::post_next_round() { ticket_ = transport_->post(rounds_[next_round_++]); }

}  // namespace aurora
