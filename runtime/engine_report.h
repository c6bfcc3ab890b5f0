// What a run came to: sums kept by rank 0 while serving, and what is gathered from all ranks at the end.
#pragma once

#include <array>
#include <chrono>
#include <filesystem>
#include <memory>
#include <vector>

#include "runtime/engine.h"
#include "runtime/engine_protocol.h"
#include "runtime/executor/routing_replay.h"
#include "runtime/executor/served_model.h"
#include "runtime/executor/trace.h"
#include "runtime/request_assigner.h"

namespace aurora {

/// One model's sums over steps and ranks.
struct ModelTotals {
  std::int64_t steps = 0;
  std::int64_t num_exchanges = 0;
  std::int64_t sent_bytes = 0;
  std::int64_t undeduplicated_bytes = 0;
  std::int64_t float8_saved_bytes = 0;
  double bound_seconds = 0;
  double achieved_seconds = 0;  // per step the slowest rank's
  double planning_seconds = 0;  // likewise
  double predicted_seconds = 0;
  std::array<std::int64_t, kNumOrderCandidates> chosen{};

  void add_step(const std::vector<StepReply>& replies, std::size_t model, int num_moe_layers);
};

/// Rank 0's, after the run.
struct GatheredRun {
  EngineReport report;
  std::vector<ModelTraffic> traffic;      // [model]
  std::vector<RoutingRecord> routing;     // [model], when collected
  std::vector<RankTrace> traces;          // [rank]
  std::vector<std::int64_t> preemptions;  // [model]
};

struct GatherArgs {
  const std::vector<std::unique_ptr<ServedModel>>& models;
  const TraceRecorder& trace;
  std::chrono::nanoseconds clock_offset;
};

/// Collective. Fills all but the report on rank 0; empty elsewhere.
GatheredRun gather_run(Transport& transport, Deadline deadline, const GatherArgs& args);

struct ReportArgs {
  const std::vector<std::unique_ptr<ServedModel>>& models;
  const std::vector<ModelTotals>& totals;
  const std::vector<RequestCounts>& counts;
  double wall_seconds = 0;
  int num_ranks = 1;
};

/// Fills `run.report`, and the measured times of `run.traffic`, from what was gathered.
void build_report(GatheredRun& run, const ReportArgs& args);

/// Writes the collected routing: `file` itself for a single model, else one file per model with the model's
/// name before the extension.
void write_routing(const GatheredRun& run, const std::filesystem::path& file,
                   const std::vector<std::unique_ptr<ServedModel>>& models);

}  // namespace aurora
