#include "runtime/moe/moe_block.h"

#include <chrono>
#include <utility>

namespace aurora {

ExchangeStatistics& ExchangeStatistics::operator+=(const ExchangeStatistics& other) {
  num_exchanges += other.num_exchanges;
  sent_bytes += other.sent_bytes;
  undeduplicated_bytes += other.undeduplicated_bytes;
  float8_saved_bytes += other.float8_saved_bytes;
  seconds += other.seconds;
  bound_seconds += other.bound_seconds;
  planning_seconds += other.planning_seconds;
  predicted_seconds += other.predicted_seconds;
  for (std::size_t candidate = 0; candidate < chosen.size(); ++candidate) {
    chosen[candidate] += other.chosen[candidate];
  }
  return *this;
}

MoeBlock::MoeBlock(const MoeShape& shape, const MoeSettings& settings, Transport& transport, Backend& backend,
                   Stream& stream)
    : settings_(settings),
      context_{.shape = shape,
               .layout = RowLayout(shape.hidden, settings.wire, static_cast<int>(shape.top_k)),
               .return_mode = settings.return_mode,
               .self = {transport.rank(), transport.num_ranks()},
               .backend = &backend,
               .stream = &stream},
      phases_(backend, stream, settings.model_index, settings.compute_turns),
      transport_(&transport),
      gate_(context_),
      tokens_(context_, gate_),
      experts_(context_),
      shared_expert_(context_),
      counts_(backend),
      counts_copied_(backend.create_event()),
      dispatch_(transport, backend, stream, settings.first_tag + 1),
      combine_(transport, backend, stream, settings.first_tag + 2) {
  if (stays_on_rank(transport.num_ranks(), settings.return_mode, settings.wire, shape.dtype)) {
    local_.emplace(context_, gate_);
  }
}

void MoeBlock::begin(const MoeInput& input) {
  check(is_done(), "a MoE block begins when the one before it is done");
  check(input.normalized.dtype() == context_.shape.dtype, "a MoE block's input is of the dtype of its shape");
  input_ = input;
  gate_.prepare(input.normalized, input.expert_ids);
  shared_expert_.prepare(*input.weights, input.normalized.dim(0));
  if (local_) return local_->prepare(input.experts->bank(input.moe_layer));
  table_ = &input.experts->placement(input.moe_layer);
  is_packed_ = false;
  tokens_.prepare(*table_);
  counts_.reset(*table_);
  layers_.push_back(phases_.layer());
  enter(Phase::kGate);
}

void MoeBlock::enter(Phase phase) {
  phase_ = phase;
  is_submitted_ = false;
  has_come_ = false;
}

bool MoeBlock::advance(SubmissionOrder& order) {
  switch (phase_) {
    case Phase::kGate:
      return finish_gate();
    case Phase::kCounts:
      return finish_counts(order);
    case Phase::kDispatch:
      return finish_dispatch();
    case Phase::kExperts:
      return finish_experts(order);
    case Phase::kCombine:
      return finish_combine();
    case Phase::kAggregation:
      return submit_aggregation();
    default:
      return false;
  }
}

std::string_view MoeBlock::awaits(const SubmissionOrder& order) {
  constexpr std::string_view kRoom = "its turn to compute", kTurn = "its turn to send";
  switch (phase_) {
    case Phase::kGate:
      return "its gate on the device";
    case Phase::kCounts:
      if (!is_submitted_) return "counts of other ranks";
      if (!dispatch_.can_start()) return "its packed rows on the device, or the dispatch before";
      return is_my_turn(order) ? "nothing" : kTurn;
    case Phase::kDispatch:
      return is_submitted_ ? "rows of other ranks" : kRoom;
    case Phase::kExperts:
      if (!is_submitted_) return kRoom;
      if (!combine_.can_start()) return "its experts on the device, or the combine before";
      return is_my_turn(order) ? "nothing" : kTurn;
    case Phase::kCombine:
      return "results of other ranks";
    case Phase::kAggregation:
      return kRoom;
    default:
      return "nothing";
  }
}

// Gate: router logits, top-k, rows; this rank's counts to the host.
void MoeBlock::submit_first() const {
  if (local_) return submit_local();
  const PhaseMarker::Stretch stretch = phases_.mark(Phase::kGate);
  gate_.submit(input_.weights->router, input_.given_expert_ids);
  tokens_.submit_assignment();
  const std::span<std::int32_t> mine = counts_.of_rank(context_.self.rank);
  context_.backend->copy(*context_.stream, mine.data(), tokens_.counts().bytes(), mine.size_bytes());
}

void MoeBlock::submit_local() const {
  {
    const PhaseMarker::Stretch stretch = phases_.mark(Phase::kGate);
    gate_.submit(input_.weights->router, input_.given_expert_ids);
  }
  {
    const PhaseMarker::Stretch stretch = phases_.mark(Phase::kExperts);
    shared_expert_.submit(*input_.weights, input_.normalized, input_.residual);
    local_->submit_experts(input_.experts->bank(input_.moe_layer));
  }
  const PhaseMarker::Stretch stretch = phases_.mark(Phase::kAggregation);
  local_->submit_aggregation(input_.residual);
}

void MoeBlock::follow_first() {
  if (local_ || is_submitted_) return;
  context_.stream->record(*counts_copied_);
  is_submitted_ = true;
  // Where the host does not compute itself, the device goes on to the rows while counts travel.
  if (context_.backend->is_asynchronous()) submit_packing();
}

bool MoeBlock::finish_gate() {
  follow_first();
  if (!counts_copied_->is_complete()) return false;
  const PhaseMarker::Stretch stretch = phases_.mark(Phase::kCounts);
  const std::vector<Message> messages = counts_.messages(context_.self.rank, settings_.first_tag);
  counts_ticket_ = messages.empty() ? Ticket{} : transport_->post(messages);
  phases_.begin_exchange(Phase::kCounts);
  enter(Phase::kCounts);
  return true;
}

/// Once per block; false when it was done before. It needs no room of its own: it is the end of the gate, and
/// no dispatch may wait for what another model computes after it.
bool MoeBlock::submit_packing() {
  if (is_packed_) return false;
  {
    const PhaseMarker::Stretch stretch = phases_.mark(Phase::kGate);
    tokens_.submit_packing();
  }
  dispatch_.mark_ready();  // after the stretch, whose end is before the exchange begins
  is_packed_ = true;
  return true;
}

// All counts are there: lay out the messages and make room for what comes.
void MoeBlock::use_counts() {
  count_matrix_ = counts_.matrix();
  messages_ = lay_out_messages(count_matrix_, context_.self.rank, context_.layout, context_.return_mode);
  received_ = experts_.reserve_received(messages_);
  returned_ = tokens_.reserve_returned(messages_);
}

bool MoeBlock::finish_counts(SubmissionOrder& order) {
  const bool has_packed = submit_packing();
  if (!is_submitted_) {
    if (!transport_->test(counts_ticket_)) return has_packed;
    counts_ticket_ = {};
    phases_.end_exchange(Phase::kCounts, 0);
    use_counts();
    is_submitted_ = true;
  }
  if (!dispatch_.can_start() || !is_my_turn(order)) return has_packed;
  const PhaseMarker::Stretch stretch = phases_.mark(Phase::kDispatch);
  count_dispatch(messages_.sent.rows - messages_.own.rows, messages_.sent.pairs - messages_.own.pairs);
  const std::size_t row_bytes = context_.layout.row_bytes();
  start(dispatch_, dispatch_traffic(count_matrix_, row_bytes),
        {tokens_.send_buffer(), messages_.send_offsets, received_, messages_.receive_offsets});
  order.advance();
  enter(Phase::kDispatch);
  return true;
}

/// What this rank sends to others.
void MoeBlock::count_dispatch(std::int64_t rows, std::int64_t pairs) {
  const RowLayout& layout = context_.layout;
  const auto row_bytes = static_cast<std::int64_t>(layout.row_bytes());
  statistics_.undeduplicated_bytes += pairs * row_bytes;
  if (layout.wire_dtype() != DType::kFloat8E4M3) return;
  const RowLayout wider(layout.hidden(), DType::kBFloat16, layout.top_k());
  statistics_.float8_saved_bytes += rows * (static_cast<std::int64_t>(wider.row_bytes()) - row_bytes);
}

void MoeBlock::start(Exchange& exchange, TrafficMatrix traffic, const ExchangeBuffers& buffers) {
  const auto begin = std::chrono::steady_clock::now();
  const PlannedExchange planned = plan_exchange(std::move(traffic), settings_.policy);
  statistics_.planning_seconds +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  ++statistics_.num_exchanges;
  statistics_.bound_seconds += planned.bound_seconds;
  statistics_.predicted_seconds += planned.predicted_seconds;
  if (planned.candidate) ++statistics_.chosen[*planned.candidate];
  phase_bytes_ = planned.traffic.row_sum(context_.self.rank);
  statistics_.sent_bytes += phase_bytes_;
  exchange.run_ahead(phases_.is_host_shared());
  exchange.start(planned.order, buffers);
  phases_.begin_exchange(phase_ == Phase::kCounts ? Phase::kDispatch : Phase::kCombine);
}

// Whether work that is submitted from now on reads what the exchange brings, without keeping a shared device
// waiting for it. Call until then.
bool MoeBlock::has_come(Exchange& exchange) {
  if (has_come_) return true;
  if (phases_.is_shared() && !exchange.has_arrived()) return false;
  has_come_ = exchange.advance();
  if (has_come_ && !transport_->is_stream_ordered()) phases_.end_exchange(phase_, phase_bytes_);
  return has_come_;
}

// While the dispatch is under way: this rank's own rows and the shared expert, which wait for nobody.
bool MoeBlock::submit_own_rows() {
  if (is_submitted_ || !phases_.may_compute()) return false;
  const PhaseMarker::Stretch stretch = phases_.mark(Phase::kExperts);
  tokens_.submit_own_packing(messages_, received_);
  shared_expert_.submit(*input_.weights, input_.normalized, input_.residual);
  is_submitted_ = true;
  return true;
}

bool MoeBlock::finish_dispatch() {
  const bool has_submitted = submit_own_rows();
  if (!has_come(dispatch_) || !is_submitted_) return has_submitted;
  enter(Phase::kExperts);
  return true;
}

void MoeBlock::submit_experts() {
  const PhaseMarker::Stretch stretch = phases_.mark(Phase::kExperts);
  experts_.submit({.table = table_,
                   .experts = &input_.experts->bank(input_.moe_layer),
                   .messages = &messages_,
                   .own_results = returned_ + messages_.returned_offsets[context_.self.rank]});
}

bool MoeBlock::finish_experts(SubmissionOrder& order) {
  if (!is_submitted_) {
    if (!phases_.may_compute()) return false;
    submit_experts();
    combine_.mark_ready();
    is_submitted_ = true;
    return true;
  }
  if (!combine_.can_start() || !is_my_turn(order)) return false;
  const PhaseMarker::Stretch stretch = phases_.mark(Phase::kCombine);
  const bool per_pair = settings_.return_mode == ReturnMode::kPerPair;
  const std::size_t result_bytes = context_.layout.return_row_bytes();
  const std::int64_t pairs = messages_.received.pairs - messages_.own.pairs;
  statistics_.undeduplicated_bytes += pairs * static_cast<std::int64_t>(result_bytes);
  start(combine_, combine_traffic(count_matrix_, result_bytes, per_pair),
        {experts_.results(), messages_.return_send_offsets, returned_, messages_.returned_offsets});
  order.advance();
  enter(Phase::kCombine);
  return true;
}

bool MoeBlock::finish_combine() {
  if (!has_come(combine_)) return false;
  enter(Phase::kAggregation);
  return true;
}

bool MoeBlock::submit_aggregation() {
  if (!phases_.may_compute()) return false;
  const PhaseMarker::Stretch stretch = phases_.mark(Phase::kAggregation);
  tokens_.submit_aggregation(messages_, input_.residual);
  enter(Phase::kDone);
  return true;
}

void MoeBlock::start_clock(Deadline deadline) {
  phases_.start_clock(deadline);
  layers_.clear();
  if (!phases_.times_device()) return;
  dispatch_.time_from(phases_.clock());
  combine_.time_from(phases_.clock());
}

std::vector<PhaseSpan> MoeBlock::take_spans() {
  std::vector<PhaseSpan> spans = phases_.spans();
  const auto add_exchanges = [&](Phase phase, Exchange& exchange) {
    for (const ExchangeSpan& span : exchange.take_spans()) {
      spans.push_back(
          {phase, layers_[span.exchange_index], span.start_seconds, span.end_seconds, span.sent_bytes});
    }
  };
  add_exchanges(Phase::kDispatch, dispatch_);
  add_exchanges(Phase::kCombine, combine_);
  return spans;
}

ExchangeStatistics MoeBlock::take_statistics() {
  statistics_.seconds = dispatch_.take_seconds() + combine_.take_seconds();
  return std::exchange(statistics_, {});
}

}  // namespace aurora
