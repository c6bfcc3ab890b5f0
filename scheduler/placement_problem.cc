#include "scheduler/placement_problem.h"

namespace aurora {

LayerPlacement placement_of(const std::vector<int>& gpu_of_expert) {
  LayerPlacement placement;
  for (const int gpu : gpu_of_expert) placement.experts.push_back({{GpuId{gpu}, 1.0}});
  return placement;
}

double layer_time_us(const LayerProblem& problem, const std::vector<LayerPlacement>& placements) {
  std::vector<LayerLoad> loads;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    loads.push_back(
        layer_load(problem.demands[model], placements[model], *problem.models[model], *problem.cluster));
  }
  return layer_time_us(loads);
}

double layer_time_us(const LayerProblem& problem, const Assignment& assignment) {
  std::vector<LayerPlacement> placements;
  for (const std::vector<int>& gpu_of_expert : assignment) placements.push_back(placement_of(gpu_of_expert));
  return layer_time_us(problem, placements);
}

}  // namespace aurora
