// The half of a MoE block on the rank that owns the tokens: gate, rows and their packing, aggregation.
//
// Everything is submitted to the block's stream in the order of the methods, once per block; nothing waits,
// and nothing that is on the device is read here. `prepare` alone decides where things lie; what is submitted
// up to the packing depends on its arguments and on nothing that the host learns later, so that it can be
// recorded in a graph.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/dispatch/message_layout.h"
#include "runtime/dispatch/workspace.h"
#include "runtime/moe/moe_context.h"

namespace aurora {

class TokenSide {
 public:
  explicit TokenSide(const MoeContext& context);

  /// Begins a block. The ids of the experts are left in `expert_ids`, [num_tokens, top_k], or in memory of
  /// this object when it has no data.
  void prepare(const PlacementTable& table, const Tensor& normalized, const Tensor& expert_ids);
  /// Router logits and top-k. `given_expert_ids` is replayed routing, [num_tokens, top_k], or empty.
  void submit_gate(const Tensor& router, std::span<const std::int32_t> given_expert_ids) const;
  /// Which token goes where. `counts` is written, [num_ranks + num_slots].
  void submit_assignment() const;
  /// Rows for other ranks into the send buffer: only what is on the device is needed.
  void submit_packing() const;
  /// This rank's own rows, straight to where received rows lie.
  void submit_own_packing(const MessageLayout& messages, std::byte* destination);
  /// residual += the returned results of each token.
  void submit_aggregation(const MessageLayout& messages, const Tensor& residual);

  // Device memory, of the current or last block.
  const Tensor& logits() const { return logits_; }  // [num_tokens, num_experts]
  const Tensor& counts() const { return counts_; }
  std::byte* send_buffer() const { return send_; }
  /// Where results come back to, as `messages` says. Call before anything is to be written there.
  std::byte* reserve_returned(const MessageLayout& messages);

 private:
  PackRowsArgs packing() const;

  const MoeContext* context_;
  const PlacementTable* table_ = nullptr;
  Tensor normalized_, logits_, expert_ids_, weights_;
  Tensor assignment_scratch_;
  Tensor counts_, row_offsets_, row_tokens_, headers_, term_offsets_, term_indices_;  // of AssignRowsArgs
  std::byte* send_ = nullptr;
  std::byte* returned_ = nullptr;

  Workspace logits_space_, ids_space_, weights_space_;
  Workspace scratch_, counts_space_, row_offsets_space_, row_tokens_space_, headers_space_;
  Workspace term_offsets_space_, term_indices_space_;
  Workspace send_space_, returned_space_;
};

}  // namespace aurora
