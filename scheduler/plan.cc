#include "scheduler/plan.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace aurora {
namespace {

bool is_on(const std::vector<ExpertReplica>& replicas, GpuId gpu) {
  return std::any_of(replicas.begin(), replicas.end(),
                     [&](const ExpertReplica& replica) { return replica.gpu == gpu; });
}

/// Throws what is wrong with the replicas of one expert; `where` names model, layer and expert.
void validate_replicas(const std::vector<ExpertReplica>& replicas, int num_gpus, const std::string& where) {
  const auto refuse = [&](const std::string& text) { throw std::invalid_argument(where + ": " + text); };
  if (replicas.empty()) refuse("no GPU hosts it");
  double sum = 0;
  for (std::size_t index = 0; index < replicas.size(); ++index) {
    const ExpertReplica& replica = replicas[index];
    const std::string on_gpu = "replica on GPU " + std::to_string(replica.gpu.value);
    if (replica.gpu.value < 0 || replica.gpu.value >= num_gpus) {
      refuse(on_gpu + "; the plan has GPUs 0 to " + std::to_string(num_gpus - 1));
    }
    if (index > 0 && replicas[index - 1].gpu >= replica.gpu) {
      refuse(on_gpu + " follows one on GPU " + std::to_string(replicas[index - 1].gpu.value) +
             "; GPUs must be distinct and ascending");
    }
    if (!(replica.share > 0) || !(replica.share <= 1 + 1e-9)) {
      refuse(on_gpu + " has share " + std::to_string(replica.share) + "; shares lie in (0, 1]");
    }
    sum += replica.share;
  }
  if (!(std::abs(sum - 1) <= 1e-9))
    refuse("the shares of its replicas sum to " + std::to_string(sum) + ", not to 1");
}

}  // namespace

bool LayerPlacement::hosts(GpuId gpu, ExpertId expert) const {
  return expert.value >= 0 && expert.value < num_experts() && is_on(experts[expert.value], gpu);
}

std::vector<ExpertId> LayerPlacement::experts_on(GpuId gpu) const {
  std::vector<ExpertId> hosted;
  for (int expert = 0; expert < num_experts(); ++expert) {
    if (is_on(experts[expert], gpu)) hosted.push_back({expert});
  }
  return hosted;
}

const ModelPlacement* DeploymentPlan::find(std::string_view model) const {
  const auto found = std::find_if(models.begin(), models.end(),
                                  [&](const ModelPlacement& placement) { return placement.model == model; });
  return found == models.end() ? nullptr : &*found;
}

void validate(const DeploymentPlan& plan) {
  if (plan.num_gpus < 1) {
    throw std::invalid_argument("plan: number of GPUs is " + std::to_string(plan.num_gpus) +
                                "; it must be at least 1");
  }
  for (std::size_t index = 0; index < plan.models.size(); ++index) {
    const ModelPlacement& model = plan.models[index];
    if (plan.find(model.model) != &model) {
      throw std::invalid_argument("plan: model \"" + model.model + "\" is placed twice");
    }
    for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
      for (int expert = 0; expert < model.layers[layer].num_experts(); ++expert) {
        validate_replicas(model.layers[layer].experts[expert], plan.num_gpus,
                          "plan: model \"" + model.model + "\", layer " + std::to_string(layer) +
                              ", expert " + std::to_string(expert));
      }
    }
  }
}

}  // namespace aurora
