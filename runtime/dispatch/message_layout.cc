#include "runtime/dispatch/message_layout.h"

namespace aurora {
namespace {

void add(RowCounts& sum, const RowCounts& counts) {
  sum.rows += counts.rows;
  sum.pairs += counts.pairs;
}

}  // namespace

MessageLayout lay_out_messages(const CountMatrix& counts, int rank, const RowLayout& layout,
                               ReturnMode mode) {
  const auto num_ranks = static_cast<std::size_t>(counts.num_ranks());
  const auto row_offset = [&](const RowCounts& before) {
    return static_cast<std::size_t>(before.rows) * layout.row_bytes();
  };
  const auto result_offset = [&](const RowCounts& before) {
    return static_cast<std::size_t>(num_results(before, mode)) * layout.return_row_bytes();
  };
  MessageLayout messages;
  messages.send_offsets.resize(num_ranks);
  messages.receive_offsets.resize(num_ranks);
  messages.return_send_offsets.resize(num_ranks);
  messages.returned_offsets.resize(num_ranks);
  messages.own = messages.received = counts.at(rank, rank);
  for (int peer = 0; peer < counts.num_ranks(); ++peer) {
    messages.send_offsets[peer] = row_offset(messages.sent);
    messages.returned_offsets[peer] = result_offset(messages.sent);
    if (peer == rank) {
      messages.first_own_row = messages.sent.rows;
    } else {
      messages.receive_offsets[peer] = row_offset(messages.received);
      messages.return_send_offsets[peer] = result_offset(messages.received);
      add(messages.received, counts.at(peer, rank));
    }
    add(messages.sent, counts.at(rank, peer));
  }
  return messages;
}

}  // namespace aurora
