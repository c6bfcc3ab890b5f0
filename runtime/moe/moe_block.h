// One Mixture-of-Experts block as a resumable sequence of phases: gate, counts, dispatch, experts, combine,
// aggregation.
//
// `begin` starts a block and `submit_first` submits what comes first; then `advance` does the next thing that
// can be done without blocking and says whether there was one. Between calls the caller may drive another
// model's block on the same rank: that is what hides one model's exchange under the other's compute. All
// ranks run the same blocks in the same order, with tokens or without; dispatches and combines of all models
// are submitted in the order that `SubmissionOrder` gives, counts as soon as they are there.
//
// The device does the routing: rows, headers and slots are made and read there (TokenSide, ExpertSide). The
// host waits for the device once between gate and combine, for the counts; packing runs meanwhile. Where the
// transport is not stream-ordered it also waits for what it is to send and for what it receives, because it
// moves the bytes itself. Where several blocks share a device whose streams run behind the host, the host
// also waits for an exchange before it submits what needs it, and for the block's turn to compute
// (ComputeTurns).
//
// A rank that is alone exchanges nothing (LocalSide): `submit_first` submits all of the block, and the host
// waits for nothing.
//
// Not its business: attention, which tokens there are, when a plan changes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "kernels/ops.h"
#include "runtime/dispatch/dispatch_counts.h"
#include "runtime/dispatch/exchange.h"
#include "runtime/dispatch/exchange_plan.h"
#include "runtime/dispatch/message_layout.h"
#include "runtime/moe/compute_turns.h"
#include "runtime/moe/expert_side.h"
#include "runtime/moe/expert_store.h"
#include "runtime/moe/gate.h"
#include "runtime/moe/local_side.h"
#include "runtime/moe/moe_context.h"
#include "runtime/moe/phase.h"
#include "runtime/moe/phase_marker.h"
#include "runtime/moe/shared_expert.h"
#include "runtime/moe/token_side.h"
#include "runtime/transport/submission_order.h"
#include "runtime/transport/transport.h"

namespace aurora {

struct MoeSettings {
  ExchangePolicy policy;
  WireTypes wire;
  ReturnMode return_mode = ReturnMode::kPerRow;
  std::uint32_t first_tag = 0;            // kNumTags from here on belong to this block
  std::size_t model_index = 0;            // whose work it is, for profilers
  std::size_t order_index = 0;            // position in the SubmissionOrder
  ComputeTurns* compute_turns = nullptr;  // of the rank; outlives the block; null: the block is alone
};

/// One layer's turn. The tensors and spans must stay alive and unchanged until `is_done`, and until the work
/// that was submitted is done.
struct MoeInput {
  int moe_layer = 0;
  const MoeLayerWeights* weights = nullptr;
  const ExpertStore* experts = nullptr;
  Tensor normalized;                               // [num_tokens, hidden] compute dtype: the block's input
  Tensor residual;                                 // [num_tokens, hidden]: the block's output is added here
  std::span<const std::int32_t> given_expert_ids;  // [num_tokens, top_k] replayed routing, or empty
  Tensor expert_ids;  // [num_tokens, top_k]: the experts that were chosen are left here; or no data
};

/// What exchanges carried and took on this rank, dispatch and combine together.
struct ExchangeStatistics {
  std::int64_t num_exchanges = 0;  // dispatches and combines
  std::int64_t sent_bytes = 0;
  std::int64_t undeduplicated_bytes = 0;  // had each (token, expert) pair to another rank travelled by itself
  std::int64_t float8_saved_bytes = 0;    // that dispatches would have carried more in bfloat16
  double seconds = 0;                     // as Exchange::take_seconds
  double bound_seconds = 0;
  double planning_seconds = 0;  // to choose and order, host time
  // With OrderPolicy::kAuto:
  double predicted_seconds = 0;
  std::array<std::int64_t, kNumOrderCandidates> chosen{};  // how often, by index among order_candidates()

  ExchangeStatistics& operator+=(const ExchangeStatistics& other);
};

class MoeBlock {
 public:
  /// Of counts, dispatch, combine.
  static constexpr int kNumTags = 3;
  /// Exchanges that one block submits in the order of all models: dispatch, combine. None where the block is
  /// local. Counts are messages between hosts, which may pass each other.
  static constexpr int kNumExchanges = 2;
  int num_exchanges() const { return is_local() ? 0 : kNumExchanges; }

