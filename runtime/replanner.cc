#include "runtime/replanner.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

#include "runtime/executor/traffic_recorder.h"
#include "runtime/plan_io/plan_file.h"
#include "runtime/rank_memory.h"

namespace aurora {
namespace {

/// Routed pairs for each expert of a layer before a plan is sought: a popularity is then known to within
/// about a fifth.
constexpr double kLeastPairsPerExpert = 32;
/// Of the search, per layer: a fourth of what a plan gets before serving. The search begins with the plan
/// that serves and not with nothing.
constexpr std::int64_t kSearchEvaluations = 10000;
/// Steps whose budget a stage of several layers may take. Short stages gain earlier, but use the ports less
/// evenly: all experts of DeepSeek-V2-Lite took 1.4 times the steps of one move in stages of 64 steps.
constexpr std::int64_t kStepsOfStage = 256;
/// Switches and failures that are remembered, so that a server may run for years.
constexpr std::size_t kMostRemembered = 1000;

template <class T>
void remember(std::vector<T>& list, T value) {
  if (list.size() == kMostRemembered) list.erase(list.begin());
  list.push_back(std::move(value));
}

/// "12.3".
std::string decimal(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

std::string percent_less(double before, double after) {
  return decimal(before > 0 ? 100 * (1 - after / before) : 0) + " % less";
}

std::string mebibytes(double bytes) { return decimal(bytes / (1 << 20)) + " MiB"; }

double sum_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

ExpertCounts counts_of(const ModelTraffic& model) {
  ExpertCounts counts;
  for (const LayerTraffic& layer : model.layers) {
    std::vector<double>& pairs = counts.emplace_back(static_cast<std::size_t>(model.num_experts), 0.0);
    for (const std::vector<double>& source : layer.dispatch) {
      for (std::size_t expert = 0; expert < source.size(); ++expert) pairs[expert] += source[expert];
    }
  }
  return counts;
}

int num_layers_changed(const DeploymentPlan& before, const DeploymentPlan& after) {
  int num_changed = 0;
  for (const ModelPlacement& model : after.models) {
    const ModelPlacement* old = before.find(model.model);
    check(old != nullptr && old->layers.size() == model.layers.size(), "plans place the same models");
    for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
      if (model.layers[layer] != old->layers[layer]) ++num_changed;
    }
  }
  return num_changed;
}

void check_options(const ReplanOptions& options) {
  const auto require_positive = [](const char* name, double value) {
    if (value > 0) return;
    throw Error(ErrorKind::kInvalidArgument, "re-planning: " + std::string(name) + " is " +
                                                 std::to_string(value) + "; it must be positive");
  };
  require_positive("interval_steps", static_cast<double>(options.interval_steps));
  require_positive("horizon_steps", static_cast<double>(options.horizon_steps));
  require_positive("half_life_steps", static_cast<double>(options.half_life_steps));
  require_positive("bytes_per_step", static_cast<double>(options.bytes_per_step));
}

ReplannerArgs checked(ReplannerArgs args) {
  check_options(args.options);
  return args;
}

}  // namespace

const char* replan_mode_name(ReplanMode mode) {
  switch (mode) {
    case ReplanMode::kInterval:
      return "interval";
    case ReplanMode::kDrift:
      return "drift";
    case ReplanMode::kOff:
      break;
  }
  return "off";
}

Replanner::Replanner(ReplannerArgs args)
    : args_(checked(std::move(args))),
      next_look_(args_.options.interval_steps),
      history_(args_.models, args_.cluster.num_gpus(), static_cast<double>(args_.options.half_life_steps)),
      since_switch_(args_.models, args_.cluster.num_gpus(), std::numeric_limits<double>::infinity()) {
  report_.mode = args_.options.mode;
  for (std::size_t model = 0; model < args_.models.size(); ++model) {
    reference_.push_back(args_.is_recorded[model] ? counts_of(args_.models[model]) : ExpertCounts{});
  }
}

Replanner::~Replanner() = default;

void Replanner::note(std::string line) const {
  if (args_.options.on_note) args_.options.on_note({.line = std::move(line)});
}

void Replanner::note_routine(std::string line) const {
  if (args_.options.on_note) args_.options.on_note({.line = std::move(line), .is_routine = true});
}

void Replanner::instruct(StepCommand& command) {
  ++step_;
  const bool is_found =
      stage_ == Stage::kPlanning && planning_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  if (is_found) {
    stage_ = Stage::kWatching;
    try {
      take_found(planning_.get());
    } catch (const std::exception& error) {
      note("re-planning failed, plan " + std::to_string(args_.plan.epoch) + " goes on: " + error.what());
    }
  }
  MoveOrder& move = command.move;
  command.wants_traffic = step_ >= next_look_;
  switch (stage_) {
    case Stage::kPreparing:
      move.kind = MoveOrder::Kind::kPrepare;
      move.plan = plan_text(next_.plan);
      move.transfers = next_.transfers;
      move.bytes_per_step = args_.options.bytes_per_step;
      break;
    case Stage::kTransferring:
      move.kind = MoveOrder::Kind::kTransfer;
      pace_.next_step();
      break;
    case Stage::kSwitching:
      move.kind = MoveOrder::Kind::kSwitch;
      finish_switch();
      return;
    case Stage::kAbandoning:
      move.kind = MoveOrder::Kind::kAbandon;
      stage_ = Stage::kWatching;
      return;
    case Stage::kWatching:
    case Stage::kPlanning:
      return;
  }
  // The last step of the old plan, so that no window is of two plans.
  command.wants_traffic = command.wants_traffic || pace_.is_done();
}

void Replanner::absorb(const std::vector<StepReply>& replies, double step_seconds) {
  window_pace_.seconds += step_seconds;
  double pause = 0;
  for (const StepReply& reply : replies) pause = std::max(pause, reply.move_seconds);
  report_.longest_pause_seconds = std::max(report_.longest_pause_seconds, pause);
  report_.pause_seconds += pause;
  if (!replies.front().traffic.models.empty()) absorb_traffic(replies);
  if (stage_ == Stage::kPreparing) {
    absorb_preparation(replies);
  } else if (stage_ == Stage::kTransferring && pace_.is_done()) {
    stage_ = Stage::kSwitching;
  }
  if (stage_ == Stage::kWatching && !stages_.empty()) begin_stage();
  if (stage_ == Stage::kWatching && std::exchange(must_plan_, false)) start_planning();
  if (step_ >= next_look_) look();
}

std::vector<std::vector<LayerTraffic>> Replanner::joined_windows(
    const std::vector<StepReply>& replies) const {
  std::vector<std::vector<LayerTraffic>> windows;
  for (std::size_t index = 0; index < args_.models.size(); ++index) {
    std::vector<ByteReader> recorded;
    for (const StepReply& reply : replies) recorded.emplace_back(reply.traffic.models[index]);
    ModelTraffic joined = args_.models[index];
    std::vector<std::vector<std::int64_t>> expert_tokens;
    merge_recorded_traffic(recorded, joined, expert_tokens);
    windows.push_back(std::move(joined.layers));
  }
  return windows;
}

void Replanner::absorb_traffic(const std::vector<StepReply>& replies) {
  devices_.clear();
  for (const StepReply& reply : replies) devices_.push_back(reply.traffic.device);
  const auto num_steps = static_cast<double>(step_ - std::exchange(window_start_, step_));
  const std::vector<std::vector<LayerTraffic>> windows = joined_windows(replies);
  history_.add(windows, num_steps);
  since_switch_.add(windows, num_steps);
  for (std::size_t model = 0; model < windows.size(); ++model) {
    const std::vector<double>& pairs = history_.window_counts()[model].front();
    window_pace_.tokens += sum_of(pairs) / args_.models[model].top_k;
  }
  recent_pace_.seconds += window_pace_.seconds;
  recent_pace_.tokens += window_pace_.tokens;
  window_pace_ = {};
}

void Replanner::look() {
  ++report_.num_looks;
  next_look_ = step_ + args_.options.interval_steps;
  if (stage_ != Stage::kWatching) return give_up_after_drift();
  if (args_.options.propose) {
    take_proposal();
  } else if (is_worth_planning()) {
    start_planning();
  }
}

bool Replanner::has_enough_traffic() const {
  for (std::size_t model = 0; model < args_.models.size(); ++model) {
    const double pairs = sum_of(history_.counts()[model].front());
    if (pairs >= kLeastPairsPerExpert * args_.models[model].num_experts) return true;
  }
  return false;
}

std::optional<double> Replanner::drift_of_window() const {
  std::optional<double> drift = 0;
  for (std::size_t model = 0; model < args_.models.size(); ++model) {
    const ExpertCounts& now = history_.window_counts()[model];
    if (sum_of(now.front()) == 0) continue;
    if (reference_[model].empty()) return std::nullopt;
    drift = std::max(*drift, model_drift(reference_[model], now));
  }
  return drift;
}

bool Replanner::is_worth_planning() {
  const std::optional<double> drift = drift_of_window();
  report_.last_drift = drift.value_or(0);
  if (!has_enough_traffic()) return false;
  if (drift && *drift > args_.options.drift_threshold) {
    note("traffic has drifted by " + decimal(100 * *drift) + " % at step " + std::to_string(step_));
    history_.forget_older();
    return true;
  }
  return args_.options.mode == ReplanMode::kInterval || !drift;
}

/// A move for traffic that is no more is given up, and another plan sought at once.
void Replanner::give_up_after_drift() {
  const std::optional<double> drift = drift_of_window();
  if (!drift || *drift <= args_.options.drift_threshold) return;
  stages_.clear();
  if (stage_ != Stage::kTransferring) return;
  note("traffic has drifted by " + decimal(100 * *drift) + " % at step " + std::to_string(step_) +
       " while experts moved: plan " + std::to_string(args_.plan.epoch) + " stays for now");
  history_.forget_older();
  stage_ = Stage::kAbandoning;
  must_plan_ = true;
}

std::optional<Replanner::Judgement> Replanner::judgement() const {
  if (!plan_before_ || since_switch_.num_steps() == 0) return std::nullopt;
  return Judgement{*plan_before_, args_.plan, since_switch_.mean_step()};
}

void Replanner::start_planning() {
  ++report_.num_evaluations;
  for (std::size_t model = 0; model < args_.models.size(); ++model) {
    if (sum_of(history_.counts()[model].front()) > 0) reference_[model] = history_.counts()[model];
  }
  PlacementOptions placement;
  placement.search_evaluations = kSearchEvaluations;
  placement.num_replicas = args_.num_replicas;
  placement.robustness_price = 0;  // the next workload gets a plan of its own
  auto seek = [plan = args_.plan, traffic = history_.mean_step(), cluster = args_.cluster, placement,
               horizon = static_cast<double>(args_.options.horizon_steps),
               stage_bytes = args_.options.bytes_per_step * kStepsOfStage, judged = judgement()] {
    Found found;
    if (judged) {
      found.since_us.emplace(step_time_us(judged->before, judged->traffic, cluster),
                             step_time_us(judged->after, judged->traffic, cluster));
    }
    const ReplanArgs args{.current = &plan,
                          .traffic = traffic,
                          .cluster = &cluster,
                          .horizon_steps = horizon,
                          .placement = placement};
    found.replan = replan(args);
    if (found.replan.pays(horizon)) found.stages = in_stages(found.replan, args, stage_bytes);
    return found;
  };
  stage_ = Stage::kPlanning;
  planning_ = std::async(std::launch::async, std::move(seek));
  if (!args_.options.plans_in_background) planning_.wait();
}

void Replanner::take_found(Found found) {
  if (found.since_us) judge_last_switch(*found.since_us);
  const Replan& replan = found.replan;
  const std::string gain = percent_less(replan.before_us, replan.after_us) + " of " +
                           decimal(replan.before_us) + " us for the layers of a step";
  if (found.stages.empty()) {
    note_routine("re-planning at step " + std::to_string(step_) + ": plan " +
                 std::to_string(args_.plan.epoch) + " stays, the best that pays within " +
                 std::to_string(args_.options.horizon_steps) + " steps takes " + gain);
    return;
  }
  double bytes = 0;
  for (const ExpertTransfer& transfer : replan.transfers) bytes += static_cast<double>(transfer.bytes);
  note("re-planning at step " + std::to_string(step_) + ": " + std::to_string(replan.transfers.size()) +
       " experts (" + mebibytes(bytes) + ") in " + std::to_string(replan.num_layers_changed) +
       " layers are to move in " + std::to_string(found.stages.size()) + " stages; predicted " + gain +
       ", which pays after " + decimal(replan.payback_steps()) + " steps");
  stages_.assign(found.stages.begin(), found.stages.end());
  begin_stage();
}

void Replanner::take_proposal() {
  const std::optional<DeploymentPlan> proposed = args_.options.propose(args_.plan);
  if (!proposed) return;
  ++report_.num_evaluations;
  Replan replan;
  replan.plan = *proposed;
  replan.plan.epoch = args_.plan.epoch + 1;
  validate(replan.plan);
  const std::vector<ModelTraffic> traffic = history_.mean_step();
  replan.before_us = step_time_us(args_.plan, traffic, args_.cluster);
  replan.after_us = step_time_us(replan.plan, traffic, args_.cluster);
  replan.transfers = transfers_between(args_.plan, replan.plan, traffic, args_.cluster);
  replan.move_us = move_time_us(replan.transfers, args_.cluster);
  replan.num_layers_changed = num_layers_changed(args_.plan, replan.plan);
  stages_ = {std::move(replan)};
  begin_stage();
}

std::optional<std::string> Replanner::shortage(const std::vector<ExpertTransfer>& transfers) const {
  std::vector<std::int64_t> added(devices_.size(), 0);
  for (const ExpertTransfer& transfer : transfers) added[transfer.destination.value] += transfer.bytes;
  return move_shortage(devices_, added);
}

void Replanner::begin_stage() {
  next_ = std::move(stages_.front());
  stages_.pop_front();
  decided_step_ = step_;
  if (const auto reason = shortage(next_.transfers)) return fail_move(*reason);
  pace_ = PacedMove(next_.transfers, args_.cluster.num_gpus(), args_.options.bytes_per_step);
  stage_ = Stage::kPreparing;
}

void Replanner::fail_move(const std::string& reason) {
  note("move to plan " + std::to_string(next_.plan.epoch) + " abandoned, plan " +
       std::to_string(args_.plan.epoch) + " goes on: " + reason);
  remember(report_.failed_moves, reason);
  stages_.clear();
  stage_ = Stage::kWatching;
}

void Replanner::absorb_preparation(const std::vector<StepReply>& replies) {
  for (std::size_t rank = 0; rank < replies.size(); ++rank) {
    if (replies[rank].move_failure.empty()) continue;
    fail_move("rank " + std::to_string(rank) + ": " + replies[rank].move_failure);
    stage_ = Stage::kAbandoning;
    return;
  }
  stage_ = pace_.is_done() ? Stage::kSwitching : Stage::kTransferring;
}

void Replanner::finish_switch() {
  PlanSwitch change;
  change.epoch = next_.plan.epoch;
  change.decided_step = decided_step_;
  change.switched_step = step_;
  change.layers_changed = next_.num_layers_changed;
  change.experts_moved = static_cast<std::int64_t>(next_.transfers.size());
  for (const ExpertTransfer& transfer : next_.transfers) change.bytes_moved += transfer.bytes;
  change.move_us = next_.move_us;
  change.predicted_before_us = next_.before_us;
  change.predicted_after_us = next_.after_us;
  change.measured_before_us_per_token = recent_pace_.us_per_token();
  note("plan " + std::to_string(change.epoch) + " serves from step " + std::to_string(step_) + ": " +
       std::to_string(change.experts_moved) + " experts moved, predicted " +
       percent_less(change.predicted_before_us, change.predicted_after_us) + " for the layers of a step");
  if (!report_.switches.empty()) {
    report_.switches.back().measured_after_us_per_token = recent_pace_.us_per_token();
  }
  remember(report_.switches, change);
  plan_before_ = std::exchange(args_.plan, std::move(next_.plan));
  recent_pace_ = {};
  is_judged_ = false;
  since_switch_ =
      TrafficHistory(args_.models, args_.cluster.num_gpus(), std::numeric_limits<double>::infinity());
  stage_ = Stage::kWatching;
}

void Replanner::judge_last_switch(const std::pair<double, double>& since_us) {
  PlanSwitch& change = report_.switches.back();
  std::tie(change.since_before_us, change.since_after_us) = since_us;
  change.measured_after_us_per_token = recent_pace_.us_per_token();
  std::string line = "plan " + std::to_string(change.epoch) + ": on the traffic since, " +
                     percent_less(change.since_before_us, change.since_after_us) +
                     " predicted for the layers of a step (" +
                     percent_less(change.predicted_before_us, change.predicted_after_us) +
                     " was expected); measured " + decimal(change.measured_before_us_per_token) +
                     " us per token before and " + decimal(change.measured_after_us_per_token) + " since";
  if (std::exchange(is_judged_, true)) return note_routine(std::move(line));
  note(std::move(line));
}

ReplanReport Replanner::report() {
  if (const std::optional<Judgement> judged = judgement()) {
    judge_last_switch({step_time_us(judged->before, judged->traffic, args_.cluster),
                       step_time_us(judged->after, judged->traffic, args_.cluster)});
  }
  return report_;
}

}  // namespace aurora
