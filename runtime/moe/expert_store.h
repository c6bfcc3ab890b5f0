// Where the experts of each MoE layer live, and the weights of those that live on this rank; both can change
// while the model serves.
//
// `prepare` loads what a new placement adds and leaves the old set in use; `commit` switches and drops what
// is no longer needed. A failed `prepare` leaves the old set serving. Commit at a step boundary on all ranks,
// never while a step is under way.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/ops.h"
#include "runtime/dispatch/placement_table.h"
#include "scheduler/plan.h"

namespace aurora {

/// Loads the weights of one expert into device memory. Given by the model, which knows the checkpoint's
/// names.
using ExpertLoader = std::function<ExpertWeights(int moe_layer, ExpertId expert, Buffer& memory)>;

class ExpertStore {
 public:
  /// The backend must outlive the store.
  ExpertStore(int num_moe_layers, int num_experts, ExpertLoader load, Backend& backend);

  /// Loads the experts that `placement` puts on rank `self` and that are not here yet. Throws what the loader
  /// throws.
  void prepare(const ModelPlacement& placement, RankOf self);
  /// Makes the prepared set current.
  void commit();

  /// This rank's experts of a layer, in ascending expert id. Stable between commits.
  const ExpertBank& bank(int moe_layer) const { return *current_[moe_layer].bank; }
  /// Where all experts of a layer live. Stable between commits.
  const PlacementTable& placement(int moe_layer) const { return *current_[moe_layer].placement; }
  std::size_t resident_bytes() const;

 private:
  struct LoadedExpert {
    ExpertWeights weights;
    Buffer memory;
  };
  struct Layer {
    std::optional<PlacementTable> placement;             // none before the first commit
    std::vector<std::shared_ptr<LoadedExpert>> experts;  // [num_experts], null where not here
    std::unique_ptr<ExpertBank> bank;                    // of those that are here
  };

  int num_experts_;
  ExpertLoader load_;
  Backend* backend_;
  std::vector<Layer> current_;
  std::vector<Layer> prepared_;
};

}  // namespace aurora
