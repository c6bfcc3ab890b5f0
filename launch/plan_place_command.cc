#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <stdexcept>

#include "kernels/error.h"
#include "launch/output_file.h"
#include "launch/plan_commands.h"
#include "runtime/plan_io/cluster_file.h"
#include "runtime/plan_io/nearest_name.h"
#include "runtime/plan_io/plan_file.h"
#include "runtime/plan_io/traffic_file.h"
#include "scheduler/brute_force.h"
#include "scheduler/layer_time_bound.h"
#include "scheduler/placement.h"
#include "scheduler/placement_problem.h"
#include "scheduler/plan_evaluation.h"

namespace aurora {
namespace {

using nlohmann::json;

struct PlaceRow {
  std::string placement;
  PlanEvaluation prediction;
  double simulated_us = 0;  // per layer
  double planning_us = 0;
  std::vector<double> hindsight_us;  // [layer] of a plan made from the traffic that is judged by; or empty
  std::string failure;               // why this policy has no plan; empty: it has
};

PlacementPolicy chosen_policy(const std::string& name) {
  if (const auto policy = parse_placement_policy(name)) return *policy;
  std::vector<std::string> known;
  for (const PlacementPolicy policy : all_placement_policies())
    known.emplace_back(placement_policy_name(policy));
  throw Error(ErrorKind::kInvalidArgument,
              "--placement: unknown placement \"" + name + "\"" + suggest_name(name, known));
}

std::vector<ModelTraffic> read_traffic(const std::vector<std::filesystem::path>& files) {
  std::vector<ModelTraffic> models;
  std::set<std::string> names;
  for (const std::filesystem::path& file : files) {
    models.push_back(read_traffic_file(file));
    if (names.insert(models.back().model).second) continue;
    throw Error(ErrorKind::kInvalidArgument,
                file.string() + ": model \"" + models.back().model + "\" is in an earlier traffic file too");
  }
  return models;
}

/// Time over that of the plan made with hindsight.
double regret(double time_us, double hindsight_us) { return hindsight_us > 0 ? time_us / hindsight_us : 1; }

double regret(const PlaceRow& row) {
  const double hindsight_us = std::accumulate(row.hindsight_us.begin(), row.hindsight_us.end(), 0.0);
  return regret(row.prediction.mean_layer_time_us * static_cast<double>(row.hindsight_us.size()),
                hindsight_us);
}

/// What all rows are planned from and judged by.
struct PlaceInputs {
  ClusterSpec cluster;
  std::vector<ModelTraffic> models;
  std::vector<ModelTraffic> evaluated;  // empty: `models`
  PlacementOptions options;

