#include "runtime/executor/turn_executor.h"

#include <algorithm>
#include <string>
#include <vector>

#include "runtime/transport/wait.h"

namespace aurora {
namespace {

using Clock = std::chrono::steady_clock;

/// A part under way, and how far it has come.
struct Runner {
  const ModelTurn* turn;
  ModelStep* part;
  double progress = 0;
};

[[noreturn]] void report_stall(std::span<const Runner> runners, const SubmissionOrder& order,
                               const TurnArgs& args) {
  std::string text = "rank " + std::to_string(args.transport->rank()) + ": nothing moved for " +
                     std::to_string(args.timeout.count() / 1000) + " s; waiting";
  for (const Runner& runner : runners) {
    if (runner.part->is_done()) continue;
    text += " [model " + std::to_string(runner.part->model_index()) + ", layer " +
            std::to_string(runner.part->layer()) + ", " + std::string(phase_name(runner.part->phase())) +
            ": for " + std::string(runner.part->awaits(order)) + "]";
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

/// Advances the part that is furthest behind and can go on; false when none can. After each move the
/// priorities are looked at anew: compute may have taken long, and what waited may be there.
bool advance_one(std::vector<Runner>& runners, SubmissionOrder& order) {
  for (Runner& runner : runners) runner.progress = runner.turn->progress_of(*runner.part);
  std::ranges::stable_sort(runners, {}, &Runner::progress);
  return std::ranges::any_of(
      runners, [&](Runner& runner) { return !runner.part->is_done() && runner.part->advance(order); });
}

bool finish_steps(std::span<ModelTurn* const> turns) {
  bool has_moved = false;
  for (ModelTurn* turn : turns) has_moved = turn->finish_step() || has_moved;
  return has_moved;
}

/// Runs `turns`, which have begun, overlapping each other.
void run_together(std::span<ModelTurn* const> turns, const TurnArgs& args) {
  std::vector<Runner> runners;
  for (const ModelTurn* turn : turns) {
    for (const auto& part : turn->parts()) runners.push_back({turn, part.get()});
  }
  args.compute_turns->share_among(runners.size());
  SubmissionOrder order = submission_order_of(turns, args);
  IdleBackoff backoff = backoff_for(*args.transport);
  Clock::time_point last_move = Clock::now();
  while (!std::ranges::all_of(turns, [](const ModelTurn* turn) { return turn->is_done(); })) {
    const bool has_moved = advance_one(runners, order);
    if (finish_steps(turns) || has_moved) {
      backoff.reset();
      last_move = Clock::now();
      continue;
    }
    args.transport->progress();
    if (Clock::now() - last_move > args.timeout) report_stall(runners, order, args);
    backoff.pause();
  }
}

}  // namespace

SubmissionOrder submission_order_of(std::span<ModelTurn* const> turns, const TurnArgs& args) {
  std::vector<std::int64_t> num_exchanges(args.num_models * args.num_lanes, 0);
  for (const ModelTurn* turn : turns) {
    for (const auto& part : turn->parts()) {
      num_exchanges[turn->model_index() * args.num_lanes + part->lane_index()] = turn->num_exchanges();
    }
  }
  return SubmissionOrder(std::move(num_exchanges));
}

void run_turn(std::span<ModelTurn* const> turns, std::span<const TurnShare> shares, const TurnArgs& args) {
  const bool is_together = args.schedule == Schedule::kColocated;
  if (is_together) {
    for (std::size_t index = 0; index < turns.size(); ++index) turns[index]->begin(shares[index]);
    return run_together(turns, args);
  }
  for (std::size_t index = 0; index < turns.size(); ++index) {
    turns[index]->begin(shares[index]);
    run_together(turns.subspan(index, 1), args);
  }
}

}  // namespace aurora
