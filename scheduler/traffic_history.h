// What the routers of all models did lately, as the traffic of a mean step: the input of re-planning.
//
// Counts of past steps decay: those of `half_life` steps ago weigh half. What is kept is sum over steps of
// 2^(-age / half_life) * counts, beside the same sum over ones, and their quotient is the mean. Of sampled
// tokens the latest are kept.
//
// Drift is how far popularities have gone from those that the plan was made from: the total variation
// distance between both distributions over experts, 1/2 * sum |p - q|, less what two samples of these sizes
// from one distribution differ by on average, 1/2 * sum sqrt(2/pi * p (1-p) (1/m + 1/n)) with the joint p.
// 0 is none and 1 is most. (The mean of the absolute value of a normal variable of deviation s is
// s * sqrt(2/pi).) It says that traffic has changed, not that another plan would be better.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/plan.h"

namespace aurora {

/// Pairs by expert, [layer][expert], summed over sources.
using ExpertCounts = std::vector<std::vector<double>>;

/// Between two counts of one layer; 0 when either is empty.
double layer_drift(std::span<const double> before, std::span<const double> after);
/// Mean over layers.
double model_drift(const ExpertCounts& before, const ExpertCounts& after);

class TrafficHistory {
 public:
  /// Sampled tokens kept per layer and source.
  static constexpr std::size_t kMaxSamples = 256;

  /// `models` have everything but layers' contents: names, sizes, costs. Throws std::invalid_argument when
  /// the half-life is not positive.
  TrafficHistory(std::vector<ModelTraffic> models, int num_sources, double half_life_steps);

  /// What was routed in the last `num_steps` steps, [model][layer]; a model without traffic has zeros.
  void add(std::span<const std::vector<LayerTraffic>> window, double num_steps);
  /// Forgets all but the last window.
  void forget_older();

  /// Traffic of a mean step.
  std::vector<ModelTraffic> mean_step() const;
  /// Decayed pairs of each model, all sources together: [model]. And of the last window alone.
  const std::vector<ExpertCounts>& counts() const { return counts_; }
  const std::vector<ExpertCounts>& window_counts() const { return window_counts_; }
  double num_steps() const { return num_steps_; }

 private:
  std::vector<ModelTraffic> models_;  // layers hold the decayed counts and the latest samples
  double half_life_steps_;
  double num_steps_ = 0;  // decayed
  std::vector<ExpertCounts> counts_;
  std::vector<ExpertCounts> window_counts_;
  std::vector<std::vector<LayerTraffic>> window_;
  double window_steps_ = 0;
};

}  // namespace aurora
