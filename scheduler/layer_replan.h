// One layer of a re-plan (replan.h): candidates for its next placement, each stripped of the changes that do
// not earn their way, and the best of them.
#pragma once

#include <cstddef>
#include <vector>

#include "scheduler/placement.h"
#include "scheduler/placement_problem.h"

namespace aurora {

struct LayerReplanArgs {
  const LayerProblem* problem = nullptr;
  std::vector<LayerPlacement> current;  // [model]
  double horizon_steps = 0;
  PlacementOptions placement;
};

class LayerReplan {
 public:
  explicit LayerReplan(LayerReplanArgs args);

  /// A placement made without regard to the current one, its GPUs renumbered: in the order of what they would
  /// keep, each takes the number of a GPU like it.
  void consider_renumbered(std::vector<LayerPlacement> placements);
  /// What a local search finds from the current placement. With a budget of copies, from what is left when
  /// every expert keeps one copy, and from all copies that are there.
  void consider_search();

  /// The current placement when nothing better was considered.
  std::vector<LayerPlacement> take_best() { return std::move(best_); }

 private:
  void consider(std::vector<LayerPlacement> placements);
  std::vector<LayerPlacement> without_idle_changes(std::vector<LayerPlacement> placements) const;
  double move_price_us(std::size_t model, const std::vector<ExpertReplica>& before,
                       const std::vector<ExpertReplica>& after) const;
  double cost_us(const std::vector<LayerPlacement>& placements) const;
  bool fits(const std::vector<LayerPlacement>& placements) const;
  int num_copies_left() const;

  LayerReplanArgs args_;
  std::vector<LayerPlacement> best_;
  double best_us_ = 0;
};

}  // namespace aurora
