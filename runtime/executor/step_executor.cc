#include "runtime/executor/step_executor.h"

#include "runtime/transport/wait.h"

namespace aurora {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void report_stall(std::span<ModelStep* const> steps, std::chrono::milliseconds timeout,
                               int rank) {
  std::string text = "rank " + std::to_string(rank) + ": nothing moved for " +
                     std::to_string(timeout.count() / 1000) + " s; waiting in";
  for (const ModelStep* step : steps) {
    if (step->is_done()) continue;
    text += " [model " + std::to_string(step->model_index()) + ", layer " + std::to_string(step->layer()) +
            ", " + std::string(phase_name(step->phase())) + "]";
  }
  throw Error(ErrorKind::kTimeout, text + "; another rank is stuck or gone (--timeout sets the limit)");
}

/// A sleep ends some 60 us late, which a step that waits for its device's counts in every layer would pay as
/// often. Where ranks compute on GPUs, or there is one rank, no other rank wants the core meanwhile.
IdleBackoff backoff_for(const Transport& transport) {
  constexpr std::chrono::microseconds kLongestSleep(50);
  constexpr std::chrono::milliseconds kLongestPhase(2);
  const bool has_core_to_itself = transport.is_stream_ordered() || transport.num_ranks() == 1;
  return has_core_to_itself ? IdleBackoff(kLongestSleep, kLongestPhase) : IdleBackoff(kLongestSleep);
}

/// Advances `steps` in turn until all are done.
void run_interleaved(std::span<ModelStep* const> steps, std::size_t num_models,
                     std::chrono::milliseconds timeout, Transport& transport) {
  std::vector<std::int64_t> num_exchanges(num_models, 0);
  for (const ModelStep* step : steps) num_exchanges[step->model_index()] = step->num_exchanges();
  SubmissionOrder order(std::move(num_exchanges));
  for (ModelStep* step : steps) step->begin();

  IdleBackoff backoff = backoff_for(transport);
  Clock::time_point last_move = Clock::now();
  for (;;) {
    bool has_moved = false;
    bool all_done = true;
    for (ModelStep* step : steps) {
      if (!step->is_done()) has_moved = step->advance(order) || has_moved;
      all_done = all_done && step->is_done();
    }
    if (all_done) return;
    if (has_moved) {
      backoff.reset();
      last_move = Clock::now();
      continue;
    }
    transport.progress();
    if (Clock::now() - last_move > timeout) report_stall(steps, timeout, transport.rank());
    backoff.pause();
  }
}

}  // namespace

void run_step(std::span<ModelStep* const> steps, std::size_t num_models, Schedule schedule,
              std::chrono::milliseconds timeout, Transport& transport) {
  if (schedule == Schedule::kColocated) {
    run_interleaved(steps, num_models, timeout, transport);
    return;
  }
  for (std::size_t index = 0; index < steps.size(); ++index) {
    run_interleaved(steps.subspan(index, 1), num_models, timeout, transport);
  }
}

}  // namespace aurora
