// Where a plan meets buffers: which token of this rank goes to which rank, in which row of which message, and
// what the receiver does with it.
//
// A token is sent once to each rank that hosts at least one of its experts. Its row carries the hidden state
// in the wire's dtype, followed by a header of top_k entries (expert, weight) of which those for that rank
// come first, in the order of the token's top-k. The experts' rank returns one row per received row: the
// weighted sum of its share. With `ReturnMode::kPerPair` it returns one unweighted row per (token, expert)
// pair instead, and the token's rank sums all pairs in top-k order: more bytes, but the same bits whatever
// the placement.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/dtype.h"
#include "scheduler/plan.h"

namespace aurora {

struct RowEntry {
  std::int32_t expert = -1;  // -1: unused
  float weight = 0;
};
static_assert(sizeof(RowEntry) == 8);

/// The bytes of one dispatched row: [hidden values in wire dtype][padding to 8][top_k RowEntry][padding to
/// 16].
class RowLayout {
 public:
  RowLayout(std::int64_t hidden, DType wire_dtype, int top_k)
      : hidden_(hidden),
        wire_dtype_(wire_dtype),
        top_k_(top_k),
        header_offset_((static_cast<std::size_t>(hidden) * dtype_bytes(wire_dtype) + 7) / 8 * 8),
        row_bytes_((header_offset_ + static_cast<std::size_t>(top_k) * sizeof(RowEntry) + 15) / 16 * 16) {}

  std::int64_t hidden() const { return hidden_; }
  DType wire_dtype() const { return wire_dtype_; }
  int top_k() const { return top_k_; }
  std::size_t header_offset() const { return header_offset_; }
  std::size_t row_bytes() const { return row_bytes_; }
  /// Row stride counted in elements of the wire dtype.
  std::int64_t row_elements() const {
    return static_cast<std::int64_t>(row_bytes_ / dtype_bytes(wire_dtype_));
  }
  /// Bytes of one returned row.
  std::size_t return_row_bytes() const {
    return static_cast<std::size_t>(hidden_) * dtype_bytes(wire_dtype_);
  }

 private:
  std::int64_t hidden_;
  DType wire_dtype_;
  int top_k_;
  std::size_t header_offset_;
  std::size_t row_bytes_;
};

enum class ReturnMode : std::uint8_t {
  kPerRow,   // one weighted sum per received row
  kPerPair,  // one unweighted row per (token, expert) pair
};

/// What this rank sends in one layer, and how it reads what comes back.
struct SourceRouting {
  std::vector<std::int32_t>
      row_offsets;  // [num_ranks + 1]: rows for rank d are [row_offsets[d], row_offsets[d+1])
  std::vector<std::int32_t> pair_offsets;  // [num_ranks + 1]: the same for (token, expert) pairs
  std::vector<std::int32_t> row_tokens;    // [num_rows]: token of each row
  std::vector<RowEntry> entries;           // [num_rows * top_k]: headers
  // How aggregation sums, per token: terms [term_offsets[t], term_offsets[t+1]).
  std::vector<std::int32_t> term_offsets;  // [num_tokens + 1]
  std::vector<std::int32_t> term_indices;  // index of a returned row
  std::vector<float> term_weights;         // kPerPair only; kPerRow: empty, all ones

  std::int32_t num_rows() const { return row_offsets.empty() ? 0 : row_offsets.back(); }
  std::int32_t num_pairs() const { return pair_offsets.empty() ? 0 : pair_offsets.back(); }
};

struct RoutingArgs {
  std::span<const std::int32_t> expert_ids;  // [num_tokens, top_k]
  std::span<const float> weights;            // [num_tokens, top_k]
  int top_k = 0;
  const LayerPlacement* placement = nullptr;
  int num_ranks = 1;
  ReturnMode return_mode = ReturnMode::kPerRow;
};

/// Fills `routing`, reusing its memory. O(num_tokens * top_k + num_ranks). Deterministic: of an expert's
/// replicas, token t takes the one whose share covers the t-th point of the golden-ratio sequence.
void route_tokens(const RoutingArgs& args, SourceRouting& routing);

/// What this rank does with the rows it received.
struct ReceivedRouting {
  std::vector<std::int32_t> expert_offsets;  // [num_local_experts + 1]
  std::vector<std::int32_t> row_indices;  // [num_pairs]: received row of each pair, grouped by local expert
  // For the return: terms of received row r are [term_offsets[r], term_offsets[r+1]), in header order.
  std::vector<std::int32_t> term_offsets;  // [num_rows + 1]
  std::vector<std::int32_t> term_indices;  // [num_pairs]: position in the grouped order
  std::vector<float> term_weights;         // [num_pairs]
};

/// Reads the headers of `num_rows` received rows. `local_index[e]` is the position of expert e among this
/// rank's experts, -1 when it is not here; a row that names such an expert is a broken invariant and throws.
void group_received_rows(std::span<const std::byte> rows, const RowLayout& layout,
                         std::span<const std::int32_t> local_index, int num_local_experts,
                         ReceivedRouting& routing);

}  // namespace aurora
