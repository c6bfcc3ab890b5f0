// What re-planning makes of a workload that changes while it is served: DeepSeek-V2-Lite's routing of one
// workload, then of another, on eight GPUs.
//
// The decisions are those of a server: the Replanner of runtime/replanner.h, told of each step what the ranks
// would tell it, plans, moves under its budget and switches. Tokens are drawn from the records; compute and
// ports are not run but predicted by layer_time.h, and the weights that travel in a step are added to it in
// full, as if nothing hid them. What a step takes under the plan that serves is compared with a plan made
// with hindsight from the whole second record by the planner's full search.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "benchmarks/suite.h"
#include "kernels/error.h"
#include "runtime/executor/traffic_recorder.h"
#include "runtime/plan_io/import_traffic.h"
#include "runtime/plan_io/plan_file.h"
#include "runtime/plan_io/routing_record.h"
#include "runtime/replanner.h"
#include "scheduler/expert_load.h"
#include "scheduler/random.h"

namespace aurora::bench {
namespace {

constexpr int kNumGpus = 8;
constexpr int kTokensPerStep = 64;  // of each rank
constexpr double kPortGbps = 100;
constexpr std::int64_t kStepsBefore = 1000;
/// Of the plan made with hindsight's throughput, to be reached within the horizon.
constexpr double kLeastRecovery = 0.95;

struct DriftCase {
  const char* name;
  ReplanMode mode;
  int num_replicas;
};

constexpr std::array kCases{
    DriftCase{"off", ReplanMode::kOff, 0},
    DriftCase{"interval", ReplanMode::kInterval, 0},
    DriftCase{"drift", ReplanMode::kDrift, 0},
    DriftCase{"drift,replicas=8", ReplanMode::kDrift, 8},
};

/// One recorded workload.
struct Workload {
  RoutingRecord record;
  ModelTraffic mean_step;  // of all its tokens
};

/// The costs of DeepSeek-V2-Lite in bfloat16 on a GPU that computes an expert's token in 0.3 us.
void set_costs(ModelTraffic& traffic) {
  constexpr double kHidden = 2048;
  constexpr double kInner = 1408;
  traffic.dispatch_bytes_per_token = 2 * kHidden;
  traffic.combine_bytes_per_token = 2 * kHidden;
  traffic.expert_bytes = 2 * 3 * kHidden * kInner;
  traffic.expert_us_per_token = 0.3;
}

Workload read_workload(const std::string& file) {
  Workload workload{read_routing_record(file), {}};
  ModelTraffic& traffic = workload.mean_step;
  traffic = traffic_of(workload.record, {.num_sources = kNumGpus, .max_samples = 256});
  traffic.model = "m";
  traffic.is_mean = true;
  set_costs(traffic);
  const double scale =
      static_cast<double>(kTokensPerStep) * kNumGpus / static_cast<double>(workload.record.num_tokens);
  for (LayerTraffic& layer : traffic.layers) {
    for (std::vector<double>& source : layer.dispatch) {
      for (double& count : source) count *= scale;
    }
  }
  return workload;
}

/// The ranks of a server as far as a Replanner knows them.
class SimulatedRanks {
 public:
  SimulatedRanks(const RoutingRecord& shape, std::uint64_t seed) : random_(seed) {
    for (int rank = 0; rank < kNumGpus; ++rank) {
      windows_.emplace_back(static_cast<int>(shape.num_layers), static_cast<int>(shape.num_experts),
                            static_cast<int>(shape.top_k), TrafficRecorder::kMaxSamples / 4);
    }
  }

  /// Every rank routes a step's tokens, drawn from the workload.
  void route(const RoutingRecord& record) {
    std::vector<std::int32_t> ids;
    for (TrafficRecorder& window : windows_) {
      std::array<std::size_t, kTokensPerStep> tokens{};
      for (std::size_t& token : tokens) token = random_.below(static_cast<std::size_t>(record.num_tokens));
      for (std::int64_t layer = 0; layer < record.num_layers; ++layer) {
        ids.clear();
        for (const std::size_t token : tokens) {
          const auto experts = record.experts_of(layer, static_cast<std::int64_t>(token));
          ids.insert(ids.end(), experts.begin(), experts.end());
        }
        window.record(static_cast<int>(layer), ids);
      }
    }
  }

  std::vector<StepReply> replies(bool with_traffic) {
    std::vector<StepReply> replies(windows_.size());
    for (std::size_t rank = 0; with_traffic && rank < windows_.size(); ++rank) {
      ByteWriter writer;
      windows_[rank].serialize(writer);
      windows_[rank].clear();
      replies[rank].traffic.models.emplace_back(writer.bytes().begin(), writer.bytes().end());
    }
    return replies;
  }

 private:
  Random random_;
  std::vector<TrafficRecorder> windows_;
};

/// A server that takes steps: which plan serves, and what a step takes.
class Server {
 public:
  Server(const DriftCase& drift, const Workload& first, const ClusterSpec& cluster, std::uint64_t seed)
      : cluster_(cluster), ranks_(first.record, seed) {
    ModelTraffic shape = uniform_traffic({.model = "m",
                                          .num_layers = static_cast<int>(first.record.num_layers),
                                          .num_experts = static_cast<int>(first.record.num_experts),
                                          .top_k = static_cast<int>(first.record.top_k),
                                          .num_gpus = kNumGpus});
    set_costs(shape);
    // Without recording anything, the first plan is the best that was known before the change.
    const bool is_off = drift.mode == ReplanMode::kOff;
    plan_ = plan_deployment({is_off ? &first.mean_step : &shape, 1}, cluster, PlacementPolicy::kAuto, {});
    if (is_off) return;
    ReplanOptions options;
    options.mode = drift.mode;
    options.plans_in_background = false;
    replanner_.emplace(ReplannerArgs{.options = options,
                                     .models = {shape},
                                     .is_recorded = {false},
                                     .cluster = cluster,
                                     .plan = plan_,
                                     .num_replicas = drift.num_replicas});
  }

