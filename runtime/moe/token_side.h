// The half of a MoE block on the rank that owns the tokens, after the gate: rows and their packing,
// aggregation.
//
// Everything is submitted to the block's stream in the order of the methods, once per block; nothing waits,
// and nothing that is on the device is read here. `prepare` alone decides where things lie; what is submitted
// up to the packing depends on its arguments and on nothing that the host learns later, so that it can be
// recorded in a graph.
#pragma once

#include "runtime/dispatch/message_layout.h"
#include "runtime/dispatch/workspace.h"
#include "runtime/moe/gate.h"
#include "runtime/moe/moe_context.h"

namespace aurora {

class TokenSide {
 public:
  TokenSide(const MoeContext& context, const Gate& gate);

  /// Begins a block; call when the gate is prepared.
  void prepare(const PlacementTable& table);
  /// Which token goes where. `counts` is written, [num_ranks + num_slots].
  void submit_assignment() const;
  /// Rows for other ranks into the send buffer: only what is on the device is needed.
  void submit_packing() const;
  /// This rank's own rows, straight to where received rows lie.
  void submit_own_packing(const MessageLayout& messages, std::byte* destination);
  /// residual += the returned results of each token.
  void submit_aggregation(const MessageLayout& messages, const Tensor& residual);

  // Device memory, of the current or last block.
  const Tensor& counts() const { return counts_; }
  std::byte* send_buffer() const { return send_; }
  /// Where results come back to, as `messages` says. Call before anything is to be written there.
  std::byte* reserve_returned(const MessageLayout& messages);

 private:
  PackRowsArgs packing() const;

  const MoeContext* context_;
  const Gate* gate_;
  const PlacementTable* table_ = nullptr;
  Tensor assignment_scratch_;
  Tensor counts_, row_offsets_, row_tokens_, headers_, term_offsets_, term_indices_;  // of AssignRowsArgs
  std::byte* send_ = nullptr;
  std::byte* returned_ = nullptr;

  Workspace scratch_, counts_space_, row_offsets_space_, row_tokens_space_, headers_space_;
  Workspace term_offsets_space_, term_indices_space_;
  Workspace send_space_, returned_space_;
};

}  // namespace aurora
