// One MoE layer on one rank as the runtime runs it, from hidden states, expert ids and weights to the
// combined output, in memory of its own: the operations of runtime/moe/local_side.h with their arguments, one
// after the other. And what a rank among several does besides (token_side.h, expert_side.h), as stages of
// their own: rows with headers, the grouping of received rows, results that go back and their sum.
//
// Nothing waits for the device, nothing is allocated after the constructor, so all of it can be recorded in a
// graph as far as the backend's operations can.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "benchmarks/layer/repeated_values.h"
#include "benchmarks/layer/routing.h"
#include "benchmarks/layer/shape.h"
#include "kernels/backend.h"
#include "kernels/ops.h"
#include "runtime/dispatch/placement_table.h"
#include "runtime/dispatch/row_layout.h"

namespace aurora::bench {

/// What the runs of one batch have in common. All of it outlives them and their work.
struct LayerBatch {
  Backend& backend;
  Stream& stream;
  const LayerShape& shape;
  DType dtype = DType::kFloat32;
  const LayerRouting& routing;
  const PlacementTable& table;    // all experts on this rank
  const RepeatedValues& hidden;   // of deviation 1 and `dtype`
  std::span<const float> logits;  // [num_tokens, num_experts] host memory; their top-k is the routing
};

/// Router logits whose top-k is the routing, in its order; see `LayerRun::submit_route`.
std::vector<float> logits_of(const LayerShape& shape, const LayerRouting& routing);

class LayerRun {
 public:
  /// Submits the upload of the inputs and the routing itself, so that ids and weights are there.
  explicit LayerRun(const LayerBatch& batch);

  // The stages, each of which needs what those before it have left.
  void submit_router() const;    // its product, to memory of its own: the logits stay as they are
  void submit_route() const;     // top-k of the logits: expert ids and weights
  void submit_grouping() const;  // pairs of token and expert by expert
  void submit_experts(const ExpertBank& weights) const;
  void submit_aggregation() const;  // weighted sum of a token's experts, added to the residual
  /// All from `submit_grouping` on.
  void submit(const ExpertBank& weights) const;

  // Of a rank among several. Grouping leaves the same either way, as all tokens are this rank's.
  void submit_assignment() const;    // histogram of experts, slots, headers
  void submit_packing() const;       // rows with headers
  void submit_row_grouping() const;  // received rows by expert, after assignment and packing
  void submit_results() const;       // weighted sum of a row's experts, after the experts
  void submit_result_sum() const;    // added to the residual, after assignment and results
  /// What the stages of a rank among several need of each other, without touching the residual.
  void submit_rows() const;

  const Tensor& expert_ids() const { return expert_ids_; }  // [num_tokens, top_k]
  const Tensor& residual() const { return residual_; }      // [num_tokens, hidden] float32
  /// Of device memory, weights left out.
  std::size_t memory_bytes() const { return memory_bytes_; }
  std::size_t row_bytes() const { return layout_.row_bytes(); }

 private:
  Tensor make(DType dtype, std::initializer_list<std::int64_t> shape);
  void make_tensors();

  const LayerBatch* batch_;
  RowLayout layout_;
  std::vector<Buffer> memory_;
  std::size_t memory_bytes_ = 0;

  Tensor hidden_, router_, scores_, logits_, expert_ids_, weights_;
  Tensor assignment_scratch_, counts_, row_offsets_, row_tokens_, headers_, own_terms_, own_indices_;
  Tensor rows_;  // [num_tokens, row bytes / element]
  Tensor grouping_scratch_, expert_offsets_, row_indices_, term_offsets_, term_indices_, term_weights_;
  Tensor ffn_scratch_, outputs_;  // [num_pairs, hidden]
  Tensor results_, residual_;     // [num_tokens, hidden]
};

}  // namespace aurora::bench
