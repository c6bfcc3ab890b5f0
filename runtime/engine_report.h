// What a run came to: sums kept by rank 0 while serving, and what is gathered from all ranks at the end.
#pragma once

#include <array>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/engine.h"
#include "runtime/engine_protocol.h"
#include "runtime/executor/routing_replay.h"
#include "runtime/executor/served_model.h"
#include "runtime/executor/trace.h"
#include "runtime/rank_groups.h"
#include "runtime/request_assigner.h"

namespace aurora {

/// One model's sums over turns and the ranks that serve it; kept by their leader.
struct ModelTotals {
  std::int64_t steps = 0;
  std::int64_t num_exchanges = 0;
  std::int64_t sent_bytes = 0;
  std::int64_t undeduplicated_bytes = 0;
  std::int64_t float8_saved_bytes = 0;
  double bound_seconds = 0;
  double achieved_seconds = 0;  // per turn the slowest rank's
  double planning_seconds = 0;  // likewise
  double predicted_seconds = 0;
  std::array<std::int64_t, kNumOrderCandidates> chosen{};

  void add_turn(const std::vector<StepReply>& replies, const TurnShare& share);
};

/// By nearest rank; zeros without values.
Percentiles percentiles(std::vector<double> values);

/// Rank 0's, after the run.
struct GatheredRun {
  EngineReport report;
  std::vector<ModelTraffic> traffic;      // [model]
  std::vector<RoutingRecord> routing;     // [model], when collected
  std::vector<RankTrace> traces;          // [rank]
  std::vector<std::int64_t> preemptions;  // [model]
  std::vector<ModelTotals> totals;        // [model]
  std::vector<RequestCounts> counts;      // [model]
};

struct GatherArgs {
  const std::vector<std::unique_ptr<ServedModel>>& models;
  const TraceRecorder& trace;
  std::chrono::nanoseconds clock_offset;
  const RankGroup& group;                    // this rank's
  const std::vector<ModelTotals>& totals;    // [model], read on leaders
  const std::vector<RequestCounts>* counts;  // [model], on leaders
};

/// Collective. Fills all but the report on rank 0; empty elsewhere.
GatheredRun gather_run(Transport& transport, Deadline deadline, const GatherArgs& args);

struct ReportArgs {
  const std::vector<std::unique_ptr<ServedModel>>& models;
  const std::vector<RankGroup>& groups;
  double wall_seconds = 0;
  std::optional<DType> wire_dtype;
};

/// Fills `run.report`, and the measured times of `run.traffic`, from what was gathered.
void build_report(GatheredRun& run, const ReportArgs& args);

/// Sets what the steps of the report would have taken as planned, from the spans of one step of each model.
void add_planned_seconds(EngineReport& report, std::span<const PlannedSpan> of_step);

/// Writes the collected routing: `file` itself for a single model, else one file per model with the model's
/// name before the extension.
void write_routing(const GatheredRun& run, const std::filesystem::path& file,
                   const std::vector<std::unique_ptr<ServedModel>>& models);

}  // namespace aurora
