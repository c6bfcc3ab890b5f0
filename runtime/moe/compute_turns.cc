#include "runtime/moe/compute_turns.h"

namespace aurora {

ComputeTurns::ComputeTurns(Backend& backend, Stream& stream)
    : is_asynchronous_(backend.is_asynchronous()), stream_(&stream) {
  for (auto& end : ends_) end = backend.create_event();
}

// The stream serves in order, so the ring's oldest end says how many are under way at least.
bool ComputeTurns::has_room() { return !is_shared() || ends_[next_]->is_complete(); }

void ComputeTurns::note_stretch() {
  if (!is_shared()) return;
  stream_->record(*ends_[next_]);
  next_ = (next_ + 1) % ends_.size();
}

}  // namespace aurora
