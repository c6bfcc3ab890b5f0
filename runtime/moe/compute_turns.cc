#include "runtime/moe/compute_turns.h"

namespace aurora {

ComputeTurns::ComputeTurns(Backend& backend) : is_asynchronous_(backend.is_asynchronous()) {
  for (auto& end : ends_) end = backend.create_event();
}

// Streams serve in order and every stretch waits for the one before, so the ring's oldest end says how many
// are under way at least.
bool ComputeTurns::has_room() { return !is_shared() || ends_[next_]->is_complete(); }

void ComputeTurns::begin(Stream& stream) {
  if (!is_shared()) return;
  const std::size_t last = (next_ + ends_.size() - 1) % ends_.size();
  if (last_stream_ != nullptr && last_stream_ != &stream) stream.wait(*ends_[last]);
}

void ComputeTurns::end(Stream& stream) {
  if (!is_shared()) return;
  stream.record(*ends_[next_]);
  next_ = (next_ + 1) % ends_.size();
  last_stream_ = &stream;
}

}  // namespace aurora
