// Random models with their past traffic: every token of every source is drawn, so that counts and samples
// agree.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "scheduler/cluster.h"
#include "scheduler/placement_problem.h"
#include "scheduler/plan.h"

namespace aurora::test {

struct RandomModelArgs {
  std::string name = "a";
  int num_layers = 1;
  int num_experts = 8;
  int top_k = 1;
  int num_sources = 8;
  int tokens_per_source = 100;
  bool has_samples = true;  // of all tokens
  double skew = 2;          // popularity is uniform to this power; 0: all alike
};

inline LayerTraffic random_layer(const RandomModelArgs& args, std::mt19937_64& random) {
  std::uniform_real_distribution<double> unit(0, 1);
  std::vector<double> popularity;
  for (int expert = 0; expert < args.num_experts; ++expert)
    popularity.push_back(std::pow(unit(random), args.skew) + 0.02);
  LayerTraffic layer;
  layer.dispatch.assign(static_cast<std::size_t>(args.num_sources),
                        std::vector<double>(static_cast<std::size_t>(args.num_experts)));
  if (args.has_samples) layer.samples.resize(static_cast<std::size_t>(args.num_sources));
  for (int source = 0; source < args.num_sources; ++source) {
    for (int token = 0; token < args.tokens_per_source; ++token) {
      std::vector<double> left = popularity;
      std::vector<ExpertId> experts;
      for (int k = 0; k < args.top_k; ++k) {
        std::discrete_distribution<int> pick(left.begin(), left.end());
        const int expert = pick(random);
        left[expert] = 0;
        layer.dispatch[source][expert] += 1;
        experts.push_back({expert});
      }
      if (args.has_samples) layer.samples[source].push_back(experts);
    }
  }
  return layer;
}

inline ModelTraffic random_model(const RandomModelArgs& args, std::mt19937_64& random) {
  std::uniform_real_distribution<double> unit(0, 1);
  ModelTraffic model;
  model.model = args.name;
  model.num_experts = args.num_experts;
  model.top_k = args.top_k;
  model.dispatch_bytes_per_token = 4096;
  model.combine_bytes_per_token = 4096;
  model.expert_bytes = 1e8;
  model.gate_us = 0.02 * unit(random);
  model.expert_us_per_token = 0.5 * unit(random);
  model.expert_us_per_hit = 5 * unit(random);
  model.aggregate_us = 0.02 * unit(random);
  for (int layer = 0; layer < args.num_layers; ++layer) model.layers.push_back(random_layer(args, random));
  return model;
}

/// GPUs alike, or with ports of 100, 80, 50 and 40 Gbit/s and compute to match.
inline ClusterSpec test_cluster(int num_gpus, bool is_heterogeneous) {
  ClusterSpec cluster = uniform_cluster(num_gpus, 100);
  if (!is_heterogeneous) return cluster;
  const std::vector<double> speeds{1.0, 0.8, 0.5, 0.4};
  for (int gpu = 0; gpu < num_gpus; ++gpu) {
    cluster.gpus[gpu].compute = speeds[static_cast<std::size_t>(gpu) % 4];
    cluster.gpus[gpu].port_gbps = 100 * speeds[static_cast<std::size_t>(gpu) % 4];
  }
  return cluster;
}

/// The first layer of all models, with `slots` on every GPU. Refers to `setting`, anything that has a
/// `cluster` and `models`.
template <class Setting>
LayerProblem problem_of(const Setting& setting, int slots) {
  LayerProblem problem;
  problem.cluster = &setting.cluster;
  for (const ModelTraffic& model : setting.models) {
    problem.models.push_back(&model);
    problem.demands.emplace_back(model.layers[0], model, setting.cluster.num_gpus());
    problem.slots.emplace_back(static_cast<std::size_t>(setting.cluster.num_gpus()), slots);
  }
  return problem;
}

}  // namespace aurora::test
