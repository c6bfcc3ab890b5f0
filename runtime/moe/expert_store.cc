#include "runtime/moe/expert_store.h"

namespace aurora {
namespace {

/// For tables of a few kilobytes: far beyond any healthy device.
constexpr std::chrono::seconds kUploadTimeout{60};

}  // namespace

ExpertStore::ExpertStore(int num_moe_layers, int num_experts, ExpertLoader load, Backend& backend)
    : num_experts_(num_experts),
      load_(std::move(load)),
      backend_(&backend),
      current_(static_cast<std::size_t>(num_moe_layers)) {
  for (Layer& layer : current_) layer.experts.resize(static_cast<std::size_t>(num_experts));
}

void ExpertStore::prepare(const ModelPlacement& placement, RankOf self) {
  check(placement.layers.size() == current_.size(), "a placement has one entry per MoE layer");
  const std::unique_ptr<Stream> uploads = backend_->create_stream();
  std::vector<Layer> next(current_.size());
  for (std::size_t layer = 0; layer < next.size(); ++layer) {
    next[layer].placement.emplace(placement.layers[layer], self, *backend_, *uploads);
    next[layer].experts.resize(static_cast<std::size_t>(num_experts_));
    std::vector<ExpertWeights> weights;
    for (const ExpertId expert : placement.layers[layer].experts_on(GpuId{self.rank})) {
      std::shared_ptr<LoadedExpert> loaded = current_[layer].experts[expert.value];
      if (loaded == nullptr) {
        loaded = std::make_shared<LoadedExpert>();
        loaded->weights = load_(static_cast<int>(layer), expert, loaded->memory);
      }
      weights.push_back(loaded->weights);
      next[layer].experts[expert.value] = std::move(loaded);
    }
    next[layer].bank = backend_->ops().make_expert_bank(weights);
  }
  uploads->synchronize(std::chrono::steady_clock::now() + kUploadTimeout);
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
