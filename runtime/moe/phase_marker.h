// Names what a model submits by phase and layer, for profilers: see Backend::open_range.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "runtime/moe/phase.h"

namespace aurora {

/// For phases that belong to no layer: the head.
inline constexpr std::int32_t kNoLayer = -1;

class PhaseMarker {
 public:
  /// What is submitted while it lives belongs to its phase.
  class Stretch {
   public:
    explicit Stretch(PhaseMarker& marker) : marker_(&marker) {}
    Stretch(const Stretch&) = delete;
    Stretch& operator=(const Stretch&) = delete;
    ~Stretch() { marker_->backend_->close_range(); }

   private:
    PhaseMarker* marker_;
  };

  /// The backend outlives the marker.
  PhaseMarker(Backend& backend, std::size_t model_index) : backend_(&backend), model_index_(model_index) {}

  /// What is marked from now on belongs to `layer`, or to none.
  void enter_layer(std::int32_t layer) { layer_ = layer; }
  [[nodiscard]] Stretch mark(Phase phase) {
    backend_->open_range({phase_name(phase).data(), model_index_, layer_});
    return Stretch(*this);
  }

 private:
  Backend* backend_;
  std::size_t model_index_;
  std::int32_t layer_ = kNoLayer;
};

}  // namespace aurora
