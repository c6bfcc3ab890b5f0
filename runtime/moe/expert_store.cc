#include "runtime/moe/expert_store.h"

namespace aurora {

ExpertStore::ExpertStore(int num_moe_layers, int num_experts, ExpertLoader load)
    : num_experts_(num_experts), load_(std::move(load)), current_(static_cast<std::size_t>(num_moe_layers)) {
  for (Layer& layer : current_) {
    layer.local_index.assign(static_cast<std::size_t>(num_experts), -1);
    layer.experts.resize(static_cast<std::size_t>(num_experts));
  }
}

void ExpertStore::prepare(const ModelPlacement& placement, GpuId gpu) {
  check(placement.layers.size() == current_.size(), "a placement has one entry per MoE layer");
  std::vector<Layer> next(current_.size());
  for (std::size_t layer = 0; layer < next.size(); ++layer) {
    next[layer].local_index.assign(static_cast<std::size_t>(num_experts_), -1);
    next[layer].experts.resize(static_cast<std::size_t>(num_experts_));
    for (const ExpertId expert : placement.layers[layer].experts_on(gpu)) {
      std::shared_ptr<LoadedExpert> loaded = current_[layer].experts[expert.value];
      if (loaded == nullptr) {
        loaded = std::make_shared<LoadedExpert>();
        loaded->weights = load_(static_cast<int>(layer), expert, loaded->memory);
      }
      next[layer].local_index[expert.value] = static_cast<std::int32_t>(next[layer].weights.size());
      next[layer].weights.push_back(loaded->weights);
      next[layer].experts[expert.value] = std::move(loaded);
    }
  }
  prepared_ = std::move(next);
}

void ExpertStore::commit() {
  check(!prepared_.empty() || current_.empty(), "commit follows prepare");
  current_ = std::move(prepared_);
  prepared_.clear();
}

std::size_t ExpertStore::resident_bytes() const {
  std::size_t bytes = 0;
  for (const Layer& layer : current_) {
    for (const auto& expert : layer.experts) bytes += expert == nullptr ? 0 : expert->memory.size_bytes();
  }
  return bytes;
}

}  // namespace aurora
