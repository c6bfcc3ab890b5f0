// The half of a MoE block on the rank that hosts the experts: received rows, grouped by expert, through the
// experts, and their results.
//
// Everything is submitted to the block's stream, once per block; nothing waits. What is on the host comes
// from the counts that the senders announced, never from the rows themselves.
#pragma once

#include <cstdint>

#include "runtime/dispatch/message_layout.h"
#include "runtime/dispatch/workspace.h"
#include "runtime/moe/moe_context.h"

namespace aurora {

/// One layer's experts on this rank, and what they get.
struct ExpertWork {
  const PlacementTable* table = nullptr;
  const ExpertBank* experts = nullptr;
  const MessageLayout* messages = nullptr;
  std::byte* own_results = nullptr;  // where the results of this rank's own rows go
};

class ExpertSide {
 public:
  explicit ExpertSide(const MoeContext& context);

  /// Where received rows lie, as `messages` says. Call before anything is to be written there.
  std::byte* reserve_received(const MessageLayout& messages);
  /// From rows to results.
  void submit(const ExpertWork& work);
  /// Results for other ranks, as the messages' layout says.
  std::byte* results() const { return results_; }

 private:
  void submit_grouping(const ExpertWork& work);
  Tensor submit_dequantization(const ExpertWork& work);
  void submit_experts(const ExpertWork& work);
  void submit_results(const RowCounts& begin, const RowCounts& end, std::byte* destination);

  const MoeContext* context_;
  std::byte* received_ = nullptr;
  std::byte* results_ = nullptr;
  Tensor expert_offsets_, row_indices_, term_offsets_, term_indices_, term_weights_;  // of GroupRowsArgs
  Tensor output_;                                                                     // [num_pairs, hidden]

  Workspace received_space_, dequantized_space_, grouping_scratch_;
  Workspace expert_offsets_space_, row_indices_space_, term_offsets_space_, term_indices_space_,
      term_weights_space_;
  Workspace ffn_scratch_, output_space_, results_space_;
};

}  // namespace aurora
