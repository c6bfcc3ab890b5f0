#include "benchmarks/layer/layer_run.h"

#include <utility>

namespace aurora::bench {
namespace {

const Ops& ops_of(const LayerBatch& batch) { return batch.backend.ops(); }

std::int64_t elements_for(std::size_t size_bytes) {
  return static_cast<std::int64_t>((size_bytes + sizeof(std::int32_t) - 1) / sizeof(std::int32_t));
}

}  // namespace

std::vector<float> logits_of(const LayerShape& shape, const LayerRouting& routing) {
  std::vector<float> logits(static_cast<std::size_t>(routing.num_tokens * shape.num_experts), -1.0F);
  for (std::int64_t pair = 0; pair < routing.num_pairs(); ++pair) {
    const std::int64_t token = pair / routing.top_k;
    const auto rank = static_cast<float>(pair % routing.top_k) / static_cast<float>(routing.top_k);
    const std::int64_t expert = routing.expert_ids[static_cast<std::size_t>(pair)];
    logits[static_cast<std::size_t>(token * shape.num_experts + expert)] = 1 - rank;
  }
  return logits;
}

LayerRun::LayerRun(const LayerBatch& batch)
    : batch_(&batch), layout_(batch.shape.hidden, batch.dtype, static_cast<int>(batch.shape.top_k)) {
  make_tensors();
  batch.hidden.fill(batch.stream, hidden_);
  batch.hidden.fill(batch.stream, router_);
  batch.backend.copy(batch.stream, logits_.bytes(), batch.logits.data(), logits_.size_bytes());
  submit_route();
}

Tensor LayerRun::make(DType dtype, std::initializer_list<std::int64_t> shape) {
  Tensor tensor(nullptr, dtype, shape);
  Buffer buffer = batch_->backend.allocate(tensor.size_bytes(), MemorySpace::kDevice);
  tensor = Tensor(buffer.data(), dtype, shape);
  memory_bytes_ += buffer.size_bytes();
  memory_.push_back(std::move(buffer));
  return tensor;
}

void LayerRun::make_tensors() {
  const LayerShape& shape = batch_->shape;
  const Ops& ops = ops_of(*batch_);
  const std::int64_t tokens = batch_->routing.num_tokens;
  const std::int64_t pairs = batch_->routing.num_pairs();
  constexpr DType kInt = DType::kInt32;
  constexpr DType kFloat = DType::kFloat32;
  hidden_ = make(batch_->dtype, {tokens, shape.hidden});
  router_ = make(batch_->dtype, {shape.num_experts, shape.hidden});
  scores_ = make(kFloat, {tokens, shape.num_experts});
  logits_ = make(kFloat, {tokens, shape.num_experts});
  expert_ids_ = make(kInt, {tokens, shape.top_k});
  weights_ = make(kFloat, {tokens, shape.top_k});
  assignment_scratch_ = make(kInt, {elements_for(ops.assign_rows_scratch_bytes(tokens, shape.top_k, 1))});
  counts_ = make(kInt, {1 + shape.num_experts});
  row_offsets_ = make(kInt, {2});
  row_tokens_ = make(kInt, {tokens});
  headers_ = make(kInt, {tokens, 2 * shape.top_k});
  own_terms_ = make(kInt, {tokens + 1});
  own_indices_ = make(kInt, {pairs});
  rows_ = make(batch_->dtype, {tokens, layout_.row_elements()});
  grouping_scratch_ =
      make(kInt, {elements_for(ops.group_rows_scratch_bytes(tokens, shape.top_k, shape.num_experts))});
  expert_offsets_ = make(kInt, {shape.num_experts + 1});
  row_indices_ = make(kInt, {pairs});
  term_offsets_ = make(kInt, {tokens + 1});
  term_indices_ = make(kInt, {pairs});
  term_weights_ = make(kFloat, {pairs});
  ffn_scratch_ = make(kInt, {elements_for(ops.expert_ffn_scratch_bytes(pairs, shape.hidden, shape.inner))});
  outputs_ = make(batch_->dtype, {pairs, shape.hidden});
  results_ = make(batch_->dtype, {tokens, shape.hidden});
  residual_ = make(kFloat, {tokens, shape.hidden});
}

void LayerRun::submit_router() const {
  ops_of(*batch_).linear(batch_->stream,
                         {.input = hidden_, .weight = router_, .bias = {}, .output = scores_});
}

void LayerRun::submit_route() const {
  ops_of(*batch_).route(batch_->stream, {.logits = logits_,
                                         .scoring = RouterScoring::kSoftmax,
                                         .normalize = true,
                                         .ids_are_given = false,
                                         .expert_ids = expert_ids_,
                                         .weights = weights_});
}

void LayerRun::submit_assignment() const {
  ops_of(*batch_).assign_rows(batch_->stream, {.expert_ids = expert_ids_,
                                               .weights = weights_,
                                               .replicas = batch_->table.replicas(),
                                               .num_ranks = 1,
                                               .terms_are_pairs = false,
                                               .scratch = assignment_scratch_,
                                               .counts = counts_,
                                               .row_offsets = row_offsets_,
                                               .row_tokens = row_tokens_,
                                               .headers = headers_,
                                               .term_offsets = own_terms_,
                                               .term_indices = own_indices_});
}

void LayerRun::submit_packing() const {
  PackRowsArgs args;
  args.input = hidden_;
  args.indices = row_tokens_;
  args.headers = headers_;
  args.header_offset = layout_.header_offset();
  args.row_bytes = layout_.row_bytes();
  args.wire_dtype = layout_.wire_dtype();
  args.output = rows_.bytes();
  ops_of(*batch_).pack_rows(batch_->stream, args);
}

void LayerRun::submit_row_grouping() const {
  ops_of(*batch_).group_rows(batch_->stream, {.rows = rows_.bytes(),
                                              .num_rows = batch_->routing.num_tokens,
                                              .row_bytes = layout_.row_bytes(),
                                              .header_offset = layout_.header_offset(),
                                              .top_k = layout_.top_k(),
                                              .local_index = batch_->table.local_index(),
                                              .scratch = grouping_scratch_,
                                              .expert_offsets = expert_offsets_,
                                              .row_indices = row_indices_,
                                              .term_offsets = term_offsets_,
                                              .term_indices = term_indices_,
                                              .term_weights = term_weights_});
}

void LayerRun::submit_grouping() const {
  ops_of(*batch_).group_pairs(batch_->stream, {.expert_ids = expert_ids_,
                                               .scratch = grouping_scratch_,
                                               .expert_offsets = expert_offsets_,
                                               .row_indices = row_indices_,
                                               .term_offsets = term_offsets_,
                                               .term_indices = term_indices_});
}

void LayerRun::submit_experts(const ExpertBank& weights) const {
  ops_of(*batch_).expert_ffn(batch_->stream, {.input = hidden_,
                                              .row_indices = row_indices_,
                                              .expert_offsets = expert_offsets_,
                                              .experts = &weights,
                                              .scratch = ffn_scratch_,
                                              .output = outputs_});
}

void LayerRun::submit_results() const {
  ops_of(*batch_).weighted_sum(batch_->stream, {.input = outputs_,
                                                .offsets = term_offsets_,
                                                .indices = term_indices_,
                                                .weights = term_weights_,
                                                .initial = {},
                                                .output = results_});
}

void LayerRun::submit_result_sum() const {
  // A token has one row on the one rank there is.
  const Tensor rows(own_indices_.bytes(), DType::kInt32, {batch_->routing.num_tokens});
  ops_of(*batch_).weighted_sum(batch_->stream, {.input = results_,
                                                .offsets = own_terms_,
                                                .indices = rows,
                                                .weights = {},
                                                .initial = residual_,
                                                .output = residual_});
}

void LayerRun::submit_aggregation() const {
  const Tensor weights(weights_.bytes(), DType::kFloat32, {batch_->routing.num_pairs()});
  ops_of(*batch_).weighted_sum(batch_->stream, {.input = outputs_,
                                                .offsets = term_offsets_,
                                                .indices = term_indices_,
                                                .weights = weights,
                                                .initial = residual_,
                                                .output = residual_});
}

void LayerRun::submit(const ExpertBank& weights) const {
  submit_grouping();
  submit_experts(weights);
  submit_aggregation();
}

void LayerRun::submit_rows() const {
  submit_assignment();
  submit_packing();
  submit_row_grouping();
  submit_results();
}

}  // namespace aurora::bench
