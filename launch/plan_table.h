// The deployment plan as a table for people: which experts each rank hosts in each layer, which share of the
// tokens that makes, and what memory a rank needs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/engine.h"
#include "runtime/model/model_config.h"
#include "runtime/rank_memory.h"
#include "scheduler/plan.h"

namespace aurora {

/// One model of a plan table.
struct PlannedModel {
  ModelOptions options;
  ModelConfig config;
  /// Past tokens of each expert, [moe layer][expert]; empty: none known, all experts count alike.
  std::vector<std::vector<double>> expert_tokens;
};

/// Tokens of each rank over the mean of all ranks, [rank], for a layer whose experts got `expert_tokens`.
std::vector<double> rank_loads(const LayerPlacement& placement, int num_ranks,
                               const std::vector<double>& expert_tokens);

/// Ascending experts with runs shortened and shares below 1 shown: "0-3 7 9(50%)"; "-" for none.
std::string expert_list(const LayerPlacement& placement, GpuId gpu);

/// The whole table, several lines, with a final line end. Neighbouring layers with equal rows are shown once.
std::string plan_table(const DeploymentPlan& plan, const std::vector<PlannedModel>& models,
                       std::optional<DType> wire_dtype);

}  // namespace aurora
