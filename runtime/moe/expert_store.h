// Where the experts of each MoE layer live, and the weights of those that live on this rank; both can change
// while the model serves.
//
// `prepare` loads what a new placement adds and leaves the old set in use; `reserve` only takes the memory,
// to be filled with what a rank that has the expert sends. `commit` switches and drops what is no longer
// needed, `discard` drops what was prepared instead. A failed `prepare` or `reserve` leaves the old set
// serving. Commit at a step boundary on all ranks, never while a step is under way.
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
/// Takes device memory for the weights of one expert and says where they will lie in it: the same for every
/// expert of a model, on every rank.
using ExpertAllocator = std::function<ExpertWeights(Buffer& memory)>;

class ExpertStore {
 public:
  /// The backend must outlive the store.
  ExpertStore(int num_moe_layers, int num_experts, ExpertLoader load, Backend& backend);

  /// Loads the experts that `placement` puts on rank `self` and that are not here yet. Throws what the loader
  /// throws.
  void prepare(const ModelPlacement& placement, RankOf self);
  /// Like `prepare`, but the memory of what is added is left for the caller to fill before `commit`. Throws
  /// what `allocate` throws.
  void reserve(const ModelPlacement& placement, RankOf self, const ExpertAllocator& allocate);
  /// Makes the prepared set current.
  void commit();
  void discard() { prepared_.clear(); }

  /// This rank's experts of a layer, in ascending expert id. Stable between commits.
  const ExpertBank& bank(int moe_layer) const { return *current_[moe_layer].bank; }
  /// Where all experts of a layer live. Stable between commits.
  const PlacementTable& placement(int moe_layer) const { return *current_[moe_layer].placement; }
  /// Device memory of an expert that is here, and of one that is prepared.
  std::span<std::byte> memory(int moe_layer, ExpertId expert) const;
  std::span<std::byte> prepared_memory(int moe_layer, ExpertId expert) const;
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

  using AddExpert = std::function<void(int moe_layer, ExpertId expert, LoadedExpert& added)>;

  void prepare_with(const ModelPlacement& placement, RankOf self, const AddExpert& add);
  static std::span<std::byte> memory_in(const std::vector<Layer>& layers, int moe_layer, ExpertId expert);

  int num_experts_;
  ExpertLoader load_;
  Backend* backend_;
  std::vector<Layer> current_;
  std::vector<Layer> prepared_;
};

}  // namespace aurora
