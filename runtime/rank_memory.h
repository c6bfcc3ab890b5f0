// What a rank needs of its device's memory, counted before anything is loaded.
//
// Weights and cache are exact. The workspaces are those of the largest step that the limits allow, with every
// token of every rank routed to this one: more than any usual step takes, and no step can take more.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "runtime/model/model_config.h"
#include "runtime/model_options.h"
#include "scheduler/plan.h"

namespace aurora {

/// Bytes that one rank needs for one model.
struct ModelMemory {
  std::string model;
  std::int64_t shared_weight_bytes = 0;  // attention, embeddings, gates, norms: the same on every rank
  std::int64_t expert_weight_bytes = 0;  // of the experts that the rank hosts
  std::int64_t kv_cache_bytes = 0;
  std::int64_t workspace_bytes = 0;

  std::int64_t sum() const {
    return shared_weight_bytes + expert_weight_bytes + kv_cache_bytes + workspace_bytes;
  }
};

/// How the ranks work together, as far as it takes memory.
struct MemoryTerms {
  int num_ranks = 1;
  std::optional<DType> wire_dtype = std::nullopt;  // none: each model's own
  int num_lanes = 1;                               // of each model, each with workspaces of its own
};

ModelMemory model_memory(const ModelOptions& options, const ModelConfig& config,
                         const ModelPlacement& placement, GpuId gpu, const MemoryTerms& terms);

/// One rank's needs beside what its device had free before any rank loaded.
struct RankMemory {
  DeviceMemory device;
  std::vector<ModelMemory> models;

  std::int64_t sum() const;
};

/// Why the models do not fit the device of `rank`, which it may share with other ranks; none when they do, or
/// when the device does not say what it has. `ranks` holds all of the job.
std::optional<std::string> memory_shortage(const std::vector<RankMemory>& ranks, int rank);

/// Why some device cannot take `added` bytes of expert weights, [rank], beside what it holds; none when all
/// can, as far as devices say what they have. `devices` are the ranks' devices now.
std::optional<std::string> move_shortage(const std::vector<DeviceMemory>& devices,
                                         const std::vector<std::int64_t>& added);

}  // namespace aurora
