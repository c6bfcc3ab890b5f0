// Hands out tickets for batches under way and finds the batches again; shared by the transports.
//
// A batch keeps its address from `open` to `close`. A ticket holds a slot and the slot's generation, so that
// a ticket that was spent is told apart from a later one of the same slot. Not synchronised: one thread per
// table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/transport/transport.h"

namespace aurora {

/// Set by a transport that hands out tickets of two tables, to tell them apart; no table has 2^31 slots.
inline constexpr std::uint64_t kDeviceTicketBit = std::uint64_t{1} << 31;

/// `Batch` is default-constructible and returns to its first state by `reset()`.
template <typename Batch>
class TicketTable {
 public:
  struct Opened {
    Ticket ticket;
    Batch& batch;
  };

  Opened open() {
    if (free_slots_.empty()) {
      free_slots_.push_back(slots_.size());
      slots_.push_back(std::make_unique<Slot>());
    }
    const std::size_t index = free_slots_.back();
    free_slots_.pop_back();
    Slot& slot = *slots_[index];
    slot.is_open = true;
    return {Ticket{(std::uint64_t{slot.generation} << 32) | (index + 1)}, slot.batch};
  }

  /// Null for a ticket that is spent or was never handed out.
  Batch* find(Ticket ticket) {
    const std::uint64_t position = ticket.id & 0xffffffffU;
    if (position == 0 || position > slots_.size()) return nullptr;
    Slot& slot = *slots_[position - 1];
    return slot.is_open && slot.generation == ticket.id >> 32 ? &slot.batch : nullptr;
  }

  void close(Ticket ticket) {
    const std::size_t index = static_cast<std::size_t>(ticket.id & 0xffffffffU) - 1;
    Slot& slot = *slots_[index];
    slot.batch.reset();
    slot.is_open = false;
    ++slot.generation;
    free_slots_.push_back(index);
  }

  template <typename Visitor>
  void for_each_open(Visitor visit) {
    for (auto& slot : slots_) {
      if (slot->is_open) visit(slot->batch);
    }
  }

 private:
  struct Slot {
    Batch batch;
    std::uint32_t generation = 0;
    bool is_open = false;
  };
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<std::size_t> free_slots_;
};

}  // namespace aurora
