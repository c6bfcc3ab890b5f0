#include "runtime/executor/layer_graphs.h"

#include <algorithm>

namespace aurora {

StepShape StepShape::of(const StepBatch& batch) {
  const bool is_decode =
      batch.num_tokens() == batch.num_sequences && batch.num_tokens() == batch.num_outputs();
  if (!is_decode) return {};
  return {batch.num_tokens(), batch.num_sequences, batch.max_blocks};
}

void LayerGraphs::begin_step(const StepShape& shape) {
  current_ = nullptr;
  if (!args_.backend->has_graphs() || shape.num_tokens == 0) return;
  const auto found = std::ranges::find_if(entries_, [&](const Entry& entry) { return entry.shape == shape; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
  } else {
    if (entries_.size() == kMostShapes) entries_.pop_back();
    Entry& entry = entries_.emplace_front();
    entry.shape = shape;
    entry.graphs.resize(static_cast<std::size_t>(args_.num_layers) + 1);
  }
  current_ = &entries_.front();
  ++current_->num_steps;
}

void LayerGraphs::submit(std::int64_t layer, const std::function<void()>& work) {
  if (current_ == nullptr || current_->num_steps == 1) return work();
  const std::int64_t index = layer == kAllLayers ? args_.num_layers : layer;
  std::unique_ptr<Graph>& graph = current_->graphs[static_cast<std::size_t>(index)];
  if (graph == nullptr || !graph->is_current()) {
    const PhaseMarker::Recording recording(*args_.phases);
    graph = args_.backend->capture(*args_.stream, work);
  }
  const PhaseMarker::Stretch stretch = args_.phases->mark(Phase::kAttention);
  graph->launch(*args_.stream);
}

}  // namespace aurora
