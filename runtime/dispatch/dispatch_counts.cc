#include "runtime/dispatch/dispatch_counts.h"

#include <numeric>

namespace aurora {

void DispatchCounts::reset(const PlacementTable& table) {
  table_ = &table;
  const std::int64_t num_ranks = table.num_ranks();
  counts_ = space_.tensor(DType::kInt32, num_ranks, num_ranks + table.num_slots()).i32();
}

std::span<std::int32_t> DispatchCounts::of_rank(int rank) const {
  const auto width = static_cast<std::size_t>(table_->num_ranks() + table_->num_slots());
  return {counts_ + static_cast<std::size_t>(rank) * width, width};
}

std::vector<Message> DispatchCounts::messages(int rank, std::uint32_t tag) const {
  std::vector<Message> messages;
  const auto ours = std::as_writable_bytes(of_rank(rank));
  for (int peer = 0; peer < table_->num_ranks(); ++peer) {
    if (peer == rank) continue;
    const auto theirs = std::as_writable_bytes(of_rank(peer));
    messages.push_back({Direction::kReceive, peer, tag, theirs.data(), theirs.size()});
    messages.push_back({Direction::kSend, peer, tag, ours.data(), ours.size()});
  }
  return messages;
}

CountMatrix DispatchCounts::matrix() const {
  const int num_ranks = table_->num_ranks();
  const std::span<const std::int32_t> slot_offsets = table_->slot_offsets();
  CountMatrix matrix(num_ranks);
  for (int source = 0; source < num_ranks; ++source) {
    const std::span<const std::int32_t> counts = of_rank(source);
    const auto pairs = counts.subspan(static_cast<std::size_t>(num_ranks)).begin();
    const std::span<RowCounts> row = matrix.row(source);
    for (int rank = 0; rank < num_ranks; ++rank) {
      row[rank].rows = counts[rank];
      row[rank].pairs = std::accumulate(pairs + slot_offsets[rank], pairs + slot_offsets[rank + 1], 0);
    }
  }
  return matrix;
}

}  // namespace aurora