  /// Takes a step of this workload; microseconds.
  double step_us(const Workload& workload) {
    if (&workload != judged_on_) judge(workload);
    if (!replanner_) return layers_us_;
    StepCommand command;
    replanner_->instruct(command);
    double moving_us = 0;
    switch (command.move.kind) {
      case MoveOrder::Kind::kPrepare:
        next_ = parse_plan(command.move.plan, "the replanner");
        move_ = PacedMove(command.move.transfers, kNumGpus, command.move.bytes_per_step);
        break;
      case MoveOrder::Kind::kTransfer:
        moving_us = transfer_us();
        break;
      case MoveOrder::Kind::kSwitch:
        check(move_.is_done(), "a plan serves when its experts are there");
        plan_ = next_;
        judge(workload);
        break;
      default:
        break;
    }
    ranks_.route(workload.record);
    replanner_->absorb(ranks_.replies(command.wants_traffic), (layers_us_ + moving_us) * 1e-6);
    return layers_us_ + moving_us;
  }

  ReplanReport report() { return replanner_ ? replanner_->report() : ReplanReport{}; }

 private:
  void judge(const Workload& workload) {
    judged_on_ = &workload;
    layers_us_ = step_time_us(plan_, {&workload.mean_step, 1}, cluster_);
  }

  double transfer_us() {
    std::vector<ExpertTransfer> parts;
    for (const PacedMove::Part& part : move_.next_step()) {
      parts.push_back(move_.transfers()[part.transfer_index]);
      parts.back().bytes = part.bytes;
    }
    return move_time_us(parts, cluster_);
  }

  const ClusterSpec& cluster_;
  SimulatedRanks ranks_;
  DeploymentPlan plan_, next_;
  PacedMove move_;
  std::optional<Replanner> replanner_;
  const Workload* judged_on_ = nullptr;
  double layers_us_ = 0;
};

double hindsight_us(const Workload& workload, const ClusterSpec& cluster, int num_replicas) {
  PlacementOptions options;
  options.num_replicas = num_replicas;
  options.robustness_price = 0;
  const std::vector<ModelTraffic> traffic{workload.mean_step};
  return step_time_us(plan_deployment(traffic, cluster, PlacementPolicy::kAuto, options), traffic, cluster);
}

Row drift_row(const DriftCase& drift, const std::array<Workload, 2>& workloads, std::uint64_t seed) {
  const ClusterSpec cluster = uniform_cluster(kNumGpus, kPortGbps);
  Server server(drift, workloads[0], cluster, seed);
  double before_us = 0;
  for (std::int64_t step = 0; step < kStepsBefore; ++step) before_us = server.step_us(workloads[0]);
  const double best_us = hindsight_us(workloads[1], cluster, drift.num_replicas);
  const std::int64_t horizon = ReplanOptions{}.horizon_steps;
  std::vector<double> steps_us;
  for (std::int64_t step = 0; step < horizon; ++step) steps_us.push_back(server.step_us(workloads[1]));
  // The step after which all steps of the horizon are fast enough.
  std::int64_t recovery = horizon;
  while (recovery > 0 && best_us / steps_us[recovery - 1] >= kLeastRecovery) --recovery;
  const double mean_us =
      std::accumulate(steps_us.begin(), steps_us.end(), 0.0) / static_cast<double>(steps_us.size());
  const ReplanReport report = server.report();
  std::int64_t moved = 0;
  for (const PlanSwitch& change : report.switches) moved += change.bytes_moved;
  Row row("drift", drift.name);
  row.set("median", steps_us.back() / best_us)
      .set("before_over_hindsight", before_us / hindsight_us(workloads[0], cluster, drift.num_replicas))
      .set("stale_over_hindsight", steps_us.front() / best_us)
      .set("hindsight_ms", best_us / 1e3)
      .set("recovered_percent", 100 * best_us / steps_us.back())
      .set("mean_over_hindsight", mean_us / best_us)
      .set("recovery_steps", recovery)
      .set("horizon_steps", horizon)
      .set("looks", report.num_looks)
      .set("plans_sought", report.num_evaluations)
      .set("switches", static_cast<std::int64_t>(report.switches.size()))
      .set("moved_gib", static_cast<double>(moved) / (1 << 30))
      .set("last_drift", report.last_drift)
      .set("wrong", static_cast<std::int64_t>(drift.mode != ReplanMode::kOff && recovery == horizon));
  return row;
}

}  // namespace

void run_drift_suite(const SuiteOptions& options, const RowVisitor& visit) {
  std::unique_ptr<std::array<Workload, 2>> workloads;
  for (const DriftCase& drift : kCases) {
    if (!options.wants(drift.name)) continue;
    if (workloads == nullptr) {
      workloads = std::make_unique<std::array<Workload, 2>>(
          std::array<Workload, 2>{read_workload(options.routing), read_workload(options.later_routing)});
    }
    visit(drift_row(drift, *workloads, options.seed));
  }
}

}  // namespace aurora::bench
