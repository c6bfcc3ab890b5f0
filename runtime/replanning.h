// Re-planning while serving: what is asked for, and what it came to.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/plan.h"

namespace aurora {

enum class ReplanMode : std::uint8_t {
  kOff,
  kInterval,  // think about another plan after every interval
  kDrift,     // look at the traffic after every interval, and think when it has drifted
};

struct ReplanNote {
  std::string line;
  bool is_routine = false;  // the plan stays, or does what it did when last looked at
};

struct ReplanOptions {
  ReplanMode mode = ReplanMode::kOff;
  std::int64_t interval_steps = 100;
  std::int64_t horizon_steps = 1000;                    // within which a move must pay
  std::int64_t half_life_steps = 200;                   // of traffic
  std::int64_t bytes_per_step = std::int64_t{4} << 20;  // of weights that a rank sends, and receives
  /// Drift (traffic_history.h) above which older traffic is forgotten, and kDrift thinks.
  double drift_threshold = 0.1;
  /// False: the step waits for the planner, and when it switches does not depend on time.
  bool plans_in_background = true;
  /// Asked instead of the planner, with the current plan; what it returns is moved to whatever it gains.
  std::function<std::optional<DeploymentPlan>(const DeploymentPlan& current)> propose;
  /// Rank 0's: one line about everything that is decided, with what is expected and what came of it.
  std::function<void(const ReplanNote& note)> on_note;
};

/// A change of plans: a stage of a move (scheduler/replan.h), or all of it. Times of a step are those of its
/// layers, predicted (scheduler/layer_time.h); measured ones are wall time of steps over the tokens in them,
/// a token once per pass through its model.
struct PlanSwitch {
  std::uint64_t epoch = 0;  // of the plan that it led to
  std::int64_t decided_step = 0;
  std::int64_t switched_step = 0;  // the first that it served
  std::int64_t layers_changed = 0;
  std::int64_t experts_moved = 0;
  std::int64_t bytes_moved = 0;
  double move_us = 0;  // at the busiest port
  // On the traffic that it was planned from: under the plan that served before, and under this one.
  double predicted_before_us = 0;
  double predicted_after_us = 0;
  // On the traffic that came since: 0 when none did, or none was looked at before the next change.
  double since_before_us = 0;
  double since_after_us = 0;
  double measured_before_us_per_token = 0;  // 0: not known
  double measured_after_us_per_token = 0;
};

struct ReplanReport {
  ReplanMode mode = ReplanMode::kOff;
  std::int64_t num_looks = 0;        // at the traffic of an interval
  std::int64_t num_evaluations = 0;  // in which another plan was sought
  double last_drift = 0;
  std::vector<PlanSwitch> switches;
  std::vector<std::string> failed_moves;  // why; the plan before went on serving
  double longest_pause_seconds = 0;       // that one step was longer by, on the slowest rank
  double pause_seconds = 0;               // of all steps
};

/// "off", "interval", "drift".
const char* replan_mode_name(ReplanMode mode);

}  // namespace aurora
