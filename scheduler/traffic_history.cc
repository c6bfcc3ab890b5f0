#include "scheduler/traffic_history.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <stdexcept>
#include <string>

namespace aurora {
namespace {

ExpertCounts counts_of(const std::vector<LayerTraffic>& layers, int num_experts) {
  ExpertCounts counts;
  for (const LayerTraffic& layer : layers) {
    std::vector<double>& pairs = counts.emplace_back(static_cast<std::size_t>(num_experts), 0.0);
    for (const std::vector<double>& source : layer.dispatch) {
      for (std::size_t expert = 0; expert < source.size(); ++expert) pairs[expert] += source[expert];
    }
  }
  return counts;
}

/// `values` = `values` * factor + added.
void decay_and_add(std::vector<double>& values, double factor, std::span<const double> added) {
  for (std::size_t index = 0; index < values.size(); ++index) {
    values[index] = values[index] * factor + added[index];
  }
}

void keep_latest(std::vector<std::vector<ExpertId>>& samples,
                 const std::vector<std::vector<ExpertId>>& latest) {
  samples.insert(samples.end(), latest.begin(), latest.end());
  if (samples.size() <= TrafficHistory::kMaxSamples) return;
  samples.erase(samples.begin(), samples.end() - static_cast<std::ptrdiff_t>(TrafficHistory::kMaxSamples));
}

}  // namespace

double layer_drift(std::span<const double> before, std::span<const double> after) {
  const double m = std::accumulate(before.begin(), before.end(), 0.0);
  const double n = std::accumulate(after.begin(), after.end(), 0.0);
  if (m <= 0 || n <= 0) return 0;
  double distance = 0;
  double deviation = 0;
  for (std::size_t expert = 0; expert < before.size(); ++expert) {
    const double joint = (before[expert] + after[expert]) / (m + n);
    distance += std::abs(before[expert] / m - after[expert] / n);
    deviation += std::sqrt(joint * (1 - joint));
  }
  const double expected = deviation * std::sqrt(2 / std::numbers::pi * (1 / m + 1 / n));
  return std::max(0.0, (distance - expected) / 2);
}

double model_drift(const ExpertCounts& before, const ExpertCounts& after) {
  double sum = 0;
  for (std::size_t layer = 0; layer < before.size(); ++layer) {
    sum += layer_drift(before[layer], after[layer]);
  }
  return before.empty() ? 0 : sum / static_cast<double>(before.size());
}

TrafficHistory::TrafficHistory(std::vector<ModelTraffic> models, int num_sources, double half_life_steps)
    : models_(std::move(models)), half_life_steps_(half_life_steps) {
  if (!(half_life_steps > 0)) {
    throw std::invalid_argument("traffic history: a half-life of " + std::to_string(half_life_steps) +
                                " steps; it must be positive");
  }
  for (ModelTraffic& model : models_) {
    const std::vector<double> nothing(static_cast<std::size_t>(model.num_experts), 0.0);
    for (LayerTraffic& layer : model.layers) {
      layer.dispatch.assign(static_cast<std::size_t>(num_sources), nothing);
      layer.samples.assign(static_cast<std::size_t>(num_sources), {});
    }
    counts_.push_back(counts_of(model.layers, model.num_experts));
  }
  window_counts_ = counts_;
}

void TrafficHistory::add(std::span<const std::vector<LayerTraffic>> window, double num_steps) {
  const double factor = std::exp2(-num_steps / half_life_steps_);
  num_steps_ = num_steps_ * factor + num_steps;
  for (std::size_t index = 0; index < models_.size(); ++index) {
    ModelTraffic& model = models_[index];
    for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
      LayerTraffic& kept = model.layers[layer];
      const LayerTraffic& added = window[index][layer];
      for (std::size_t source = 0; source < kept.dispatch.size(); ++source) {
        decay_and_add(kept.dispatch[source], factor, added.dispatch[source]);
        keep_latest(kept.samples[source], added.samples[source]);
      }
    }
    counts_[index] = counts_of(model.layers, model.num_experts);
    window_counts_[index] = counts_of(window[index], model.num_experts);
  }
  window_.assign(window.begin(), window.end());
  window_steps_ = num_steps;
}

void TrafficHistory::forget_older() {
  for (std::size_t index = 0; index < window_.size(); ++index) models_[index].layers = window_[index];
  counts_ = window_counts_;
  num_steps_ = window_steps_;
}

std::vector<ModelTraffic> TrafficHistory::mean_step() const {
  std::vector<ModelTraffic> models = models_;
  if (num_steps_ <= 0) return models;
  for (ModelTraffic& model : models) {
    model.is_mean = true;
    for (LayerTraffic& layer : model.layers) {
      for (std::vector<double>& source : layer.dispatch) {
        for (double& count : source) count /= num_steps_;
      }
    }
  }
  return models;
}

}  // namespace aurora
