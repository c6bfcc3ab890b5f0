#include "runtime/deployment.h"

#include <algorithm>
#include <stdexcept>

#include "runtime/dispatch/row_layout.h"
#include "runtime/plan_io/cluster_file.h"
#include "runtime/plan_io/plan_file.h"
#include "runtime/plan_io/traffic_file.h"
#include "scheduler/cluster.h"
#include "scheduler/expert_load.h"
#include "scheduler/placement.h"

namespace aurora {
namespace {

using Models = std::vector<std::unique_ptr<ServedModel>>;

[[noreturn]] void refuse(ErrorKind kind, const std::string& text) { throw Error(kind, text); }

/// The traffic to plan one model with: recorded, or uniform when there is no record.
ModelTraffic traffic_of(const ServedModel& model, const EngineOptions& options, int num_ranks) {
  const ModelConfig& config = model.config();
  const auto& file = model.options().traffic;
  ModelTraffic traffic = file.empty() ? uniform_traffic({.model = model.options().name,
                                                         .num_layers = model.num_moe_layers(),
                                                         .num_experts = static_cast<int>(config.num_experts),
                                                         .top_k = static_cast<int>(config.top_k),
                                                         .num_gpus = num_ranks})
                                      : read_traffic_file(file);
  const auto require = [&](const char* what, std::int64_t have, std::int64_t want) {
    if (have == want) return;
    refuse(ErrorKind::kInvalidArgument, file.string() + ": " + what + " is " + std::to_string(have) +
                                            ", model " + model.options().name + " has " +
                                            std::to_string(want));
  };
  require("experts", traffic.num_experts, config.num_experts);
  require("top_k", traffic.top_k, config.top_k);
  require("number of layers", static_cast<std::int64_t>(traffic.layers.size()), model.num_moe_layers());
  // What a row weighs is decided here, not where the traffic was recorded.
  const RowLayout layout(config.hidden, options.wire_dtype, static_cast<int>(config.top_k));
  traffic.model = model.options().name;
  traffic.dispatch_bytes_per_token = static_cast<double>(layout.row_bytes());
  traffic.combine_bytes_per_token = static_cast<double>(layout.return_row_bytes());
  traffic.expert_bytes = static_cast<double>(model.expert_weight_bytes());
  return traffic;
}

ClusterSpec cluster_of(const EngineOptions& options, int num_ranks) {
  if (options.cluster_file.empty()) return uniform_cluster(num_ranks, options.port_gbps);
  ClusterSpec cluster = read_cluster_file(options.cluster_file);
  if (cluster.num_gpus() != num_ranks) {
    refuse(ErrorKind::kInvalidArgument, options.cluster_file.string() + ": describes " +
                                            std::to_string(cluster.num_gpus()) + " GPUs, but there are " +
                                            std::to_string(num_ranks) + " ranks; each rank drives one");
  }
  return cluster;
}

/// A plan file must place exactly the loaded models, on exactly these ranks.
DeploymentPlan read_matching_plan(const std::filesystem::path& file, const Models& models, int num_ranks) {
  DeploymentPlan plan = read_plan_file(file);
  if (plan.num_gpus != num_ranks) {
    refuse(ErrorKind::kInvalidArgument, file.string() + ": is for " + std::to_string(plan.num_gpus) +
                                            " GPUs, but there are " + std::to_string(num_ranks) + " ranks");
  }
  for (const auto& model : models) {
    const std::string& name = model->options().name;
    const ModelPlacement* placement = plan.find(name);
    if (placement == nullptr)
      refuse(ErrorKind::kInvalidArgument, file.string() + ": does not place model " + name);
    const bool has_layers = placement->layers.size() == static_cast<std::size_t>(model->num_moe_layers());
    const bool has_experts = std::ranges::all_of(placement->layers, [&](const LayerPlacement& layer) {
      return layer.num_experts() == model->config().num_experts;
    });
    if (has_layers && has_experts) continue;
    refuse(ErrorKind::kInvalidArgument, file.string() + ": places model " + name +
                                            " with other layers or experts; it has " +
                                            std::to_string(model->num_moe_layers()) + " MoE layers of " +
                                            std::to_string(model->config().num_experts) + " experts");
  }
  plan.placement_policy = "file";
  return plan;
}

PlacementPolicy placement_policy_of(const EngineOptions& options) {
  const auto policy = parse_placement_policy(options.placement);
  if (policy) return *policy;
  std::string known;
  for (const PlacementPolicy each : all_placement_policies()) {
    known += (known.empty() ? "" : ", ") + std::string(placement_policy_name(each));
  }
  refuse(ErrorKind::kInvalidArgument, "unknown placement \"" + options.placement + "\"; known are " + known);
}

}  // namespace

PlanningInputs planning_inputs_of(const EngineOptions& options, const Models& models, int num_ranks) {
  PlanningInputs inputs;
  for (const auto& model : models) inputs.traffic.push_back(traffic_of(*model, options, num_ranks));
  inputs.cluster = cluster_of(options, num_ranks);
  return inputs;
}

DeploymentPlan plan_deployment_of(const EngineOptions& options, const Models& models, int num_ranks) {
  DeploymentPlan plan;
  if (!options.plan_file.empty()) {
    plan = read_matching_plan(options.plan_file, models, num_ranks);
  } else {
    const PlacementPolicy policy = placement_policy_of(options);
    PlacementOptions placement_options;
    placement_options.num_replicas = options.num_replicas;
    const PlanningInputs inputs = planning_inputs_of(options, models, num_ranks);
    try {
      plan = plan_deployment(inputs.traffic, inputs.cluster, policy, placement_options);
    } catch (const std::invalid_argument& error) {
      refuse(ErrorKind::kInvalidArgument, error.what());
    }
  }
  plan.order_policy = options.order;
  return plan;
}

ExchangePolicy exchange_policy_of(const EngineOptions& options, int num_ranks) {
  ExchangePolicy policy;
  policy.order = options.order;
  policy.options.round_cost_us = options.round_cost_us;
  policy.options.default_port = options.port_gbps * kBytesPerUsOfGbps;
  if (!options.cluster_file.empty()) policy.options.ports = port_bandwidths(cluster_of(options, num_ranks));
  return policy;
}

}  // namespace aurora
