// Drives the models' shares of one turn on one rank to their end.
//
// All models of a turn that are to overlap are advanced together by one thread: whichever can go on goes on,
// so that one computes while another's exchange is under way. Of several that could compute, the one goes
// first that the plan's timeline lets go first (scheduler/timeline.h): the one that is furthest behind, in
// parts of its turn, and the earlier model on a tie, which for layers in step is G^b, F^a, F^b, A^a, A^b,
// G^a. Exchanges are submitted in one order on every rank (SubmissionOrder), and compute never overlaps on a
// device (ComputeTurns).
//
// kSerial and kTwoBatch run one model after the other, the latter with both halves of its batch overlapping.
#pragma once

#include <chrono>
#include <span>

#include "runtime/executor/model_turn.h"
#include "runtime/model_options.h"
#include "runtime/moe/compute_turns.h"
#include "runtime/transport/submission_order.h"
#include "runtime/transport/transport.h"

namespace aurora {

struct TurnArgs {
  std::size_t num_models = 0;  // bounds the model indices
  std::size_t num_lanes = 1;   // of each model
  Schedule schedule = Schedule::kColocated;
  std::chrono::milliseconds timeout{60000};
  Transport* transport = nullptr;
  ComputeTurns* compute_turns = nullptr;
};

/// The order in which a turn's exchanges are submitted: the same from the same shares on every rank. `turns`
/// have begun.
SubmissionOrder submission_order_of(std::span<ModelTurn* const> turns, const TurnArgs& args);

/// Begins `turns[i]` with `shares[i]` and ends all of them. Throws kTimeout naming model, layer and phase
/// when nothing has moved for the timeout, and what transport and backend throw.
void run_turn(std::span<ModelTurn* const> turns, std::span<const TurnShare> shares, const TurnArgs& args);

}  // namespace aurora
