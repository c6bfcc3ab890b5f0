#include "runtime/executor/expert_move.h"

#include <utility>

#include "runtime/transport/wait.h"

namespace aurora {

ExpertMove::ExpertMove(ExpertMoveArgs args) : args_(std::move(args)), done_(args_.backend->create_event()) {
  const RankOf self{args_.transport->rank(), args_.transport->num_ranks()};
  try {
    for (const auto& model : args_.models) {
      const ModelPlacement* placement = args_.next.find(model->options().name);
      check(placement != nullptr, "the next plan places every model");
      model->reserve_experts(*placement, self);
    }
  } catch (...) {
    for (const auto& model : args_.models) model->experts().discard();
    throw;
  }
}

ExpertMove::~ExpertMove() {
  for (const auto& model : args_.models) model->experts().discard();
}

std::vector<Message> ExpertMove::messages_of(std::span<const PacedMove::Part> parts) const {
  const int self = args_.transport->rank();
  std::vector<Message> messages;
  for (const PacedMove::Part& part : parts) {
    const ExpertTransfer& transfer = args_.pace.transfers()[part.transfer_index];
    const bool is_sent = transfer.source.value == self;
    if (!is_sent && transfer.destination.value != self) continue;
    const ExpertStore& store = args_.models[transfer.model_index]->experts();
    const std::span<std::byte> weights = is_sent ? store.memory(transfer.layer, transfer.expert)
                                                 : store.prepared_memory(transfer.layer, transfer.expert);
    check(static_cast<Bytes>(weights.size()) == transfer.bytes, "an expert is as large on every rank");
    messages.push_back({.direction = is_sent ? Direction::kSend : Direction::kReceive,
                        .peer = is_sent ? transfer.destination.value : transfer.source.value,
                        .tag = args_.tag,
                        .data = weights.data() + part.offset,
                        .size_bytes = static_cast<std::size_t>(part.bytes)});
  }
  return messages;
}

void ExpertMove::post_parts() {
  const std::vector<Message> messages = messages_of(args_.pace.next_step());
  if (args_.transport->is_stream_ordered()) {
    ticket_ = args_.transport->post_on_device(messages, {.done = done_.get()});
  } else if (!messages.empty()) {
    ticket_ = args_.transport->post(messages);
  }
}

void ExpertMove::finish_parts(Deadline deadline) {
  wait(*args_.transport, std::exchange(ticket_, {}), deadline, "the weights of experts that move");
  if (args_.transport->is_stream_ordered()) done_->wait(deadline);
}

void ExpertMove::commit() {
  check(args_.pace.is_done(), "a move is committed when all weights have travelled");
  for (const auto& model : args_.models) model->experts().commit();
}

}  // namespace aurora
