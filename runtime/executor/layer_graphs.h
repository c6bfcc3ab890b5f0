// Decode steps whose shape comes again are submitted as graphs: per layer, one launch in place of those of
// attention and gate; where nothing is exchanged, one launch for all layers.
//
// What a layer submits up to the counts of its MoE block depends on the step's shape, on the addresses of
// workspaces and on the layer, and on nothing else that the host knows; on a rank that is alone, so does all
// of it. A shape is submitted piece by piece when it comes first, which also lets all workspaces grow; its
// layers are recorded when it comes again, and launched from then on. The shapes used last are kept, so that
// time and memory are bounded. A graph whose
// memory has moved since (Graph::is_current) is recorded anew. Prefill is left alone: its shapes seldom
// repeat, and it is not the launches that take its time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "runtime/model/decoder.h"
#include "runtime/moe/phase_marker.h"

namespace aurora {

/// What a graph depends on besides the layer. Without tokens: not to be recorded.
struct StepShape {
  std::int64_t num_tokens = 0;
  std::int64_t num_sequences = 0;
  std::int64_t max_blocks = 0;

  /// No tokens unless every sequence decodes one.
  static StepShape of(const StepBatch& batch);
  friend bool operator==(const StepShape&, const StepShape&) = default;
};

class LayerGraphs {
 public:
  static constexpr std::size_t kMostShapes = 8;
  /// In place of a layer.
  static constexpr std::int64_t kAllLayers = -1;

  /// All outlive this object.
  struct Args {
    Backend* backend = nullptr;
    Stream* stream = nullptr;
    PhaseMarker* phases = nullptr;  // a launch is marked as attention, with which it begins
    std::int64_t num_layers = 0;
  };
  explicit LayerGraphs(const Args& args) : args_(args) {}

  /// Call when no work of earlier steps is under way.
  void begin_step(const StepShape& shape);
  /// Whether layers of this step may be recorded, now or when its shape comes again.
  bool has_shape() const { return current_ != nullptr; }
  /// Submits what `work` submits for `layer` in a step of this shape, by calling it or by a graph of it.
  void submit(std::int64_t layer, const std::function<void()>& work);

 private:
  struct Entry {
    StepShape shape;
    std::int64_t num_steps = 0;
    std::vector<std::unique_ptr<Graph>> graphs;  // [num_layers], then of all; null where not recorded
  };

  Args args_;
  std::list<Entry> entries_;  // the one used last comes first
  Entry* current_ = nullptr;  // of this step; null: no graphs
};

}  // namespace aurora
