// The engine: one object per rank, together a server for several MoE language models.
//
// All ranks construct an Engine with the same options and call `run`; rank 0 passes the feed. Construction is
// collective: it loads, plans and agrees; when any rank fails, all ranks throw, the failing one with the
// cause and the others with kAborted naming it. Attention is data-parallel (a request lives on one rank),
// experts are spread over all ranks as the plan says.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/dtype.h"
#include "runtime/model_options.h"
#include "runtime/replanning.h"
#include "runtime/request.h"
#include "runtime/transport/transport.h"
#include "scheduler/plan.h"

namespace aurora {

struct EngineOptions {
  std::vector<ModelOptions> models;
  std::string placement = "auto";  // auto, contiguous, ... (scheduler's table), or "file" with plan_file
  int num_replicas = 0;  // copies of hot experts beyond one of each, per model and layer; auto and eplb
  std::filesystem::path plan_file;  // read the placement from here instead
  OrderPolicy order = OrderPolicy::kAurora;
  std::filesystem::path fabric_file;  // of order auto: what exchanges cost; empty: measured at start
  double round_cost_us = 10;
  double port_gbps = 10;
  Schedule schedule = Schedule::kColocated;
  std::vector<int> rank_sequence;   // exclusive: in which models take ranks, a permutation; empty: ascending
  std::int64_t decode_steps = 4;    // of each model between two commands of rank 0 while all requests decode
  std::optional<DType> wire_dtype;  // of exchanged tokens; none: what the model computes in
  bool deterministic = false;
  bool record_trace = false;
  std::filesystem::path record_routing;      // empty: do not record
  std::chrono::milliseconds timeout{60000};  // deadline of every wait for another rank
  ReplanOptions replan;
  std::filesystem::path cluster_file;  // ports and speeds of the GPUs; empty: all alike, ports of port_gbps
  bool check_only =
      false;  // construct to validate and plan: weights are checked, not kept; `run` must not be called
};

/// Of times in seconds.
struct Percentiles {
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
};

/// Sums over all ranks; gathered at the end of `run` on rank 0.
struct EngineReport {
  /// Mean over ranks. Zeros where streams run behind the host and no trace is recorded: nobody looks when
  /// they compute.
  struct Overlap {
    double compute_seconds = 0;
    double exchange_seconds = 0;  // in which an exchange was under way
    double exposed_seconds = 0;   // of these, in which the rank computed nothing
    double utilisation = 0;       // compute over wall time
    double ratio = 0;             // of exchange time that was hidden under compute, 0 to 1
  };
  struct Model {
    std::string name;
    int num_ranks = 0;  // that serve it
    std::int64_t requests = 0;
    std::int64_t failed_requests = 0;
    std::int64_t prompt_tokens = 0;
    std::int64_t generated_tokens = 0;
    std::int64_t preemptions = 0;
    std::int64_t steps = 0;
    double tokens_per_second = 0;     // generated, over wall time
    Percentiles first_token_seconds;  // from a request's arrival
    Percentiles per_token_seconds;    // between a request's first token and its last, mean of the request
    Overlap overlap;                  // of the ranks that serve it
    // Exchanges of this model, dispatch and combine together.
    std::int64_t num_exchanges = 0;
    std::int64_t exchanged_bytes = 0;              // that left a rank
    std::int64_t bytes_without_deduplication = 0;  // had every (token, expert) pair travelled by itself
    std::int64_t float8_saved_bytes = 0;           // that dispatches would have carried more in bfloat16
    double bound_seconds = 0;                      // sum of makespan bounds at port_gbps
    double achieved_seconds = 0;                   // sum of the slowest rank's times
    double planning_seconds = 0;                   // sum of the slowest rank's times to choose and order
    // With order auto: sum of what was predicted for the orders chosen, and how often each was.
    double predicted_seconds = 0;
    std::vector<std::pair<std::string, std::int64_t>> orders;
    std::vector<std::pair<std::string, double>> phase_seconds;  // by phase name, mean over ranks
    /// The same as the planner's event simulation has it; attention is part of its gate.
    std::vector<std::pair<std::string, double>> planned_seconds;
    std::vector<std::vector<std::int64_t>> expert_tokens;  // [moe layer][expert]
  };
  double wall_seconds = 0;
  int num_ranks = 0;
  Overlap overlap;  // of all models
  std::vector<Model> models;
  ReplanReport replan;
};

class Engine {
 public:
  /// Collective. `transport` and `backend` must outlive the engine.
  Engine(EngineOptions options, Transport& transport, Backend& backend);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// The plan that serves: after `run` with re-planning not the one before.
  const DeploymentPlan& plan() const;

  /// Collective: serves until the feed is exhausted and every request is answered. `feed` is used on rank 0
  /// and null elsewhere. Throws on a rank's failure, on every rank.
  void run(RequestFeed* feed);

  /// Rank 0, after `run`.
  const EngineReport& report() const;
  /// Rank 0, after `run`: what was routed, in the form that planning takes.
  std::vector<ModelTraffic> traffic() const;
  /// Rank 0, after `run` with `record_trace`: Chrome trace events of all ranks as JSON.
  std::string trace_json() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace aurora
