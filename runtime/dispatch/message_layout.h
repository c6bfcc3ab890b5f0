// Where bytes between ranks become offsets in buffers: what one rank sends, receives, returns and gets back.
//
// Four buffers. *send* holds this rank's rows by destination, with a gap where its own would be; *receive*
// this rank's own rows first, then those of the other ranks by source; *return send* the results of received
// rows in the order of receive, the part of the own rows left empty; *returned* the results of all rows of
// this rank, its own included, in the order of send. A result is a row or, with ReturnMode::kPerPair, a pair.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/dispatch/exchange_plan.h"
#include "runtime/dispatch/row_layout.h"

namespace aurora {

struct MessageLayout {
  RowCounts sent;                  // of this rank's tokens, to all ranks
  std::int32_t first_own_row = 0;  // in send's order
  RowCounts own;                   // of this rank's tokens, to itself
  RowCounts received;              // own ones included
  // Bytes, [num_ranks].
  std::vector<std::size_t> send_offsets, receive_offsets, return_send_offsets, returned_offsets;
};

/// Rows or pairs: what `mode` returns.
inline std::int32_t num_results(const RowCounts& counts, ReturnMode mode) {
  return mode == ReturnMode::kPerPair ? counts.pairs : counts.rows;
}

MessageLayout lay_out_messages(const CountMatrix& counts, int rank, const RowLayout& layout, ReturnMode mode);

}  // namespace aurora
