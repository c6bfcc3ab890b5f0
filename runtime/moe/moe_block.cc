#include "runtime/moe/moe_block.h"

#include <cstring>

namespace aurora {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

MoeBlock::MoeBlock(const MoeShape& shape, const MoeSettings& settings, Transport& transport, Backend& backend,
                   Stream& stream)
    : shape_(shape),
      settings_(settings),
      layout_(shape.hidden, settings.wire_dtype, static_cast<int>(shape.top_k)),
      transport_(&transport),
      backend_(&backend),
      stream_(&stream),
      ops_(&backend.ops()),
      computed_(backend.create_event()),
      counts_(transport.num_ranks()),
      exchange_dispatch_(transport, settings.first_tag + 1),
      exchange_combine_(transport, settings.first_tag + 2),
      logits_space_(backend),
      ids_space_(backend),
      weights_space_(backend),
      row_tokens_space_(backend),
      send_space_(backend),
      receive_space_(backend),
      row_indices_space_(backend),
      expert_scratch_(backend),
      expert_output_space_(backend),
      term_offsets_space_(backend),
      term_indices_space_(backend),
      term_weights_space_(backend),
      return_send_space_(backend),
      return_space_(backend),
      sum_offsets_space_(backend),
      sum_indices_space_(backend),
      sum_weights_space_(backend),
      shared_space_(backend),
      shared_up_space_(backend),
      shared_output_space_(backend),
      shared_gate_space_(backend) {}

void MoeBlock::begin(const MoeInput& input) {
  check(is_done(), "a MoE block begins when the one before it is done");
  input_ = input;
  statistics_ = {};
  enter(Phase::kGate);
}

void MoeBlock::enter(Phase phase) {
  phase_ = phase;
  is_submitted_ = false;
}

bool MoeBlock::advance(SubmissionOrder& order) {
  switch (phase_) {
    case Phase::kGate:
      return finish_gate(order);
    case Phase::kCounts:
      return finish_counts(order);
    case Phase::kDispatch:
      return finish_dispatch();
    case Phase::kExperts:
      return finish_experts(order);
    case Phase::kCombine:
      return finish_combine();
    case Phase::kAggregation:
      submit_aggregation();
      enter(Phase::kDone);
      return true;
    default:
      return false;
  }
}

// Gate: router logits, top-k, and the ids and weights back on the host.
void MoeBlock::submit_gate() {
  const std::int64_t tokens = num_tokens();
  const std::int64_t pairs = tokens * shape_.top_k;
  logits_ = logits_space_.tensor(DType::kFloat32, tokens, shape_.num_experts);
  ops_->linear(*stream_, {input_.normalized, input_.weights->router, {}, logits_});
  const bool is_replayed = !input_.given_expert_ids.empty();
  Tensor ids = ids_space_.tensor(DType::kInt32, tokens, shape_.top_k);
  if (is_replayed) {
    check(static_cast<std::int64_t>(input_.given_expert_ids.size()) == pairs,
          "replayed ids are [num_tokens, top_k]");
    backend_->copy(*stream_, ids.bytes(), input_.given_expert_ids.data(), ids.size_bytes());
  }
  const Tensor weights = weights_space_.tensor(DType::kFloat32, tokens, shape_.top_k);
  ops_->route(*stream_, {.logits = logits_,
                         .scoring = RouterScoring::kSoftmax,
                         .normalize = shape_.normalize_top_k,
                         .ids_are_given = is_replayed,
                         .expert_ids = ids,
                         .weights = weights});
  host_expert_ids_.resize(static_cast<std::size_t>(pairs));
  host_weights_.resize(static_cast<std::size_t>(pairs));
  if (pairs > 0) {
    backend_->copy(*stream_, host_expert_ids_.data(), ids.bytes(), ids.size_bytes());
    backend_->copy(*stream_, host_weights_.data(), weights.bytes(), weights.size_bytes());
  }
  stream_->record(*computed_);
}

bool MoeBlock::finish_gate(SubmissionOrder& order) {
  if (!is_submitted_) submit_gate();
  is_submitted_ = true;
  if (!computed_->is_complete() || !order.is_turn_of(settings_.model_index)) return false;
  route_tokens({.expert_ids = host_expert_ids_,
                .weights = host_weights_,
                .top_k = static_cast<int>(shape_.top_k),
                .placement = input_.placement,
                .num_ranks = transport_->num_ranks(),
                .return_mode = settings_.return_mode},
               source_);
  post_counts();
  order.advance();
  enter(Phase::kCounts);
  return true;
}

// Counts: an all-gather of every rank's row of the count matrix.
void MoeBlock::post_counts() {
  const int self = transport_->rank();
  const int num_ranks = transport_->num_ranks();
  const std::span<RowCounts> mine = counts_.row(self);
  for (int rank = 0; rank < num_ranks; ++rank) {
    mine[rank] = {source_.row_offsets[rank + 1] - source_.row_offsets[rank],
                  source_.pair_offsets[rank + 1] - source_.pair_offsets[rank]};
  }
  std::vector<Message> messages;
  for (int peer = 0; peer < num_ranks; ++peer) {
    if (peer == self) continue;
    const auto theirs = std::as_writable_bytes(counts_.row(peer));
    const auto ours = std::as_writable_bytes(mine);
    messages.push_back({Direction::kReceive, peer, settings_.first_tag, theirs.data(), theirs.size()});
    messages.push_back({Direction::kSend, peer, settings_.first_tag, ours.data(), ours.size()});
  }
  counts_ticket_ = messages.empty() ? Ticket{} : transport_->post(messages);
}

bool MoeBlock::finish_counts(SubmissionOrder& order) {
  if (!is_submitted_) {
    if (!transport_->test(counts_ticket_)) return false;
    counts_ticket_ = {};
    lay_out_messages();
    submit_packing();
    is_submitted_ = true;
  }
  if (!computed_->is_complete() || !order.is_turn_of(settings_.model_index)) return false;
  const PlannedExchange planned =
      plan_exchange(dispatch_traffic(counts_, layout_.row_bytes()), settings_.policy);
  account(planned);
  exchange_start_ = Clock::now();
  exchange_dispatch_.start(
      planned.order, {send_space_.reserve(0), send_offsets_, receive_space_.reserve(0), receive_offsets_});
  order.advance();
  enter(Phase::kDispatch);
  return true;
}

// Rows for other ranks go to the send buffer, this rank's own straight to where received rows lie.
void MoeBlock::submit_packing() {
  const int self = transport_->rank();
  row_tokens_space_.upload(*stream_, source_.row_tokens);
  std::byte* send = send_space_.reserve(static_cast<std::size_t>(source_.num_rows()) * layout_.row_bytes());
  std::byte* receive =
      receive_space_.reserve(static_cast<std::size_t>(num_received_rows_) * layout_.row_bytes());
  const std::int32_t own_end = source_.row_offsets[self + 1];
  pack_rows(0, source_.row_offsets[self], send);
  pack_rows(source_.row_offsets[self], own_end, receive);
  pack_rows(own_end, source_.num_rows(), send + static_cast<std::size_t>(own_end) * layout_.row_bytes());
  stream_->record(*computed_);
}

void MoeBlock::lay_out_messages() {
  const int self = transport_->rank();
  const auto num_ranks = static_cast<std::size_t>(transport_->num_ranks());
  send_offsets_.resize(num_ranks);
  receive_offsets_.resize(num_ranks);
  return_send_offsets_.resize(num_ranks);
  return_offsets_.resize(num_ranks);
  const std::size_t return_bytes = layout_.return_row_bytes();
  const bool per_pair = settings_.return_mode == ReturnMode::kPerPair;

  num_own_rows_ = counts_.at(self, self).rows;
  num_received_rows_ = num_own_rows_;
  std::size_t returned_units = return_units(counts_.at(self, self));
  receive_offsets_[self] = 0;
  return_send_offsets_[self] = 0;
  for (int rank = 0; rank < static_cast<int>(num_ranks); ++rank) {
    send_offsets_[rank] = static_cast<std::size_t>(source_.row_offsets[rank]) * layout_.row_bytes();
    const auto& offsets = per_pair ? source_.pair_offsets : source_.row_offsets;
    return_offsets_[rank] = static_cast<std::size_t>(offsets[rank]) * return_bytes;
    if (rank == self) continue;
    receive_offsets_[rank] = static_cast<std::size_t>(num_received_rows_) * layout_.row_bytes();
    return_send_offsets_[rank] = returned_units * return_bytes;
    num_received_rows_ += counts_.at(rank, self).rows;
    returned_units += return_units(counts_.at(rank, self));
  }
}

void MoeBlock::pack_rows(std::int32_t first_row, std::int32_t end_row, std::byte* destination) {
  const std::int64_t count = end_row - first_row;
  if (count == 0) return;
  const Tensor indices(
      row_tokens_space_.reserve(0) + static_cast<std::size_t>(first_row) * sizeof(std::int32_t),
      DType::kInt32, {count});
  const auto* headers =
      source_.entries.data() + static_cast<std::size_t>(first_row) * static_cast<std::size_t>(shape_.top_k);
  ops_->pack_rows(
      *stream_, {.input = input_.normalized,
                 .indices = indices,
                 .headers = std::as_bytes(std::span(headers, static_cast<std::size_t>(count * shape_.top_k))),
                 .header_offset = layout_.header_offset(),
                 .row_bytes = layout_.row_bytes(),
                 .wire_dtype = layout_.wire_dtype(),
                 .output = destination});
}

// Qwen2-MoE's shared expert runs on the token's own rank while the dispatch is under way.
void MoeBlock::submit_shared_expert() {
  const MoeLayerWeights& weights = *input_.weights;
  if (!weights.shared.gate.has_data() || num_tokens() == 0) return;
  const Tensor gate = shared_space_.tensor(DType::kFloat32, num_tokens(), shape_.shared_inner);
  const Tensor up = shared_up_space_.tensor(DType::kFloat32, num_tokens(), shape_.shared_inner);
  ops_->linear(*stream_, {input_.normalized, weights.shared.gate, {}, gate});
  ops_->linear(*stream_, {input_.normalized, weights.shared.up, {}, up});
  ops_->silu_multiply(*stream_, {gate, up, gate});
  if (!weights.shared_expert_gate.has_data()) {
    ops_->linear(*stream_, {gate, weights.shared.down, {}, input_.residual, /*accumulate=*/true});
    return;
  }
  const Tensor output = shared_output_space_.tensor(DType::kFloat32, num_tokens(), shape_.hidden);
  const Tensor gate_logits = shared_gate_space_.tensor(DType::kFloat32, num_tokens(), 1);
  ops_->linear(*stream_, {gate, weights.shared.down, {}, output});
  ops_->linear(*stream_, {input_.normalized, weights.shared_expert_gate, {}, gate_logits});
  ops_->sigmoid_gated_add(*stream_, {output, gate_logits, input_.residual});
}

bool MoeBlock::finish_dispatch() {
  if (!is_submitted_) submit_shared_expert();
  is_submitted_ = true;
  if (!exchange_dispatch_.advance()) return false;
  statistics_.seconds += seconds_since(exchange_start_);
  enter(Phase::kExperts);
  return true;
}

void MoeBlock::submit_experts() {
  const std::size_t received_bytes = static_cast<std::size_t>(num_received_rows_) * layout_.row_bytes();
  const auto experts = input_.experts->weights(input_.moe_layer);
  group_received_rows({receive_space_.reserve(0), received_bytes}, layout_,
                      input_.experts->local_index(input_.moe_layer), static_cast<int>(experts.size()),
                      received_);
  const auto num_pairs = static_cast<std::int64_t>(received_.row_indices.size());
  const Tensor rows(receive_space_.reserve(0), layout_.wire_dtype(),
                    {num_received_rows_, layout_.row_elements()});
  const std::size_t scratch_bytes =
      ops_->expert_ffn_scratch_bytes(num_pairs, shape_.hidden, shape_.expert_inner);
  ops_->expert_ffn(
      *stream_,
      {.input = rows,
       .row_indices = row_indices_space_.upload(*stream_, received_.row_indices),
       .expert_offsets = received_.expert_offsets,
       .experts = experts,
       .scratch = expert_scratch_.vector(DType::kInt32, static_cast<std::int64_t>(scratch_bytes / 4 + 1)),
       .output = expert_output_space_.tensor(DType::kFloat32, num_pairs, shape_.hidden)});
  term_offsets_space_.upload(*stream_, received_.term_offsets);
  term_indices_space_.upload(*stream_, received_.term_indices);
  term_weights_space_.upload(*stream_, received_.term_weights);

  const std::size_t return_bytes = layout_.return_row_bytes();
  const bool per_pair = settings_.return_mode == ReturnMode::kPerPair;
  const auto sent_units =
      per_pair ? static_cast<std::size_t>(num_pairs) : static_cast<std::size_t>(num_received_rows_);
  const auto returned_units = static_cast<std::size_t>(per_pair ? source_.num_pairs() : source_.num_rows());
  std::byte* return_send = return_send_space_.reserve(sent_units * return_bytes);
  std::byte* returned = return_space_.reserve(returned_units * return_bytes);
  submit_returns(0, num_own_rows_, returned + return_offsets_[transport_->rank()]);
  const std::size_t own_units = return_units(counts_.at(transport_->rank(), transport_->rank()));
  submit_returns(num_own_rows_, num_received_rows_, return_send + own_units * return_bytes);
  stream_->record(*computed_);
}

// Results of the received rows [first_row, end_row), in the wire's dtype, to `destination`.
void MoeBlock::submit_returns(std::int32_t first_row, std::int32_t end_row, std::byte* destination) {
  const std::int64_t num_rows = end_row - first_row;
  if (num_rows == 0) return;
  const auto num_pairs = static_cast<std::int64_t>(received_.term_indices.size());
  const Tensor expert_output(expert_output_space_.reserve(0), DType::kFloat32, {num_pairs, shape_.hidden});
  if (settings_.return_mode == ReturnMode::kPerPair) {
    const std::int64_t first = received_.term_offsets[first_row];
    const std::int64_t count = received_.term_offsets[end_row] - first;
    const Tensor indices(
        term_indices_space_.reserve(0) + static_cast<std::size_t>(first) * sizeof(std::int32_t),
        DType::kInt32, {count});
    ops_->gather_rows(*stream_, {expert_output, indices,
                                 Tensor(destination, layout_.wire_dtype(), {count, shape_.hidden})});
    return;
  }
  const Tensor offsets(
      term_offsets_space_.reserve(0) + static_cast<std::size_t>(first_row) * sizeof(std::int32_t),
      DType::kInt32, {num_rows + 1});
  ops_->weighted_sum(*stream_,
                     {.input = expert_output,
                      .offsets = offsets,
                      .indices = Tensor(term_indices_space_.reserve(0), DType::kInt32, {num_pairs}),
                      .weights = Tensor(term_weights_space_.reserve(0), DType::kFloat32, {num_pairs}),
                      .initial = {},
                      .output = Tensor(destination, layout_.wire_dtype(), {num_rows, shape_.hidden})});
}

bool MoeBlock::finish_experts(SubmissionOrder& order) {
  if (!is_submitted_) submit_experts();
  is_submitted_ = true;
  if (!computed_->is_complete() || !order.is_turn_of(settings_.model_index)) return false;
  const bool per_pair = settings_.return_mode == ReturnMode::kPerPair;
  planned_combine_ =
      plan_exchange(combine_traffic(counts_, layout_.return_row_bytes(), per_pair), settings_.policy);
  account(planned_combine_);
  exchange_start_ = Clock::now();
  exchange_combine_.start(planned_combine_.order, {return_send_space_.reserve(0), return_send_offsets_,
                                                   return_space_.reserve(0), return_offsets_});
  order.advance();
  enter(Phase::kCombine);
  return true;
}

bool MoeBlock::finish_combine() {
  if (!exchange_combine_.advance()) return false;
  statistics_.seconds += seconds_since(exchange_start_);
  enter(Phase::kAggregation);
  return true;
}

// Aggregation: residual += the returned rows of each token. Nothing on the host waits for it.
void MoeBlock::submit_aggregation() {
  const bool per_pair = settings_.return_mode == ReturnMode::kPerPair;
  const std::int64_t units = per_pair ? source_.num_pairs() : source_.num_rows();
  ops_->weighted_sum(
      *stream_, {.input = Tensor(return_space_.reserve(0), layout_.wire_dtype(), {units, shape_.hidden}),
                 .offsets = sum_offsets_space_.upload(*stream_, source_.term_offsets),
                 .indices = sum_indices_space_.upload(*stream_, source_.term_indices),
                 .weights = per_pair ? sum_weights_space_.upload(*stream_, source_.term_weights) : Tensor{},
                 .initial = input_.residual,
                 .output = input_.residual});
}

void MoeBlock::account(const PlannedExchange& planned) {
  const int self = transport_->rank();
  statistics_.bound_seconds += planned.bound_seconds;
  statistics_.sent_bytes += planned.traffic.row_sum(self);
  for (int peer = 0; peer < transport_->num_ranks(); ++peer) {
    if (peer == self) continue;
    // Dispatch and combine call this once each; a pair that travels alone costs a row either way.
    const bool is_dispatch = phase_ == Phase::kCounts;
    const RowCounts& counts = is_dispatch ? counts_.at(self, peer) : counts_.at(peer, self);
    const std::size_t unit = is_dispatch ? layout_.row_bytes() : layout_.return_row_bytes();
    statistics_.undeduplicated_bytes +=
        static_cast<std::int64_t>(counts.pairs) * static_cast<std::int64_t>(unit);
  }
}

}  // namespace aurora
