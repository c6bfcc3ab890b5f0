// Rank 0's side of re-planning: keeps the traffic of all ranks, seeks a better plan now and then, and leads
// the ranks from the plan that serves to the next.
//
// One step after the other: `instruct` adds to a step's command what the ranks are to do besides stepping the
// models, `absorb` takes their replies. Every interval the ranks report their traffic. When it is time (or
// the traffic has drifted), a thread of its own seeks a plan (scheduler/replan.h) while the models go on. A
// plan that pays is gone to in stages of some layers each (scheduler/replan.h). A stage is prepared on all
// ranks; when one of them has not the memory, all forget it and what was to follow. Then weights travel step
// by step, and a last command switches all ranks at once. At no time do two ranks serve by different plans.
//
// Nothing here waits for another rank, and nothing but the planner's thread takes long. What fails, other
// than the ranks themselves, is noted and leaves the plan as it is.
#pragma once

#include <cstdint>
#include <deque>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine_protocol.h"
#include "runtime/replanning.h"
#include "scheduler/cluster.h"
#include "scheduler/placement.h"
#include "scheduler/plan.h"
#include "scheduler/plan_move.h"
#include "scheduler/replan.h"
#include "scheduler/traffic_history.h"

namespace aurora {

struct ReplannerArgs {
  ReplanOptions options;
  /// Names, sizes and costs of the models. Where `is_recorded`, the plan was made from these layers.
  std::vector<ModelTraffic> models;
  std::vector<bool> is_recorded;
  ClusterSpec cluster;
  DeploymentPlan plan;  // that serves
  int num_replicas = 0;
};

class Replanner {
 public:
  /// Throws kInvalidArgument for options out of range.
  explicit Replanner(ReplannerArgs args);
  /// Waits for the planner's thread.
  ~Replanner();
  Replanner(const Replanner&) = delete;
  Replanner& operator=(const Replanner&) = delete;

  /// Completes the command of a step that is about to be taken.
  void instruct(StepCommand& command);
  /// The replies to that command, by rank, and how long the step took.
  void absorb(const std::vector<StepReply>& replies, double step_seconds);
  /// What it came to, with what came of the last switch. A move under way is over.
  ReplanReport report();

 private:
  enum class Stage : std::uint8_t {
    kWatching,
    kPlanning,
    kPreparing,
    kTransferring,
    kSwitching,
    kAbandoning
  };
  /// Time and tokens of steps since a point: what steps take is measured by.
  struct Pace {
    double seconds = 0;
    double tokens = 0;
    double us_per_token() const { return tokens > 0 ? seconds * 1e6 / tokens : 0; }
  };
  /// What a switch is judged by afterwards.
  struct Judgement {
    DeploymentPlan before;
    DeploymentPlan after;
    std::vector<ModelTraffic> traffic;
  };
  struct Found {
    Replan replan;
    std::vector<Replan> stages;                         // of it, when it pays
    std::optional<std::pair<double, double>> since_us;  // of the last switch: under the plan before and now
  };

  void absorb_traffic(const std::vector<StepReply>& replies);
  std::vector<std::vector<LayerTraffic>> joined_windows(const std::vector<StepReply>& replies) const;
  void look();
  std::optional<double> drift_of_window() const;
  bool is_worth_planning();
  void give_up_after_drift();
  bool has_enough_traffic() const;
  void start_planning();
  std::optional<Judgement> judgement() const;
  void take_found(Found found);
  void take_proposal();
  void begin_stage();
  std::optional<std::string> shortage(const std::vector<ExpertTransfer>& transfers) const;
  void absorb_preparation(const std::vector<StepReply>& replies);
  void finish_switch();
  void fail_move(const std::string& reason);
  void judge_last_switch(const std::pair<double, double>& since_us);
  void note(std::string line) const;
  void note_routine(std::string line) const;

  ReplannerArgs args_;
  ReplanReport report_;
  Stage stage_ = Stage::kWatching;
  std::int64_t step_ = 0;
  std::int64_t next_look_ = 0;

  TrafficHistory history_;
  std::vector<ExpertCounts> reference_;  // [model] that the plan was made from; empty: not known
  std::vector<DeviceMemory> devices_;    // [rank] when last reported
  std::int64_t window_start_ = 0;        // step
  Pace window_pace_;                     // since then
  Pace recent_pace_;                     // of the windows under the current plan, since the last drift

  std::future<Found> planning_;
  std::deque<Replan> stages_;  // that are still to come
  Replan next_;                // while it is being moved to
  std::int64_t decided_step_ = 0;
  bool must_plan_ = false;                     // at the next chance, whatever the traffic
  PacedMove pace_;                             // the ranks', walked along to know when it ends
  std::optional<DeploymentPlan> plan_before_;  // the last switch
  TrafficHistory since_switch_;
  bool is_judged_ = false;  // the last switch has been, at least once
};

}  // namespace aurora
