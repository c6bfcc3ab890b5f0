#include "runtime/moe/expert_side.h"

namespace aurora {

ExpertSide::ExpertSide(const MoeContext& context)
    : context_(&context),
      received_space_(*context.backend),
      dequantized_space_(*context.backend),
      grouping_scratch_(*context.backend),
      expert_offsets_space_(*context.backend),
      row_indices_space_(*context.backend),
      term_offsets_space_(*context.backend),
      term_indices_space_(*context.backend),
      term_weights_space_(*context.backend),
      ffn_scratch_(*context.backend),
      output_space_(*context.backend),
      results_space_(*context.backend) {}

std::byte* ExpertSide::reserve_received(const MessageLayout& messages) {
  const auto rows = static_cast<std::size_t>(messages.received.rows);
  return received_ = received_space_.reserve(rows * context_->layout.row_bytes());
}

void ExpertSide::submit(const ExpertWork& work) {
  submit_grouping(work);
  submit_experts(work);
  const MessageLayout& messages = *work.messages;
  const auto all = static_cast<std::size_t>(num_results(messages.received, context_->return_mode));
  const auto own = static_cast<std::size_t>(num_results(messages.own, context_->return_mode));
  const std::size_t result_bytes = context_->layout.return_row_bytes();
  results_ = results_space_.reserve(all * result_bytes);
  submit_results({}, messages.own, work.own_results);
  submit_results(messages.own, messages.received, results_ + own * result_bytes);
}

void ExpertSide::submit_grouping(const ExpertWork& work) {
  const RowCounts& received = work.messages->received;
  expert_offsets_ = expert_offsets_space_.vector(DType::kInt32, work.experts->size() + 1);
  row_indices_ = row_indices_space_.vector(DType::kInt32, received.pairs);
  term_offsets_ = term_offsets_space_.vector(DType::kInt32, std::int64_t{received.rows} + 1);
  term_indices_ = term_indices_space_.vector(DType::kInt32, received.pairs);
  term_weights_ = term_weights_space_.vector(DType::kFloat32, received.pairs);
  const std::size_t scratch_bytes =
      context_->ops().group_rows_scratch_bytes(received.rows, context_->shape.top_k, work.experts->size());
  context_->ops().group_rows(*context_->stream, {.rows = received_,
                                                 .num_rows = received.rows,
                                                 .row_bytes = context_->layout.row_bytes(),
                                                 .header_offset = context_->layout.header_offset(),
                                                 .top_k = context_->layout.top_k(),
                                                 .local_index = work.table->local_index(),
                                                 .scratch = grouping_scratch_.bytes(scratch_bytes),
                                                 .expert_offsets = expert_offsets_,
                                                 .row_indices = row_indices_,
                                                 .term_offsets = term_offsets_,
                                                 .term_indices = term_indices_,
                                                 .term_weights = term_weights_});
}

/// The received rows as the experts read them, [received.rows, at least hidden].
Tensor ExpertSide::submit_dequantization(const ExpertWork& work) {
  const RowLayout& layout = context_->layout;
  const std::int64_t num_rows = work.messages->received.rows;
  if (layout.wire_dtype() != DType::kFloat8E4M3) {
    return {received_, layout.wire_dtype(), {num_rows, layout.row_elements()}};
  }
  const Tensor rows = dequantized_space_.tensor(work.experts->dtype(), num_rows, layout.hidden());
  context_->ops().dequantize_rows(*context_->stream, {received_, layout.row_bytes(), rows});
  return rows;
}

void ExpertSide::submit_experts(const ExpertWork& work) {
  const RowCounts& received = work.messages->received;
  const MoeShape& shape = context_->shape;
  output_ = output_space_.tensor(work.experts->dtype(), received.pairs, shape.hidden);
  const std::size_t scratch_bytes =
      context_->ops().expert_ffn_scratch_bytes(received.pairs, shape.hidden, shape.expert_inner);
  context_->ops().expert_ffn(*context_->stream, {.input = submit_dequantization(work),
                                                 .row_indices = row_indices_,
                                                 .expert_offsets = expert_offsets_,
                                                 .experts = work.experts,
                                                 .scratch = ffn_scratch_.bytes(scratch_bytes),
                                                 .output = output_});
}

// Results of the received rows [begin.rows, end.rows), in the wire's dtype, to `destination`.
void ExpertSide::submit_results(const RowCounts& begin, const RowCounts& end, std::byte* destination) {
  const std::int64_t num_rows = end.rows - begin.rows;
  const std::int64_t num_pairs = end.pairs - begin.pairs;
  if (num_rows == 0) return;
  const DType wire = context_->layout.return_dtype();
  if (context_->return_mode == ReturnMode::kPerPair) {
    const Tensor indices(term_indices_.i32() + begin.pairs, DType::kInt32, {num_pairs});
    context_->ops().gather_rows(
        *context_->stream,
        {output_, indices, Tensor(destination, wire, {num_pairs, context_->shape.hidden})});
    return;
  }
  context_->ops().weighted_sum(
      *context_->stream, {.input = output_,
                          .offsets = Tensor(term_offsets_.i32() + begin.rows, DType::kInt32, {num_rows + 1}),
                          .indices = term_indices_,
                          .weights = term_weights_,
                          .initial = {},
                          .output = Tensor(destination, wire, {num_rows, context_->shape.hidden})});
}

}  // namespace aurora
