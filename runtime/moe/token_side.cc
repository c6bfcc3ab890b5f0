#include "runtime/moe/token_side.h"

#include <algorithm>

namespace aurora {

TokenSide::TokenSide(const MoeContext& context, const Gate& gate)
    : context_(&context),
      gate_(&gate),
      scratch_(*context.backend),
      counts_space_(*context.backend),
      row_offsets_space_(*context.backend),
      row_tokens_space_(*context.backend),
      headers_space_(*context.backend),
      term_offsets_space_(*context.backend),
      term_indices_space_(*context.backend),
      send_space_(*context.backend),
      returned_space_(*context.backend) {}

void TokenSide::prepare(const PlacementTable& table) {
  table_ = &table;
  const std::int64_t num_tokens = gate_->expert_ids().dim(0);
  const std::int64_t top_k = context_->shape.top_k;
  const int num_ranks = context_->self.num_ranks;
  const std::int64_t max_rows = num_tokens * std::min<std::int64_t>(top_k, num_ranks);
  counts_ = counts_space_.vector(DType::kInt32, num_ranks + table.num_slots());
  row_offsets_ = row_offsets_space_.vector(DType::kInt32, num_ranks + 1);
  row_tokens_ = row_tokens_space_.vector(DType::kInt32, max_rows);
  headers_ = headers_space_.tensor(DType::kInt32, max_rows, 2 * top_k);
  term_offsets_ = term_offsets_space_.vector(DType::kInt32, num_tokens + 1);
  term_indices_ = term_indices_space_.vector(DType::kInt32, num_tokens * top_k);
  assignment_scratch_ =
      scratch_.bytes(context_->ops().assign_rows_scratch_bytes(num_tokens, top_k, num_ranks));
  // How many rows there are is known on the device alone, hence room for the most.
  const std::size_t send_rows = num_ranks == 1 ? 0 : static_cast<std::size_t>(max_rows);
  send_ = send_space_.reserve(send_rows * context_->layout.row_bytes());
}

void TokenSide::submit_assignment() const {
  context_->ops().assign_rows(*context_->stream,
                              {.expert_ids = gate_->expert_ids(),
                               .weights = gate_->weights(),
                               .replicas = table_->replicas(),
                               .num_ranks = context_->self.num_ranks,
                               .terms_are_pairs = context_->return_mode == ReturnMode::kPerPair,
                               .scratch = assignment_scratch_,
                               .counts = counts_,
                               .row_offsets = row_offsets_,
                               .row_tokens = row_tokens_,
                               .headers = headers_,
                               .term_offsets = term_offsets_,
                               .term_indices = term_indices_});
}

PackRowsArgs TokenSide::packing() const {
  PackRowsArgs args;
  args.input = gate_->normalized();
  args.header_offset = context_->layout.header_offset();
  args.row_bytes = context_->layout.row_bytes();
  args.wire_dtype = context_->layout.wire_dtype();
  return args;
}

void TokenSide::submit_packing() const {
  if (context_->self.num_ranks == 1) return;
  PackRowsArgs args = packing();
  args.indices = row_tokens_;
  args.headers = headers_;
  args.row_offsets = row_offsets_;
  args.left_out_rank = context_->self.rank;
  args.output = send_;
  context_->ops().pack_rows(*context_->stream, args);
}

void TokenSide::submit_own_packing(const MessageLayout& messages, std::byte* destination) {
  const std::int64_t count = messages.own.rows;
  const std::int64_t header_width = headers_.dim(1);
  PackRowsArgs args = packing();
  args.indices = Tensor(row_tokens_.i32() + messages.first_own_row, DType::kInt32, {count});
  args.headers =
      Tensor(headers_.i32() + messages.first_own_row * header_width, DType::kInt32, {count, header_width});
  args.output = destination;
  context_->ops().pack_rows(*context_->stream, args);
}

std::byte* TokenSide::reserve_returned(const MessageLayout& messages) {
  const auto results = static_cast<std::size_t>(num_results(messages.sent, context_->return_mode));
  return returned_ = returned_space_.reserve(results * context_->layout.return_row_bytes());
}

void TokenSide::submit_aggregation(const MessageLayout& messages, const Tensor& residual) {
  const std::int64_t results = num_results(messages.sent, context_->return_mode);
  const bool is_weighted = context_->return_mode == ReturnMode::kPerPair;
  context_->ops().weighted_sum(
      *context_->stream,
      {.input = Tensor(returned_, context_->layout.return_dtype(), {results, context_->shape.hidden}),
       .offsets = term_offsets_,
       .indices = Tensor(term_indices_.bytes(), DType::kInt32, {results}),
       .weights = is_weighted ? gate_->pair_weights() : Tensor{},
       .initial = residual,
       .output = residual});
}

}  // namespace aurora
