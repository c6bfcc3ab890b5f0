// Drives one step of several models on one rank to its end.
//
// kSerial: one model after the other. kColocated: whichever model can go on goes on, so that one model
// computes while the other's exchange is under way. In both, every rank submits the exchanges in the same
// order.
#pragma once

#include <chrono>
#include <span>
#include <string>

#include "runtime/executor/model_step.h"
#include "runtime/model_options.h"
#include "runtime/transport/transport.h"

namespace aurora {

/// Steps all of `steps` once. `num_models` bounds their model indices. Throws kTimeout naming model, layer
/// and phase when nothing has moved for `timeout`, and what transport and backend throw.
void run_step(std::span<ModelStep* const> steps, std::size_t num_models, Schedule schedule,
              std::chrono::milliseconds timeout, Transport& transport);

}  // namespace aurora
