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
  prepare_with(placement, self, [&](int moe_layer, ExpertId expert, LoadedExpert& added) {
    added.weights = load_(moe_layer, expert, added.memory);
  });
}

void ExpertStore::reserve(const ModelPlacement& placement, RankOf self, const ExpertAllocator& allocate) {
  prepare_with(placement, self, [&](int /*moe_layer*/, ExpertId /*expert*/, LoadedExpert& added) {
    added.weights = allocate(added.memory);
  });
}

void ExpertStore::prepare_with(const ModelPlacement& placement, RankOf self, const AddExpert& add) {
  check(placement.layers.size() == current_.size(), "a placement has one entry per MoE layer");
  // In this order, so that the uploads end before what they read and write goes.
  std::vector<Layer> next(current_.size());
  const std::unique_ptr<Stream> uploads = backend_->create_stream();
  for (std::size_t layer = 0; layer < next.size(); ++layer) {
    next[layer].experts.resize(static_cast<std::size_t>(num_experts_));
    std::vector<ExpertWeights> weights;
    for (const ExpertId expert : placement.layers[layer].experts_on(GpuId{self.rank})) {
      std::shared_ptr<LoadedExpert> loaded = current_[layer].experts[expert.value];
      if (loaded == nullptr) {
        loaded = std::make_shared<LoadedExpert>();
        add(static_cast<int>(layer), expert, *loaded);
      }
      weights.push_back(loaded->weights);
      next[layer].experts[expert.value] = std::move(loaded);
    }
    next[layer].bank = backend_->ops().make_expert_bank(weights);
  }
  for (std::size_t layer = 0; layer < next.size(); ++layer) {
    next[layer].placement.emplace(placement.layers[layer], self, *backend_, *uploads);
  }
  uploads->synchronize(std::chrono::steady_clock::now() + kUploadTimeout);
  prepared_ = std::move(next);
}

void ExpertStore::commit() {
  check(!prepared_.empty() || current_.empty(), "commit follows prepare");
  current_ = std::move(prepared_);
  prepared_.clear();
}

std::span<std::byte> ExpertStore::memory_in(const std::vector<Layer>& layers, int moe_layer,
                                            ExpertId expert) {
  const std::shared_ptr<LoadedExpert>& loaded = layers[moe_layer].experts[expert.value];
  check(loaded != nullptr, "weights are asked of experts that are here");
  return {loaded->memory.data(), loaded->memory.size_bytes()};
}

std::span<std::byte> ExpertStore::memory(int moe_layer, ExpertId expert) const {
  return memory_in(current_, moe_layer, expert);
}

std::span<std::byte> ExpertStore::prepared_memory(int moe_layer, ExpertId expert) const {
  check(!prepared_.empty(), "memory of prepared experts follows prepare");
  return memory_in(prepared_, moe_layer, expert);
}

std::size_t ExpertStore::resident_bytes() const {
  std::size_t bytes = 0;
  for (const Layer& layer : current_) {
    for (const auto& expert : layer.experts) bytes += expert == nullptr ? 0 : expert->memory.size_bytes();
  }
  return bytes;
}

}  // namespace aurora