  const std::vector<ModelTraffic>& judged() const { return evaluated.empty() ? models : evaluated; }
};

/// A policy's plan and its prediction. A policy that cannot place the models says why instead.
struct PlannedRow {
  PlaceRow row;
  std::optional<DeploymentPlan> plan;
};

void predict(PlaceRow& row, const DeploymentPlan& plan, const PlaceInputs& inputs) {
  row.prediction = evaluate_plan(plan, inputs.judged(), inputs.cluster);
  const Timeline timeline = simulate_plan(plan, inputs.judged(), inputs.cluster, Execution::kOverlapped);
  row.simulated_us = timeline.makespan_us / static_cast<double>(row.prediction.layer_time_us.size());
}

PlannedRow plan_row(PlacementPolicy policy, const PlaceInputs& inputs) {
  PlannedRow planned;
  planned.row.placement = placement_policy_name(policy);
  const auto start = std::chrono::steady_clock::now();
  try {
    planned.plan = plan_deployment(inputs.models, inputs.cluster, policy, inputs.options);
  } catch (const std::invalid_argument& error) {
    planned.row.failure = error.what();
    return planned;
  }
  planned.row.planning_us =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  predict(planned.row, *planned.plan, inputs);
  if (inputs.evaluated.empty()) return planned;
  const DeploymentPlan hindsight = plan_deployment(inputs.evaluated, inputs.cluster, policy, inputs.options);
  planned.row.hindsight_us = evaluate_plan(hindsight, inputs.evaluated, inputs.cluster).layer_time_us;
  return planned;
}

/// The proven optimum without replicas on the traffic that is judged by: by brute force over all placements
/// where there are few enough, by branch and bound where every GPU takes one expert of each of several
/// models.
std::optional<PlaceRow> optimum_row(const PlaceInputs& inputs) {
  const auto start = std::chrono::steady_clock::now();
  auto plan = brute_force_deployment(inputs.judged(), inputs.cluster);
  if (!plan) plan = proven_deployment(inputs.judged(), inputs.cluster);
  if (!plan) return std::nullopt;
  PlaceRow row;
  row.placement = plan->placement_policy;
  row.planning_us =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  predict(row, *plan, inputs);
  return row;
}

/// Mean over layers of what no placement without replicas gets below, on the traffic that is judged by.
double mean_bound_us(const PlaceInputs& inputs) {
  double sum_us = 0;
  const std::vector<LayerProblem> problems = layer_problems(inputs.judged(), inputs.cluster);
  for (const LayerProblem& problem : problems) sum_us += layer_time_bound_us(problem);
  return problems.empty() ? 0 : sum_us / static_cast<double>(problems.size());
}

std::string predicted_trace(const DeploymentPlan& plan, const PlaceInputs& inputs) {
  std::vector<std::string> names;
  for (const ModelTraffic& model : inputs.judged()) names.push_back(model.model);
  return timeline_trace_json(simulate_plan(plan, inputs.judged(), inputs.cluster, Execution::kOverlapped),
                             names);
}

/// Everything that is told of the plans.
struct PlaceReport {
  int num_gpus = 0;
  std::vector<PlaceRow> rows;      // the chosen policy's first
  std::optional<double> bound_us;  // of a layer without replicas
};

std::string as_json(const PlaceReport& report) {
  json list = json::array();
  for (const PlaceRow& row : report.rows) {
    json entry = {{"placement", row.placement}};
    if (!row.failure.empty()) {
      entry["error"] = row.failure;
    } else {
      entry["layer_time_us"] = row.prediction.mean_layer_time_us;
      entry["simulated_us"] = row.simulated_us;
      entry["utilisation"] = row.prediction.utilisation;
      entry["layers_us"] = row.prediction.layer_time_us;
      entry["planning_us"] = row.planning_us;
      if (!row.hindsight_us.empty()) {
        entry["regret"] = regret(row);
        entry["hindsight_layers_us"] = row.hindsight_us;
        for (std::size_t layer = 0; layer < row.hindsight_us.size(); ++layer) {
          entry["layers_regret"].push_back(
              regret(row.prediction.layer_time_us[layer], row.hindsight_us[layer]));
        }
      }
    }
    list.push_back(std::move(entry));
  }
  json document = {{"version", 1}, {"num_gpus", report.num_gpus}, {"placements", std::move(list)}};
  if (report.bound_us) document["bound_us"] = *report.bound_us;
  return document.dump(2) + "\n";
}

/// The regret of the chosen policy's plan, layer by layer.
std::string regret_table(const PlaceRow& row) {
  char line[80];
  std::snprintf(line, sizeof line, "\n%5s %14s %14s %8s\n", "layer", "layer_time_us", "hindsight_us",
                "regret");
  std::string text = line;
  for (std::size_t layer = 0; layer < row.hindsight_us.size(); ++layer) {
    const double time_us = row.prediction.layer_time_us[layer];
    std::snprintf(line, sizeof line, "%5zu %14.3f %14.3f %8.4f\n", layer, time_us, row.hindsight_us[layer],
                  regret(time_us, row.hindsight_us[layer]));
    text += line;
  }
  return text;
}

std::string as_table(const PlaceReport& report) {
  char line[160];
  std::snprintf(line, sizeof line, "%-14s %14s %13s %12s %8s %14s\n", "placement", "layer_time_us",
                "simulated_us", "utilisation", "regret", "planning_us");
  std::string text = line;
  for (const PlaceRow& row : report.rows) {
    std::snprintf(line, sizeof line, "%-14s ", row.placement.c_str());
    text += line;
    if (!row.failure.empty()) {
      text += row.failure + "\n";
      continue;
    }
    char total_regret[16] = "-";
    if (!row.hindsight_us.empty()) std::snprintf(total_regret, sizeof total_regret, "%.4f", regret(row));
    std::snprintf(line, sizeof line, "%14.3f %13.3f %12.4f %8s %14.1f\n", row.prediction.mean_layer_time_us,
                  row.simulated_us, row.prediction.utilisation, total_regret, row.planning_us);
    text += line;
  }
  if (report.bound_us) {
    std::snprintf(line, sizeof line, "%-14s %14.3f  no placement without replicas is faster\n", "bound",
                  *report.bound_us);
    text += line;
  }
  if (!report.rows.front().hindsight_us.empty()) text += regret_table(report.rows.front());
  return text;
}

/// All other policies, the proven optimum where feasible, and the bound.
void add_comparison(PlaceReport& report, PlacementPolicy chosen, const PlaceInputs& inputs) {
  for (const PlacementPolicy other : all_placement_policies()) {
    if (other != chosen) report.rows.push_back(plan_row(other, inputs).row);
  }
  if (auto row = optimum_row(inputs)) report.rows.push_back(std::move(*row));
  report.bound_us = mean_bound_us(inputs);
}

}  // namespace

std::string plan_place_command(const PlanPlaceOptions& options) {
  const PlacementPolicy policy = chosen_policy(options.placement);
  PlaceInputs inputs{
      read_cluster_file(options.cluster), read_traffic(options.traffic), read_traffic(options.evaluate), {}};
  inputs.options.seed = options.seed;
  inputs.options.num_replicas = options.num_replicas;
  inputs.options.robustness_price = options.robustness_price;
  try {
    PlannedRow chosen = plan_row(policy, inputs);
    if (!chosen.plan) throw Error(ErrorKind::kInvalidArgument, chosen.row.failure);
    if (!options.out.empty()) {
      OutputFile file(options.out);
      file.write(plan_text(*chosen.plan));
      file.commit();
    }
    if (!options.trace.empty()) {
      OutputFile file(options.trace);
      file.write(predicted_trace(*chosen.plan, inputs));
      file.commit();
    }
    PlaceReport report{inputs.cluster.num_gpus(), {chosen.row}, {}};
    if (options.is_comparing) add_comparison(report, policy, inputs);
    return options.is_json ? as_json(report) : as_table(report);
  } catch (const std::invalid_argument& error) {
    throw Error(ErrorKind::kInvalidArgument, error.what());
  }
}

}  // namespace aurora
