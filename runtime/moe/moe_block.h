// One Mixture-of-Experts block as a resumable sequence of phases: gate, counts, dispatch, experts, combine,
// aggregation.
//
// `begin` submits the gate; `advance` does the next thing that can be done without blocking and says whether
// there was one. Between calls the caller may drive another model's block on the same rank: that is what
// hides one model's exchange under the other's compute. All ranks run the same blocks in the same order, with
// tokens or without; the exchanges of all models are submitted in the order that `SubmissionOrder` gives.
//
// Not its business: attention, which tokens there are, when a plan changes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/ops.h"
#include "runtime/dispatch/exchange.h"
#include "runtime/dispatch/exchange_plan.h"
#include "runtime/dispatch/routing.h"
#include "runtime/dispatch/workspace.h"
#include "runtime/moe/expert_store.h"
#include "runtime/moe/phase.h"
#include "runtime/transport/submission_order.h"
#include "runtime/transport/transport.h"

namespace aurora {

/// Weights of a MoE block that every rank holds. Device memory.
struct MoeLayerWeights {
  Tensor router;              // [num_experts, hidden]
  ExpertWeights shared;       // no data: no shared expert
  Tensor shared_expert_gate;  // [1, hidden], or no data
};

struct MoeShape {
  std::int64_t hidden = 0;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  std::int64_t expert_inner = 0;
  std::int64_t shared_inner = 0;  // 0: no shared expert
  bool normalize_top_k = true;
};

struct MoeSettings {
  ExchangePolicy policy;
  DType wire_dtype = DType::kFloat32;
  ReturnMode return_mode = ReturnMode::kPerRow;
  std::uint32_t first_tag = 0;  // three tags from here on belong to this block
  std::size_t model_index = 0;  // position in the SubmissionOrder
};

/// One layer's turn. The tensors and spans must stay alive and unchanged until `is_done`.
struct MoeInput {
  int moe_layer = 0;
  const MoeLayerWeights* weights = nullptr;
  const ExpertStore* experts = nullptr;
  const LayerPlacement* placement = nullptr;
  Tensor normalized;                               // [num_tokens, hidden] compute dtype: the block's input
  Tensor residual;                                 // [num_tokens, hidden]: the block's output is added here
  std::span<const std::int32_t> given_expert_ids;  // [num_tokens, top_k] replayed routing, or empty
};

/// What one block's exchanges carried and took on this rank, dispatch and combine together.
struct ExchangeStatistics {
  std::int64_t sent_bytes = 0;
  std::int64_t undeduplicated_bytes = 0;  // had each (token, expert) pair to another rank travelled by itself
  double seconds = 0;                     // from the post to the end, as seen by this rank
  double bound_seconds = 0;
};

class MoeBlock {
 public:
  /// Exchanges that one block submits: counts, dispatch, combine.
  static constexpr int kNumExchanges = 3;

  MoeBlock(const MoeShape& shape, const MoeSettings& settings, Transport& transport, Backend& backend,
           Stream& stream);

  void begin(const MoeInput& input);
  /// Does what can be done now; false when it waits for compute, for another rank or for its turn to submit.
  bool advance(SubmissionOrder& order);
  bool is_done() const { return phase_ == Phase::kDone; }
  Phase phase() const { return phase_; }
  const RowLayout& row_layout() const { return layout_; }

  /// Of the current or last block, valid once the gate is done: [num_tokens, top_k].
  std::span<const std::int32_t> expert_ids() const { return host_expert_ids_; }
  const ExchangeStatistics& statistics() const { return statistics_; }
  /// Router logits of the current or last block, [num_tokens, num_experts].
  Tensor router_logits() const { return logits_; }

 private:
  using Clock = std::chrono::steady_clock;

  bool finish_gate(SubmissionOrder& order);
  bool finish_counts(SubmissionOrder& order);
  bool finish_dispatch();
  bool finish_experts(SubmissionOrder& order);
  bool finish_combine();

  void enter(Phase phase);
  void submit_gate();
  void post_counts();
  void lay_out_messages();
  void submit_packing();
  void pack_rows(std::int32_t first_row, std::int32_t end_row, std::byte* destination);
  void submit_shared_expert();
  void submit_experts();
  void submit_returns(std::int32_t first_row, std::int32_t end_row, std::byte* destination);
  void submit_aggregation();
  void account(const PlannedExchange& planned);

  std::int64_t num_tokens() const { return input_.normalized.dim(0); }
  std::size_t return_units(const RowCounts& counts) const {
    return static_cast<std::size_t>(settings_.return_mode == ReturnMode::kPerPair ? counts.pairs
                                                                                  : counts.rows);
  }

  MoeShape shape_;
  MoeSettings settings_;
  RowLayout layout_;
  Transport* transport_;
  Backend* backend_;
  Stream* stream_;
  const Ops* ops_;

  Phase phase_ = Phase::kDone;
  MoeInput input_;
  std::unique_ptr<Event> computed_;  // last compute that the next phase waits for
  SourceRouting source_;
  ReceivedRouting received_;
  CountMatrix counts_;
  Ticket counts_ticket_;
  bool is_submitted_ = false;  // the current phase's own compute has been submitted
  Exchange exchange_dispatch_;
  Exchange exchange_combine_;
  PlannedExchange planned_combine_;
  ExchangeStatistics statistics_;
  Clock::time_point exchange_start_;

  // Where messages lie: bytes, [num_ranks]. Received rows of this rank itself come first.
  std::vector<std::size_t> send_offsets_, receive_offsets_, return_send_offsets_, return_offsets_;
  std::int32_t num_own_rows_ = 0;
  std::int32_t num_received_rows_ = 0;

  std::vector<std::int32_t> host_expert_ids_;
  std::vector<float> host_weights_;
  Tensor logits_;

  Workspace logits_space_, ids_space_, weights_space_;
  Workspace row_tokens_space_, send_space_, receive_space_;
  Workspace row_indices_space_, expert_scratch_, expert_output_space_;
  Workspace term_offsets_space_, term_indices_space_, term_weights_space_, return_send_space_, return_space_;
  Workspace sum_offsets_space_, sum_indices_space_, sum_weights_space_;
  Workspace shared_space_, shared_up_space_, shared_output_space_, shared_gate_space_;
};

}  // namespace aurora
