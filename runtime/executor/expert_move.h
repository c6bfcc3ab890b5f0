// The move of experts from the plan that serves to the next one, as one rank takes part in it.
//
// Three acts, each begun by all ranks at the same step: take memory for what comes (the constructor), let the
// weights travel under a budget of bytes per step beside the exchanges of the models (`post_parts` before the
// models step, `finish_parts` after), switch (`commit`, between two steps). Until the last one the old plan
// serves, and dropping the move leaves nothing behind.
//
// Weights come from the memory of a rank that has them, not from the checkpoint: no file is read while
// serving. They travel as host messages with a tag of their own, or on a stream-ordered transport from device
// memory to device memory, in one batch a step that every rank posts before any exchange.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "runtime/executor/served_model.h"
#include "runtime/transport/transport.h"
#include "scheduler/plan.h"
#include "scheduler/plan_move.h"

namespace aurora {

struct ExpertMoveArgs {
  std::span<const std::unique_ptr<ServedModel>> models;  // in the order of the transfers' model indices
  DeploymentPlan next;
  PacedMove pace;
  Transport* transport = nullptr;
  Backend* backend = nullptr;
  std::uint32_t tag = 0;
};

class ExpertMove {
 public:
  /// Throws kOutOfMemory; nothing has changed then. Models, transport and backend outlive the move.
  explicit ExpertMove(ExpertMoveArgs args);
  /// Drops what was prepared. After a failure with parts under way, call the transport's `abort` first.
  ~ExpertMove();
  ExpertMove(const ExpertMove&) = delete;
  ExpertMove& operator=(const ExpertMove&) = delete;

  /// Starts what travels in this step. Collective, and on a stream-ordered transport in one order with all
  /// batches of device memory.
  void post_parts();
  /// Waits for it. Throws kTimeout, and what the transport throws.
  void finish_parts(Deadline deadline);

  /// Makes the next plan current in all models. Call on all ranks between the same steps, when all parts have
  /// travelled.
  void commit();
  const DeploymentPlan& next() const { return args_.next; }

 private:
  std::vector<Message> messages_of(std::span<const PacedMove::Part> parts) const;

  ExpertMoveArgs args_;
  Ticket ticket_;
  std::unique_ptr<Event> done_;  // of the last batch, where the device moves it
};

}  // namespace aurora