  MoeBlock(const MoeShape& shape, const MoeSettings& settings, Transport& transport, Backend& backend,
           Stream& stream);
  // The parts hold the context's address.
  MoeBlock(const MoeBlock&) = delete;
  MoeBlock& operator=(const MoeBlock&) = delete;

  /// Whether all experts are met on this rank, so that blocks exchange nothing.
  bool is_local() const { return local_.has_value(); }

  void begin(const MoeInput& input);
  /// The gate, up to the counts' way to the host, or all of a local block, once for every `begin`. It changes
  /// nothing in this object and reads no memory of the host but given ids: without these a graph of it may be
  /// launched instead, when shapes, weights and placement are the same.
  void submit_first() const;
  /// Call when the work of `submit_first` has been submitted, alone or in a graph, and before others submit
  /// to the stream; otherwise `advance` does it.
  void follow_first();
  /// Does what can be done now; false when it waits for compute, for another rank or for its turn to submit.
  bool advance(SubmissionOrder& order);
  /// Everything is submitted, that of a local block by `submit_first`. Nothing on the host waits for the work
  /// itself.
  bool is_done() const { return phase_ == Phase::kDone; }
  Phase phase() const { return phase_; }
  /// What `advance` found missing, to tell people where a step has come to a stop.
  std::string_view awaits(const SubmissionOrder& order);
  const RowLayout& row_layout() const { return context_.layout; }
  /// Marks the block's own work; the caller says which layer it is, and marks what it does around the block.
  PhaseMarker& phases() { return phases_; }

  /// Times the blocks until the next call: see PhaseMarker::start_clock.
  void start_clock(Deadline deadline);
  /// Since `start_clock`; of exchanges between devices only where the device is timed. Call when settled and
  /// when the stream is done.
  std::vector<PhaseSpan> take_spans();

  /// Once done: true when no transfer is under way any more.
  bool is_settled() { return dispatch_.is_settled() && combine_.is_settled(); }
  /// Of all blocks since the last call. Call when settled.
  ExchangeStatistics take_statistics();
  /// Router logits of the current or last block, [num_tokens, num_experts], device memory.
  Tensor router_logits() const { return gate_.logits(); }

 private:
  bool finish_gate();
  bool finish_counts(SubmissionOrder& order);
  bool finish_dispatch();
  void submit_experts();
  bool finish_experts(SubmissionOrder& order);
  bool finish_combine();
  bool submit_aggregation();

  void submit_local() const;
  void enter(Phase phase);
  bool submit_packing();
  bool submit_own_rows();
  bool has_come(Exchange& exchange);
  bool is_my_turn(const SubmissionOrder& order) const { return order.is_turn_of(settings_.order_index); }
  void use_counts();
  void count_dispatch(std::int64_t rows, std::int64_t pairs);
  void start(Exchange& exchange, TrafficMatrix traffic, const ExchangeBuffers& buffers);

  MoeSettings settings_;
  MoeContext context_;
  mutable PhaseMarker phases_;  // marking is no part of the block's state
  Transport* transport_;

  Phase phase_ = Phase::kDone;
  bool is_submitted_ = false;     // the current phase's own work has been submitted
  bool is_packed_ = false;        // the block's packing has been submitted
  bool has_come_ = false;         // what the current phase receives is there, or the stream waits for it
  std::int64_t phase_bytes_ = 0;  // sent by the exchange under way
  MoeInput input_;
  const PlacementTable* table_ = nullptr;

  Gate gate_;
  std::optional<LocalSide> local_;  // where the block is local, in place of the two sides
  TokenSide tokens_;
  ExpertSide experts_;
  SharedExpert shared_expert_;

  DispatchCounts counts_;
  std::unique_ptr<Event> counts_copied_;  // this rank's counts are on the host
  Ticket counts_ticket_;
  CountMatrix count_matrix_;
  MessageLayout messages_;
  std::byte* received_ = nullptr;
  std::byte* returned_ = nullptr;

  Exchange dispatch_;
  Exchange combine_;
  ExchangeStatistics statistics_;
  std::vector<std::int32_t> layers_;  // of the blocks since `start_clock`
};

}  // namespace aurora
