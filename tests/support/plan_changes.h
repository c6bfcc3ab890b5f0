// Plans to change to while serving, whatever they gain: what tests of moves propose.
#pragma once

#include <random>

#include "scheduler/plan.h"
#include "tests/support/random_placement.h"

namespace aurora::test {

/// Every copy one GPU further: everything moves.
inline DeploymentPlan rotated(DeploymentPlan plan) {
  for (ModelPlacement& model : plan.models) {
    for (LayerPlacement& layer : model.layers) {
      for (std::vector<ExpertReplica>& replicas : layer.experts) {
        for (ExpertReplica& replica : replicas) replica.gpu = {(replica.gpu.value + 1) % plan.num_gpus};
        std::ranges::sort(replicas, {}, &ExpertReplica::gpu);
      }
    }
  }
  return plan;
}

/// Every expert somewhere, with up to three copies.
inline DeploymentPlan reshuffled(DeploymentPlan plan, std::uint32_t seed) {
  std::mt19937 random(seed);
  for (ModelPlacement& model : plan.models) {
    for (LayerPlacement& layer : model.layers) {
      layer = random_placement(layer.num_experts(), plan.num_gpus, 3, random);
    }
  }
  return plan;
}

}  // namespace aurora::test
