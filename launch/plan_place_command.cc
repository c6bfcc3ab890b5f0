#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
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
#include "scheduler/placement.h"
#include "scheduler/plan_evaluation.h"

namespace aurora {
namespace {

using nlohmann::json;

struct PlaceRow {
  std::string placement;
  PlanEvaluation prediction;
  double simulated_us = 0;  // per layer
  double planning_us = 0;
  std::optional<double> regret;
  std::string failure;  // why this policy has no plan; empty: it has
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
  const double best_us = evaluate_plan(hindsight, inputs.evaluated, inputs.cluster).mean_layer_time_us;
  if (best_us > 0) planned.row.regret = planned.row.prediction.mean_layer_time_us / best_us;
  return planned;
}

/// Brute force over all placements without replicas, where there are few enough; of the traffic that is
/// judged by.
std::optional<PlaceRow> brute_force_row(const PlaceInputs& inputs) {
  const auto start = std::chrono::steady_clock::now();
  const auto plan = brute_force_deployment(inputs.judged(), inputs.cluster);
  if (!plan) return std::nullopt;
  PlaceRow row;
  row.placement = "brute-force";
  row.planning_us =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  predict(row, *plan, inputs);
  return row;
}

std::string predicted_trace(const DeploymentPlan& plan, const PlaceInputs& inputs) {
  std::vector<std::string> names;
  for (const ModelTraffic& model : inputs.judged()) names.push_back(model.model);
  return timeline_trace_json(simulate_plan(plan, inputs.judged(), inputs.cluster, Execution::kOverlapped),
                             names);
}

std::string as_json(const std::vector<PlaceRow>& rows, const ClusterSpec& cluster) {
  json list = json::array();
  for (const PlaceRow& row : rows) {
    json entry = {{"placement", row.placement}};
    if (!row.failure.empty()) {
      entry["error"] = row.failure;
    } else {
      entry["layer_time_us"] = row.prediction.mean_layer_time_us;
      entry["simulated_us"] = row.simulated_us;
      entry["utilisation"] = row.prediction.utilisation;
      entry["layers_us"] = row.prediction.layer_time_us;
      entry["planning_us"] = row.planning_us;
      if (row.regret) entry["regret"] = *row.regret;
    }
    list.push_back(std::move(entry));
  }
  const json document = {{"version", 1}, {"num_gpus", cluster.num_gpus()}, {"placements", std::move(list)}};
  return document.dump(2) + "\n";
}

std::string as_table(const std::vector<PlaceRow>& rows) {
  char line[160];
  std::snprintf(line, sizeof line, "%-14s %14s %13s %12s %8s %14s\n", "placement", "layer_time_us",
                "simulated_us", "utilisation", "regret", "planning_us");
  std::string text = line;
  for (const PlaceRow& row : rows) {
    std::snprintf(line, sizeof line, "%-14s ", row.placement.c_str());
    text += line;
    if (!row.failure.empty()) {
      text += row.failure + "\n";
      continue;
    }
    char regret[16] = "-";
    if (row.regret) std::snprintf(regret, sizeof regret, "%.4f", *row.regret);
    std::snprintf(line, sizeof line, "%14.3f %13.3f %12.4f %8s %14.1f\n", row.prediction.mean_layer_time_us,
                  row.simulated_us, row.prediction.utilisation, regret, row.planning_us);
    text += line;
  }
  return text;
}

}  // namespace

std::string plan_place_command(const PlanPlaceOptions& options) {
  const PlacementPolicy policy = chosen_policy(options.placement);
  PlaceInputs inputs{
      read_cluster_file(options.cluster), read_traffic(options.traffic), read_traffic(options.evaluate), {}};
  inputs.options.seed = options.seed;
  inputs.options.num_replicas = options.num_replicas;
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
    std::vector<PlaceRow> rows{chosen.row};
    for (const PlacementPolicy other : all_placement_policies()) {
      if (options.is_comparing && other != policy) rows.push_back(plan_row(other, inputs).row);
    }
    if (options.is_comparing) {
      if (auto row = brute_force_row(inputs)) rows.push_back(std::move(*row));
    }
    return options.is_json ? as_json(rows, inputs.cluster) : as_table(rows);
  } catch (const std::invalid_argument& error) {
    throw Error(ErrorKind::kInvalidArgument, error.what());
  }
}

}  // namespace aurora
