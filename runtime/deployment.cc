#include "runtime/deployment.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "runtime/dispatch/row_layout.h"
#include "runtime/plan_io/cluster_file.h"
#include "runtime/plan_io/plan_file.h"
#include "runtime/plan_io/traffic_file.h"
#include "scheduler/cluster.h"
#include "scheduler/expert_load.h"
#include "scheduler/placement.h"
#include "scheduler/two_tier_network.h"

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
  const RowLayout layout = model.row_layout(options.wire_dtype);
  traffic.model = model.options().name;
  traffic.dispatch_bytes_per_token = static_cast<double>(layout.row_bytes());
  traffic.combine_bytes_per_token = static_cast<double>(layout.return_row_bytes());
  traffic.expert_bytes = static_cast<double>(model.expert_weight_bytes());
  return traffic;
}

/// `placement` may be const, and then so is what `use` gets.
template <class Placement, class Use>
void for_each_replica(Placement& placement, const Use& use) {
  for (auto& layer : placement.layers) {
    for (auto& replicas : layer.experts) {
      for (auto& replica : replicas) use(replica);
    }
  }
}

void check_on_group(const std::filesystem::path& file, const ModelPlacement& placement,
                    const RankGroup& group) {
  for_each_replica(placement, [&](const ExpertReplica& replica) {
    if (std::ranges::binary_search(group.ranks, replica.gpu.value)) return;
    refuse(ErrorKind::kInvalidArgument,
           file.string() + ": places an expert of model " + placement.model + " on GPU " +
               std::to_string(replica.gpu.value) + "; with --schedule exclusive the model has ranks " +
               std::to_string(group.ranks.front()) + " to " + std::to_string(group.ranks.back()));
  });
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

/// Where nothing says what experts cost, their compute counts as much as their rows' way over a mean port,
/// there and back: a plan from exchanges alone may heap experts on some GPUs as long as the ports stay even.
void assume_expert_cost(ModelTraffic& traffic, const ClusterSpec& cluster) {
  if (traffic.expert_us_per_token > 0 || traffic.expert_us_per_hit > 0) return;
  const std::vector<double> ports = port_bandwidths(cluster);
  const double mean_port =
      std::accumulate(ports.begin(), ports.end(), 0.0) / static_cast<double>(ports.size());
  traffic.expert_us_per_token =
      (traffic.dispatch_bytes_per_token + traffic.combine_bytes_per_token) / mean_port;
}

ClusterSpec cluster_of_group(const ClusterSpec& cluster, const RankGroup& group) {
  ClusterSpec part = cluster;
  part.gpus.clear();
  for (const int rank : group.ranks) part.gpus.push_back(cluster.gpus[static_cast<std::size_t>(rank)]);
  return part;
}

/// Plans the group's models on its ranks and adds them to `plan`.
void plan_group(const EngineOptions& options, const Models& models, const RankGroup& group,
                DeploymentPlan& plan) {
  const auto num_ranks = static_cast<int>(group.ranks.size());
  const PlacementPolicy policy = placement_policy_of(options);
  PlacementOptions placement_options;
  placement_options.num_replicas = options.num_replicas;
  const ClusterSpec cluster = cluster_of_group(cluster_of(options, plan.num_gpus), group);
  std::vector<ModelTraffic> traffic;
  for (const std::size_t model : group.models) {
    traffic.push_back(traffic_of(*models[model], options, num_ranks));
    assume_expert_cost(traffic.back(), cluster);
  }
  DeploymentPlan part;
  try {
    part = plan_deployment(traffic, cluster, policy, placement_options);
  } catch (const std::invalid_argument& error) {
    refuse(ErrorKind::kInvalidArgument, error.what());
  }
  plan.placement_policy = part.placement_policy;
  for (ModelPlacement& placement : part.models) {
    for_each_replica(placement, [&](ExpertReplica& replica) {
      replica.gpu = GpuId{group.ranks[static_cast<std::size_t>(replica.gpu.value)]};
    });
    plan.models.push_back(std::move(placement));
  }
}

}  // namespace

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

PlanningInputs planning_inputs_of(const EngineOptions& options, const Models& models, int num_ranks) {
  PlanningInputs inputs;
  for (const auto& model : models) inputs.traffic.push_back(traffic_of(*model, options, num_ranks));
  inputs.cluster = cluster_of(options, num_ranks);
  return inputs;
}

DeploymentPlan plan_deployment_of(const EngineOptions& options, const Models& models,
                                  const std::vector<RankGroup>& groups) {
  int num_ranks = 0;
  for (const RankGroup& group : groups) num_ranks += static_cast<int>(group.ranks.size());
  DeploymentPlan plan;
  plan.num_gpus = num_ranks;
  if (options.plan_file.empty()) {
    for (const RankGroup& group : groups) plan_group(options, models, group, plan);
  } else {
    plan = read_matching_plan(options.plan_file, models, num_ranks);
    for (const RankGroup& group : groups) {
      for (const std::size_t model : group.models) {
        check_on_group(options.plan_file, *plan.find(models[model]->options().name), group);
      }
    }
  }
  plan.order_policy = options.order;
  return plan;
}

ModelPlacement placement_in_group(const ModelPlacement& placement, const RankGroup& group) {
  ModelPlacement in_group = placement;
  for_each_replica(in_group, [&](ExpertReplica& replica) {
    const auto member = std::ranges::lower_bound(group.ranks, replica.gpu.value);
    check(member != group.ranks.end() && *member == replica.gpu.value,
          "a model's experts lie on the ranks that serve it");
    replica.gpu = GpuId{static_cast<int>(member - group.ranks.begin())};
  });
  return in_group;
}

ExchangePolicy exchange_policy_of(const EngineOptions& options, const RankGroup& group, int num_ranks) {
  ExchangePolicy policy;
  policy.order = options.order;
  policy.options.round_cost_us = options.round_cost_us;
  policy.options.default_port = options.port_gbps * kBytesPerUsOfGbps;
  if (!options.cluster_file.empty()) {
    const ClusterSpec cluster = cluster_of_group(cluster_of(options, num_ranks), group);
    policy.options.ports = port_bandwidths(cluster);
    policy.options.tiers = tiers_of(cluster);
  }
  return policy;
}

}  // namespace aurora
