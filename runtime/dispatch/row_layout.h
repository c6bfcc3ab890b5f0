// What a dispatched row and what comes back for it look like.
//
// A token is sent once to each rank that hosts at least one of its experts. Its row carries the hidden state
// in the wire's dtype (float8_e4m3 with its scales, kernels/float8.h), followed by a header of top_k entries
// (expert, weight) of which those for that rank come first, in the order of the token's top-k. The experts'
// rank returns one row per received row: the weighted sum of its share. With `ReturnMode::kPerPair` it
// returns one unweighted row per (token, expert) pair instead, and the token's rank sums all pairs in top-k
// order: more bytes, but the same bits whatever the placement.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/dtype.h"
#include "kernels/float8.h"
#include "kernels/ops.h"

namespace aurora {

/// Element types on the wire.
struct WireTypes {
  DType rows = DType::kFloat32;     // dispatched
  DType results = DType::kFloat32;  // returned
};

/// What a model that computes in `compute` exchanges where `chosen` is wanted; none: what it computes in.
/// Rows are never wider than what is computed, as nothing would be gained; results may be, being sums. For
/// the same reason eight bits would be felt there: beside float8_e4m3 rows they are bfloat16.
inline WireTypes wire_types(std::optional<DType> chosen, DType compute) {
  const DType wire = chosen.value_or(compute);
  if (wire == DType::kFloat8E4M3) return {wire, DType::kBFloat16};
  return {dtype_bytes(wire) < dtype_bytes(compute) ? wire : compute, wire};
}

/// The bytes of one dispatched row: [hidden values in wire dtype, with scales][padding to 8][top_k
/// RowEntry][padding to 16].
class RowLayout {
 public:
  RowLayout(std::int64_t hidden, DType wire_dtype, int top_k)
      : RowLayout(hidden, wire_types(wire_dtype, wire_dtype), top_k) {}
  RowLayout(std::int64_t hidden, WireTypes wire, int top_k)
      : hidden_(hidden),
        wire_(wire),
        top_k_(top_k),
        header_offset_((wire_bytes(hidden, wire.rows) + 7) / 8 * 8),
        row_bytes_((header_offset_ + static_cast<std::size_t>(top_k) * sizeof(RowEntry) + 15) / 16 * 16) {}

  std::int64_t hidden() const { return hidden_; }
  /// Of dispatched rows.
  DType wire_dtype() const { return wire_.rows; }
  /// Of returned rows.
  DType return_dtype() const { return wire_.results; }
  int top_k() const { return top_k_; }
  std::size_t header_offset() const { return header_offset_; }
  std::size_t row_bytes() const { return row_bytes_; }
  /// Row stride counted in elements of the wire dtype.
  std::int64_t row_elements() const {
    return static_cast<std::int64_t>(row_bytes_ / dtype_bytes(wire_.rows));
  }
  /// Bytes of one returned row.
  std::size_t return_row_bytes() const {
    return static_cast<std::size_t>(hidden_) * dtype_bytes(return_dtype());
  }

 private:
  std::int64_t hidden_;
  WireTypes wire_;
  int top_k_;
  std::size_t header_offset_;
  std::size_t row_bytes_;
};

enum class ReturnMode : std::uint8_t {
  kPerRow,   // one weighted sum per received row
  kPerPair,  // one unweighted row per (token, expert) pair
};

}  // namespace aurora
