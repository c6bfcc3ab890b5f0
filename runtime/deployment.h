// Where a deployment plan comes from: past traffic and a cluster description, or a plan file. Rank 0's work;
// the others get the plan as text.
#pragma once

#include <memory>
#include <vector>

#include "runtime/dispatch/exchange_plan.h"
#include "runtime/engine.h"
#include "runtime/executor/served_model.h"
#include "runtime/rank_groups.h"
#include "scheduler/cluster.h"
#include "scheduler/plan.h"

namespace aurora {

/// Plans placement for all models of a group together, on its ranks, or reads `options.plan_file`. Throws
/// Error naming file, model or policy.
DeploymentPlan plan_deployment_of(const EngineOptions& options,
                                  const std::vector<std::unique_ptr<ServedModel>>& models,
                                  const std::vector<RankGroup>& groups);

/// What plans are made from: past traffic of each model, or uniform, and the cluster. Throws as above.
struct PlanningInputs {
  std::vector<ModelTraffic> traffic;
  ClusterSpec cluster;
};
PlanningInputs planning_inputs_of(const EngineOptions& options,
                                  const std::vector<std::unique_ptr<ServedModel>>& models, int num_ranks);

/// The placement with the ranks of `group` numbered from 0; all replicas lie on them.
ModelPlacement placement_in_group(const ModelPlacement& placement, const RankGroup& group);

/// The machines that `options` describes, one for each rank.
ClusterSpec cluster_of(const EngineOptions& options, int num_ranks);

/// The order of exchanges within a group of a job's ranks, and the network they are planned for.
ExchangePolicy exchange_policy_of(const EngineOptions& options, const RankGroup& group, int num_ranks);

}  // namespace aurora
