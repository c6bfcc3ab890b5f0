#include "scheduler/expert_slots.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>

namespace aurora {
namespace {

std::int64_t num_copies(const ModelTraffic& model) {
  return static_cast<std::int64_t>(model.layers.size()) * model.num_experts;
}

std::string gigabytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f GB", bytes / 1e9);
  return text;
}

[[noreturn]] void refuse_memory(std::span<const ModelTraffic> models, const ClusterSpec& cluster) {
  double needed = 0;
  double largest_expert = 0;
  for (const ModelTraffic& model : models) {
    needed += static_cast<double>(num_copies(model)) * model.expert_bytes;
    largest_expert = std::max(largest_expert, model.expert_bytes);
  }
  double present = 0;
  double largest_gpu = 0;
  for (const ClusterGpu& gpu : cluster.gpus) {
    present += gpu.memory_bytes;
    largest_gpu = std::max(largest_gpu, gpu.memory_bytes);
  }
  std::string text = "the experts need " + gigabytes(needed) + ", the " + std::to_string(cluster.num_gpus()) +
                     " GPUs have " + gigabytes(present) + " for them";
  if (needed > present) {
    text += ": " + gigabytes(needed - present) + " too little";
  } else {
    text += ", but not in pieces that hold whole experts of up to " + gigabytes(largest_expert);
  }
  if (largest_gpu < largest_expert) {
    throw std::invalid_argument(text + "; no GPU holds even one expert of " + gigabytes(largest_expert));
  }
  // On GPUs all like the largest, whole experts fill all but less than one expert's room of each.
  double num_gpus = 0;
  for (const ModelTraffic& model : models) {
    if (model.expert_bytes > 0) {
      num_gpus += static_cast<double>(num_copies(model)) / std::floor(largest_gpu / model.expert_bytes);
    }
  }
  throw std::invalid_argument(text + "; " + std::to_string(static_cast<std::int64_t>(std::ceil(num_gpus))) +
                              " GPUs of " + gigabytes(largest_gpu) + " would hold them");
}

/// Places for copies of one model on each GPU, all layers together; the model's needs are met.
using SlotTotals = std::vector<std::int64_t>;

/// Turns the memory that is left into further places, on every GPU first for the model with the fewest for
/// its size: needed by nobody, but where an expert may go is better chosen by its load than by rounding.
void share_out_rest(std::span<const ModelTraffic> models, std::vector<double> left,
                    std::vector<SlotTotals>& totals) {
  for (std::size_t gpu = 0; gpu < left.size(); ++gpu) {
    const auto fraction_on_gpu = [&](std::size_t model) {
      return static_cast<double>(totals[model][gpu]) / static_cast<double>(num_copies(models[model]));
    };
    for (;;) {
      std::size_t chosen = models.size();
      for (std::size_t model = 0; model < models.size(); ++model) {
        if (totals[model][gpu] >= num_copies(models[model]) || models[model].expert_bytes > left[gpu])
          continue;
        if (chosen == models.size() || fraction_on_gpu(model) < fraction_on_gpu(chosen)) chosen = model;
      }
      if (chosen == models.size()) break;
      ++totals[chosen][gpu];
      left[gpu] -= models[chosen].expert_bytes;
    }
  }
}

std::vector<SlotTotals> totals_by_model(std::span<const ModelTraffic> models, const ClusterSpec& cluster) {
  double needed = 0;
  for (const ModelTraffic& model : models)
    needed += static_cast<double>(num_copies(model)) * model.expert_bytes;
  std::vector<double> left;  // memory of each GPU not given to any model
  for (const ClusterGpu& gpu : cluster.gpus) left.push_back(gpu.memory_bytes);
  std::vector<SlotTotals> totals(models.size(), SlotTotals(cluster.gpus.size()));
  for (std::size_t index = 0; index < models.size(); ++index) {
    const ModelTraffic& model = models[index];
    for (std::size_t gpu = 0; gpu < left.size(); ++gpu) {
      std::int64_t& slots = totals[index][gpu];
      slots = num_copies(model);
      if (cluster.gpus[gpu].memory_bytes == 0 || model.expert_bytes == 0) continue;
      const double share = static_cast<double>(num_copies(model)) * model.expert_bytes / needed;
      slots = std::min(
          slots, static_cast<std::int64_t>(cluster.gpus[gpu].memory_bytes * share / model.expert_bytes));
      left[gpu] -= static_cast<double>(slots) * model.expert_bytes;
    }
  }
  // What rounding took from a model it gets back out of the remainders, large experts first.
  std::vector<std::size_t> by_size(models.size());
  std::iota(by_size.begin(), by_size.end(), std::size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(), [&](std::size_t a, std::size_t b) {
    return models[a].expert_bytes > models[b].expert_bytes;
  });
  for (const std::size_t index : by_size) {
    SlotTotals& slots = totals[index];
    auto missing = num_copies(models[index]) - std::accumulate(slots.begin(), slots.end(), std::int64_t{0});
    for (; missing > 0; --missing) {
      const auto roomiest = std::max_element(left.begin(), left.end()) - left.begin();
      if (left[roomiest] < models[index].expert_bytes) refuse_memory(models, cluster);
      ++slots[roomiest];
      left[roomiest] -= models[index].expert_bytes;
    }
  }
  share_out_rest(models, std::move(left), totals);
  return totals;
}

/// Deals a model's places out to its layers: each gets an even part of what is left on every GPU, topped up
/// on the GPUs with the largest remainders until its experts fit.
std::vector<std::vector<int>> deal_to_layers(const ModelTraffic& model, SlotTotals left) {
  std::vector<std::vector<int>> slots;
  for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
    const auto layers_left = static_cast<std::int64_t>(model.layers.size() - layer);
    std::vector<int> here;
    std::vector<std::size_t> by_remainder(left.size());
    std::iota(by_remainder.begin(), by_remainder.end(), std::size_t{0});
    std::int64_t sum = 0;
    for (const std::int64_t total : left) {
      here.push_back(static_cast<int>(std::min<std::int64_t>(total / layers_left, model.num_experts)));
      sum += here.back();
    }
    std::stable_sort(by_remainder.begin(), by_remainder.end(), [&](std::size_t a, std::size_t b) {
      return left[a] % layers_left > left[b] % layers_left;
    });
    for (const std::size_t gpu : by_remainder) {
      if (sum >= model.num_experts) break;
      if (here[gpu] >= model.num_experts || here[gpu] >= left[gpu]) continue;
      ++here[gpu];
      ++sum;
    }
    for (std::size_t gpu = 0; gpu < left.size(); ++gpu) left[gpu] -= here[gpu];
    slots.push_back(std::move(here));
  }
  return slots;
}

}  // namespace

ExpertSlots expert_slots(std::span<const ModelTraffic> models, const ClusterSpec& cluster) {
  const std::vector<SlotTotals> totals = totals_by_model(models, cluster);
  ExpertSlots slots;
  for (std::size_t index = 0; index < models.size(); ++index) {
    slots.push_back(deal_to_layers(models[index], totals[index]));
    for (const std::vector<int>& layer : slots.back()) {
      if (std::accumulate(layer.begin(), layer.end(), std::int64_t{0}) < models[index].num_experts) {
        refuse_memory(models, cluster);
      }
    }
  }
  return slots;
}

}  // namespace aurora
