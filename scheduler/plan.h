// A deployment plan is data: which experts live where, with which share of the tokens, and which policies
// order the exchanges. It holds no pointer and knows no backend. Every rank holds the same plan; a new one
// takes effect on all ranks at the same step boundary and is told apart by its epoch.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "scheduler/order_policy.h"
#include "scheduler/units.h"

namespace aurora {

/// One copy of an expert and the share of the expert's tokens, of all sources, that it should serve.
struct ExpertReplica {
  GpuId gpu;
  double share = 1;  // above 0; the shares of an expert sum to 1
  bool operator==(const ExpertReplica&) const = default;
};

/// Where the experts of one layer live: experts[e] lists the replicas of expert e, by ascending GPU.
struct LayerPlacement {
  std::vector<std::vector<ExpertReplica>> experts;

  int num_experts() const { return static_cast<int>(experts.size()); }
  bool hosts(GpuId gpu, ExpertId expert) const;
  /// Experts with a replica on `gpu`, ascending.
  std::vector<ExpertId> experts_on(GpuId gpu) const;
  bool operator==(const LayerPlacement&) const = default;
};

struct ModelPlacement {
  std::string model;
  std::vector<LayerPlacement> layers;  // one per MoE layer
  bool operator==(const ModelPlacement&) const = default;
};

struct DeploymentPlan {
  std::uint64_t epoch = 1;
  int num_gpus = 0;
  std::vector<ModelPlacement> models;
  std::string placement_policy;  // how it was made, for reports
  OrderPolicy order_policy = OrderPolicy::kAurora;

  const ModelPlacement* find(std::string_view model) const;
};

/// Throws std::invalid_argument naming model, layer and expert: every expert has a replica, GPUs are in
/// range, distinct and ascending, shares are positive and sum to 1 within 1e-9.
void validate(const DeploymentPlan& plan);

/// What one layer's past traffic says. The inputs to planning are statistics; they are never exact.
struct LayerTraffic {
  /// Tokens (copies to one expert each): dispatch[source][expert].
  std::vector<std::vector<double>> dispatch;
  /// samples[source]: expert sets of single tokens, from which bytes are computed with each token sent once
  /// per destination. May be empty; then copies are counted one by one.
  std::vector<std::vector<std::vector<ExpertId>>> samples;
};

struct ModelTraffic {
  std::string model;
  int num_experts = 0;
  int top_k = 0;
  double dispatch_bytes_per_token = 0;
  double combine_bytes_per_token = 0;
  double expert_bytes = 0;  // weights of one expert
  bool is_mean = false;     // of several steps: counts are not those of whole tokens
  // Times on a GPU of compute 1.0, microseconds; 0 when unknown.
  double attention_us = 0;  // per token
  double gate_us = 0;       // per token
  double expert_us_per_token = 0;
  double expert_us_per_hit = 0;
  double aggregate_us = 0;  // per token
  std::vector<LayerTraffic> layers;
};

}  // namespace aurora
