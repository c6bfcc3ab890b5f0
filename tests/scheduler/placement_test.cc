// Placements of all policies: valid for all shapes, within the memory, and for small problems compared with
// brute force over all placements.
#include "scheduler/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>

#include "scheduler/baseline_placements.h"
#include "scheduler/bottleneck_matching.h"
#include "scheduler/colocation.h"
#include "scheduler/expert_slots.h"
#include "scheduler/one_expert_per_gpu.h"
#include "scheduler/placement_problem.h"
#include "scheduler/placement_search.h"
#include "tests/scheduler/random_models.h"

namespace aurora {
namespace {

using test::random_model;
using test::test_cluster;

/// The layer time of all models' first layers under a plan, from scratch.
double planned_time(const std::vector<ModelTraffic>& models, const ClusterSpec& cluster,
                    const DeploymentPlan& plan) {
  std::vector<LayerLoad> loads;
  for (std::size_t model = 0; model < models.size(); ++model) {
    const LayerDemand demand(models[model].layers[0], models[model], cluster.num_gpus());
    loads.push_back(layer_load(demand, plan.models[model].layers[0], models[model], cluster));
  }
  return layer_time_us(loads);
}

LayerProblem problem_of(const std::vector<ModelTraffic>& models, const ClusterSpec& cluster) {
  LayerProblem problem;
  problem.cluster = &cluster;
  for (const ModelTraffic& model : models) {
    problem.models.push_back(&model);
    problem.demands.emplace_back(model.layers[0], model, cluster.num_gpus());
    problem.slots.emplace_back(static_cast<std::size_t>(cluster.num_gpus()), model.num_experts);
  }
  return problem;
}

/// The best of all ways to give experts to GPUs.
double brute_force(const LayerProblem& problem) {
  std::vector<std::pair<std::size_t, int>> experts;
  Assignment assignment(problem.num_models());
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    assignment[model].resize(problem.demands[model].expert_pairs.size());
    for (int expert = 0; expert < problem.demands[model].num_experts; ++expert)
      experts.push_back({model, expert});
  }
  double best = std::numeric_limits<double>::infinity();
  std::function<void(std::size_t)> assign = [&](std::size_t next) {
    if (next == experts.size()) {
      best = std::min(best, layer_time_us(problem, assignment));
      return;
    }
    for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
      assignment[experts[next].first][experts[next].second] = gpu;
      assign(next + 1);
    }
  };
  assign(0);
  return best;
}

struct Shape {
  int num_gpus;
  std::vector<std::pair<int, int>> models;  // experts, top_k
};

TEST(Placement, OfEveryPolicyIsValidForAllShapes) {
  std::mt19937_64 random(31);
  const std::vector<Shape> shapes{{1, {{4, 2}}},
                                  {8, {{8, 2}}},
                                  {8, {{60, 4}}},
                                  {5, {{2, 1}}},
                                  {3, {{7, 2}}},
                                  {3, {{7, 2}, {5, 2}}},
                                  {8, {{8, 1}, {4, 2}}},
                                  {4, {{6, 2}, {3, 1}, {9, 3}}},
                                  {2, {{1, 1}, {1, 1}, {1, 1}}}};
  for (const Shape& shape : shapes) {
    std::vector<ModelTraffic> models;
    for (const auto& [experts, top_k] : shape.models) {
      models.push_back(random_model({.name = std::string(1, static_cast<char>('a' + models.size())),
                                     .num_layers = 1 + static_cast<int>(models.size()),
                                     .num_experts = experts,
                                     .top_k = top_k,
                                     .num_sources = shape.num_gpus},
                                    random));
    }
    for (const bool is_heterogeneous : {false, true}) {
      const ClusterSpec cluster = test_cluster(shape.num_gpus, is_heterogeneous);
      for (const PlacementPolicy policy : all_placement_policies()) {
        SCOPED_TRACE(std::string(placement_policy_name(policy)) + " on " + std::to_string(shape.num_gpus) +
                     " GPUs");
        const DeploymentPlan plan = plan_deployment(models, cluster, policy, {});
        EXPECT_NO_THROW(validate(plan));
        ASSERT_EQ(plan.models.size(), models.size());
        EXPECT_EQ(plan.num_gpus, shape.num_gpus);
        EXPECT_EQ(plan.placement_policy, placement_policy_name(policy));
        for (std::size_t model = 0; model < models.size(); ++model) {
          EXPECT_EQ(plan.models[model].model, models[model].model);
          ASSERT_EQ(plan.models[model].layers.size(), models[model].layers.size());
          for (const LayerPlacement& layer : plan.models[model].layers) {
            EXPECT_EQ(layer.num_experts(), models[model].num_experts);
          }
        }
        EXPECT_EQ(plan_deployment(models, cluster, policy, {}).models, plan.models) << "not deterministic";
      }
    }
  }
}

TEST(Placement, HasNamesThatAreReadBack) {
  for (const PlacementPolicy policy : all_placement_policies()) {
    EXPECT_EQ(parse_placement_policy(placement_policy_name(policy)), policy);
  }
  EXPECT_EQ(parse_placement_policy("best"), std::nullopt);
}

TEST(AutoPlacement, IsNeverWorseThanThePoliciesWithoutReplicas) {
  std::mt19937_64 random(32);
  for (int instance = 0; instance < 20; ++instance) {
    std::vector<ModelTraffic> models;
    const int num_models = 1 + instance % 2;
    for (int model = 0; model < num_models; ++model) {
      models.push_back(random_model({.name = std::string(1, static_cast<char>('a' + model)),
                                     .num_experts = 4 + static_cast<int>(random() % 20),
                                     .top_k = 1 + static_cast<int>(random() % 3),
                                     .num_sources = 6},
                                    random));
    }
    const ClusterSpec cluster = test_cluster(6, instance % 4 < 2);
    const PlacementOptions for_this_traffic{.robustness_price = 0};
    const double ours = planned_time(
        models, cluster, plan_deployment(models, cluster, PlacementPolicy::kAuto, for_this_traffic));
    for (const PlacementPolicy policy : all_placement_policies()) {
      if (policy == PlacementPolicy::kEplb) continue;  // it may use more memory
      EXPECT_LE(ours,
                planned_time(models, cluster, plan_deployment(models, cluster, policy, {})) * (1 + 1e-9))
          << placement_policy_name(policy) << ", instance " << instance;
    }
  }
}

TEST(AutoPlacement, OfSeveralExpertsPerGpuIsWithinOnePercentOfBruteForce) {
  const std::uint64_t seed = 33;
  std::mt19937_64 random(seed);
  double sum = 0;
  double worst = 1;
  const int num_instances = 40;
  for (int instance = 0; instance < num_instances; ++instance) {
    const int num_gpus = 2 + instance % 2;
    std::vector<ModelTraffic> models{random_model({.num_experts = num_gpus == 2 ? 8 : 6,
                                                   .top_k = 1 + static_cast<int>(random() % 2),
                                                   .num_sources = num_gpus},
                                                  random)};
    const ClusterSpec cluster = test_cluster(num_gpus, instance % 4 < 2);
    const double ours =
        planned_time(models, cluster, plan_deployment(models, cluster, PlacementPolicy::kAuto, {}));
    const double ratio = ours / brute_force(problem_of(models, cluster));
    EXPECT_GE(ratio, 1 - 1e-9);
    sum += ratio;
    worst = std::max(worst, ratio);
  }
  std::printf("auto / brute force: mean %.5f, worst %.5f (seed %llu)\n", sum / num_instances, worst,
              static_cast<unsigned long long>(seed));
  EXPECT_LE(sum / num_instances, 1.01);
}

/// The same tokens after the experts have changed places: another workload, with no memory of the popularity
/// of single experts.
ModelTraffic with_permuted_experts(const ModelTraffic& model, std::mt19937_64& random) {
  std::vector<int> to(static_cast<std::size_t>(model.num_experts));
  std::iota(to.begin(), to.end(), 0);
  std::shuffle(to.begin(), to.end(), random);
  ModelTraffic permuted = model;
  LayerTraffic& layer = permuted.layers[0];
  for (std::size_t source = 0; source < layer.dispatch.size(); ++source) {
    for (std::size_t expert = 0; expert < to.size(); ++expert) {
      layer.dispatch[source][to[expert]] = model.layers[0].dispatch[source][expert];
    }
    for (auto& token : layer.samples[source]) {
      for (ExpertId& expert : token) expert.value = to[expert.value];
    }
  }
  return permuted;
}

TEST(AutoPlacement, OfRecordedTokensPaysAtMostItsPriceAndIsSaferOnOtherTraffic) {
  const std::uint64_t seed = 35;
  std::mt19937_64 random(seed);
  double safe = 0;
  double fitted = 0;
  for (int instance = 0; instance < 12; ++instance) {
    const std::vector<ModelTraffic> models{
        random_model({.num_experts = 48, .top_k = 4, .num_sources = 8}, random)};
    const ClusterSpec cluster = test_cluster(8, instance % 2 == 1);
    const DeploymentPlan hedged =
        plan_deployment(models, cluster, PlacementPolicy::kAuto, {.robustness_price = 0.02});
    const DeploymentPlan pure =
        plan_deployment(models, cluster, PlacementPolicy::kAuto, {.robustness_price = 0});
    EXPECT_LE(planned_time(models, cluster, hedged), 1.02 * planned_time(models, cluster, pure) * (1 + 1e-9))
        << "seed " << seed << ", instance " << instance;
    for (int other = 0; other < 20; ++other) {
      const std::vector<ModelTraffic> drifted{with_permuted_experts(models[0], random)};
      safe += planned_time(drifted, cluster, hedged);
      fitted += planned_time(drifted, cluster, pure);
    }
  }
  std::printf("after drift, hedged / fitted: %.4f (seed %llu)\n", safe / fitted,
              static_cast<unsigned long long>(seed));
  EXPECT_LT(safe, fitted);
}

TEST(AutoPlacement, TakesTrafficWithoutSamplesAsGiven) {
  std::mt19937_64 random(36);
  const std::vector<ModelTraffic> models{
      random_model({.num_experts = 24, .top_k = 2, .num_sources = 4, .has_samples = false}, random)};
  const ClusterSpec cluster = test_cluster(4, true);
  EXPECT_EQ(plan_deployment(models, cluster, PlacementPolicy::kAuto, {}).models,
            plan_deployment(models, cluster, PlacementPolicy::kAuto, {.robustness_price = 0}).models);
  EXPECT_THROW(plan_deployment(models, cluster, PlacementPolicy::kAuto, {.robustness_price = -0.1}),
               std::invalid_argument);
}

TEST(AutoPlacement, OfTwoModelsIsCloseToBruteForce) {
  std::mt19937_64 random(34);
  double sum = 0;
  const int num_instances = 60;
  for (int instance = 0; instance < num_instances; ++instance) {
    std::vector<ModelTraffic> models;
    const int num_gpus = instance < 50 ? 3 : 4;  // 2,187 and 65,536 placements
    for (const char* name : {"a", "b"}) {
      const int num_experts = num_gpus == 4 ? 4 : 3 + (name[0] == 'b');
      models.push_back(random_model(
          {.name = name, .num_experts = num_experts, .num_sources = num_gpus, .has_samples = false}, random));
    }
    const ClusterSpec cluster = test_cluster(num_gpus, instance % 2 == 1);
    const double ours =
        planned_time(models, cluster, plan_deployment(models, cluster, PlacementPolicy::kAuto, {}));
    const double ratio = ours / brute_force(problem_of(models, cluster));
    EXPECT_GE(ratio, 1 - 1e-9);
    EXPECT_LE(ratio, 1.02) << "instance " << instance;
    sum += ratio;
  }
  EXPECT_LE(sum / num_instances, 1.001);
}

/// Layer time with one expert per GPU by its formula, for expert e on GPU gpu_of[e]; shares no code with the
/// planner.
double one_per_gpu_time(const ModelTraffic& model, const ClusterSpec& cluster,
                        const std::vector<int>& expert_on) {
  const auto& dispatch = model.layers[0].dispatch;
  double before = 0;
  double after = 0;
  double aggregate = 0;
  for (int gpu = 0; gpu < cluster.num_gpus(); ++gpu) {
    const int expert = expert_on[gpu];
    const double copies = std::accumulate(dispatch[gpu].begin(), dispatch[gpu].end(), 0.0);
    double total = 0;
    for (const auto& row : dispatch) total += row[expert];
    const double rows = std::max(copies, total) - dispatch[gpu][expert];
    const double us_per_row = 4096 / (cluster.gpus[gpu].port_gbps * 125);
    const double compute = cluster.gpus[gpu].compute;
    const double tokens = copies / model.top_k;
    before = std::max(before, tokens * model.gate_us / compute + rows * us_per_row);
    const double expert_us = total > 0 ? total * model.expert_us_per_token + model.expert_us_per_hit : 0;
    after = std::max(after, expert_us / compute + rows * us_per_row);
    aggregate = std::max(aggregate, tokens * model.aggregate_us / compute);
  }
  return before + after + aggregate;
}

TEST(BestSingleAssignment, IsTheOptimumOverAllPermutations) {
  std::mt19937_64 random(35);
  for (int instance = 0; instance < 100; ++instance) {
    const int n = 2 + instance % 6;
    std::vector<ModelTraffic> models{
        random_model({.num_experts = n, .top_k = 1 + instance % 2, .num_sources = n}, random)};
    // Sources with unequal numbers of tokens.
    for (auto& count : models[0].layers[0].dispatch[0]) count *= 3;
    const ClusterSpec cluster = test_cluster(n, instance % 3 != 0);
    const std::vector<int> gpu_of = best_single_assignment(problem_of(models, cluster));
    std::vector<int> expert_on(static_cast<std::size_t>(n));
    for (int expert = 0; expert < n; ++expert) expert_on[gpu_of[expert]] = expert;
    const double ours = one_per_gpu_time(models[0], cluster, expert_on);
    std::iota(expert_on.begin(), expert_on.end(), 0);
    double best = std::numeric_limits<double>::infinity();
    do {
      best = std::min(best, one_per_gpu_time(models[0], cluster, expert_on));
    } while (std::next_permutation(expert_on.begin(), expert_on.end()));
    EXPECT_NEAR(ours, best, 1e-9 * best) << "instance " << instance << ", n " << n;
    const double scratch = layer_time_us(problem_of(models, cluster), Assignment{gpu_of});
    EXPECT_NEAR(scratch, ours, 1e-9 * ours) << "layer_time.h disagrees with the formula";
  }
}

TEST(BottleneckMatching, EqualsBruteForce) {
  std::mt19937_64 random(36);
  for (int instance = 0; instance < 300; ++instance) {
    const int n = 1 + instance % 7;
    std::vector<double> first;
    std::vector<double> second;
    for (int i = 0; i < n * n; ++i) {
      first.push_back(static_cast<double>(random() % 20));
      second.push_back(static_cast<double>(random() % 20));
    }
    std::vector<int> columns(static_cast<std::size_t>(n));
    std::iota(columns.begin(), columns.end(), 0);
    double best = 1e9;
    double best_sum = 1e9;
    do {
      double a = 0;
      double b = 0;
      for (int row = 0; row < n; ++row) {
        a = std::max(a, first[static_cast<std::size_t>(row * n + columns[row])]);
        b = std::max(b, second[static_cast<std::size_t>(row * n + columns[row])]);
      }
      best = std::min(best, a);
      best_sum = std::min(best_sum, a + b);
    } while (std::next_permutation(columns.begin(), columns.end()));
    EXPECT_EQ(bottleneck_matching(n, first).value, best);
    const Matching sum = bottleneck_sum_matching(n, first, second);
    EXPECT_EQ(sum.value, best_sum);
    std::vector<int> sorted = sum.column_of_row;
    std::sort(sorted.begin(), sorted.end());
    for (int column = 0; column < n; ++column) EXPECT_EQ(sorted[column], column) << "not a permutation";
  }
}

TEST(PairExperts, SortedPairingIsAsGoodAsAnyWhenSendEqualsReceive) {
  std::mt19937_64 random(37);
  for (int instance = 0; instance < 100; ++instance) {
    const std::size_t n = 2 + static_cast<std::size_t>(instance) % 5;
    std::vector<WireLoad> a;
    std::vector<WireLoad> b;
    for (std::size_t i = 0; i < n; ++i) {
      const auto x = static_cast<double>(random() % 100);
      const auto y = static_cast<double>(random() % 100);
      a.push_back({x, x});
      b.push_back({y, y});
    }
    const auto worst = [&](const std::vector<int>& partner) {
      double largest = 0;
      for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, a[i].send + b[partner[i]].send);
      return largest;
    };
    std::vector<int> partner(n);
    std::iota(partner.begin(), partner.end(), 0);
    double best = 1e9;
    do {
      best = std::min(best, worst(partner));
    } while (std::next_permutation(partner.begin(), partner.end()));
    EXPECT_EQ(worst(pair_experts(a, b)), best);
  }
}

TEST(PaperPlacement, SortsExpertsOntoGpusFromFastToSlow) {
  ModelTraffic model;
  model.model = "a";
  model.num_experts = 3;
  model.top_k = 1;
  model.layers = {{{{1, 7, 4}, {1, 7, 4}, {1, 7, 4}}, {}}};
  ClusterSpec cluster = uniform_cluster(3, 100);
  cluster.gpus[0].compute = 0.5;
  cluster.gpus[1].compute = 0.7;
  const ModelPlacement placement = plan_placement(PlacementPolicy::kPaper, model, cluster, {});
  EXPECT_EQ(placement.layers[0].experts[1][0].gpu, GpuId{2});
  EXPECT_EQ(placement.layers[0].experts[2][0].gpu, GpuId{1});
  EXPECT_EQ(placement.layers[0].experts[0][0].gpu, GpuId{0});
}

TEST(Lina, PacksTheHottestWithTheColdestAndKeepsModelsApart) {
  std::mt19937_64 random(38);
  std::vector<ModelTraffic> models{random_model({.name = "a", .num_experts = 4, .num_sources = 4}, random),
                                   random_model({.name = "b", .num_experts = 4, .num_sources = 4}, random)};
  models[0].layers[0].dispatch.assign(4, {40, 30, 20, 10});
  models[0].layers[0].samples.clear();
  const DeploymentPlan plan = plan_deployment(models, uniform_cluster(4, 100), PlacementPolicy::kLina, {});
  const LayerPlacement& a = plan.models[0].layers[0];
  EXPECT_EQ(a.experts_on({0}), (std::vector<ExpertId>{{0}, {3}}));
  EXPECT_EQ(a.experts_on({1}), (std::vector<ExpertId>{{1}, {2}}));
  for (const auto& replicas : plan.models[1].layers[0].experts) EXPECT_GE(replicas[0].gpu.value, 2);
}

TEST(Memory, IsNeverExceeded) {
  std::mt19937_64 random(39);
  for (int instance = 0; instance < 40; ++instance) {
    std::vector<ModelTraffic> models;
    double needed = 0;
    for (const char* name : {"a", "b"}) {
      models.push_back(random_model({.name = name,
                                     .num_layers = 1 + static_cast<int>(random() % 3),
                                     .num_experts = 2 + static_cast<int>(random() % 9),
                                     .num_sources = 4,
                                     .tokens_per_source = 20},
                                    random));
      models.back().expert_bytes = 1e6 * static_cast<double>(1 + random() % 5);
      needed += static_cast<double>(models.back().layers.size()) * models.back().num_experts *
                models.back().expert_bytes;
    }
    ClusterSpec cluster = uniform_cluster(4, 100);
    for (ClusterGpu& gpu : cluster.gpus)
      gpu.memory_bytes = needed / 4 * (1.1 + 0.1 * static_cast<double>(random() % 8)) + 5e6;
    for (const PlacementPolicy policy :
         {PlacementPolicy::kAuto, PlacementPolicy::kContiguous, PlacementPolicy::kRandom,
          PlacementPolicy::kRoundRobin, PlacementPolicy::kRec, PlacementPolicy::kLina}) {
      const DeploymentPlan plan = plan_deployment(models, cluster, policy, {});
      for (int gpu = 0; gpu < 4; ++gpu) {
        double used = 0;
        for (std::size_t model = 0; model < models.size(); ++model) {
          for (const LayerPlacement& layer : plan.models[model].layers) {
            used += static_cast<double>(layer.experts_on({gpu}).size()) * models[model].expert_bytes;
          }
        }
        EXPECT_LE(used, cluster.gpus[gpu].memory_bytes)
            << placement_policy_name(policy) << ", instance " << instance;
      }
    }
  }
}

TEST(Memory, ThatDoesNotSufficeIsToldWithTheSmallestClusterThatWould) {
  std::mt19937_64 random(40);
  const ModelTraffic model = random_model({.num_layers = 2, .num_experts = 8, .num_sources = 4}, random);
  ClusterSpec cluster = uniform_cluster(4, 100);  // 16 experts of 0.1 GB into 4 x 0.35 GB: three fit on each
  for (ClusterGpu& gpu : cluster.gpus) gpu.memory_bytes = 3.5e8;
  try {
    plan_placement(PlacementPolicy::kAuto, model, cluster, {});
    FAIL() << "1.6 GB were placed into 1.4 GB";
  } catch (const std::invalid_argument& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("need 1.600 GB"), std::string::npos) << text;
    EXPECT_NE(text.find("0.200 GB too little"), std::string::npos) << text;
    EXPECT_NE(text.find("6 GPUs of 0.350 GB"), std::string::npos) << text;
  }
  cluster = uniform_cluster(6, 100);
  for (ClusterGpu& gpu : cluster.gpus) gpu.memory_bytes = 3.5e8;
  EXPECT_NO_THROW(plan_placement(PlacementPolicy::kAuto, model, cluster, {})) << "the cluster it asked for";
}

/// The published example of EPLB: 12 experts, 16 replicas, 8 GPUs, two layers; loads per expert. Compute is
/// all that counts: no bytes.
ModelTraffic eplb_example() {
  ModelTraffic model;
  model.model = "a";
  model.num_experts = 12;
  model.top_k = 1;
  model.expert_us_per_token = 1;
  model.expert_bytes = 1;
  model.layers = {{{{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}}, {}},
                  {{{20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}}, {}}};
  return model;
}

/// Largest load of a GPU over the mean, of each layer.
std::vector<double> imbalance(const ModelTraffic& model, const ModelPlacement& placement, int num_gpus) {
  std::vector<double> ratios;
  for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
    std::vector<double> load(static_cast<std::size_t>(num_gpus));
    double total = 0;
    for (std::size_t expert = 0; expert < 12; ++expert) {
      const double tokens = model.layers[layer].dispatch[0][expert];
      total += tokens;
      for (const ExpertReplica& replica : placement.layers[layer].experts[expert]) {
        load[replica.gpu.value] += tokens * replica.share;
      }
    }
    ratios.push_back(*std::max_element(load.begin(), load.end()) / total * num_gpus);
  }
  return ratios;
}

TEST(Replication, BalancesEplbsExampleAtLeastAsWellAsEplb) {
  const ModelTraffic model = eplb_example();
  ClusterSpec cluster = uniform_cluster(8, 100);
  for (ClusterGpu& gpu : cluster.gpus) gpu.memory_bytes = 4;  // two experts of each layer: 16 copies a layer
  const PlacementOptions options{.num_replicas = 4};
  const auto theirs = imbalance(model, plan_placement(PlacementPolicy::kEplb, model, cluster, options), 8);
  const auto ours = imbalance(model, plan_placement(PlacementPolicy::kAuto, model, cluster, options), 8);
  std::printf("max/mean: eplb %.3f %.3f, auto %.3f %.3f\n", theirs[0], theirs[1], ours[0], ours[1]);
  EXPECT_LE(ours[0], 1.208);
  EXPECT_LE(ours[1], 1.242);
}

TEST(Replication, NeverHurtsAndKeepsToTheSlots) {
  std::mt19937_64 random(44);
  for (int instance = 0; instance < 8; ++instance) {
    const std::vector<ModelTraffic> models{
        random_model({.name = "a", .num_experts = 8, .top_k = 2, .num_sources = 4, .skew = 4}, random),
        random_model({.name = "b", .num_experts = 6, .num_sources = 4, .skew = 4}, random)};
    ClusterSpec cluster = test_cluster(4, instance % 2 == 1);
    for (ClusterGpu& gpu : cluster.gpus) gpu.memory_bytes = 6e8;
    const auto plan_with = [&](int num_replicas) {
      return plan_deployment(models, cluster, PlacementPolicy::kAuto, {.num_replicas = num_replicas});
    };
    const DeploymentPlan replicated = plan_with(3);
    EXPECT_LE(planned_time(models, cluster, replicated),
              planned_time(models, cluster, plan_with(0)) * (1 + 1e-9));
    for (int gpu = 0; gpu < 4; ++gpu) {
      std::size_t copies = 0;
      for (const ModelPlacement& model : replicated.models)
        copies += model.layers[0].experts_on({gpu}).size();
      EXPECT_LE(copies, 6u);
    }
    for (const ModelPlacement& model : replicated.models) {
      std::size_t copies = 0;
      for (const auto& replicas : model.layers[0].experts) copies += replicas.size();
      EXPECT_LE(copies, model.layers[0].experts.size() + 3);
    }
  }
}

TEST(ExchangeRows, CountATokenOncePerDestination) {
  std::mt19937_64 random(41);
  for (int instance = 0; instance < 30; ++instance) {
    const int n = 2 + instance % 4;
    const ModelTraffic model = random_model({.num_experts = 9, .top_k = 3, .num_sources = n}, random);
    std::vector<int> gpu_of;
    for (int expert = 0; expert < 9; ++expert)
      gpu_of.push_back(static_cast<int>(random() % static_cast<std::uint64_t>(n)));
    // All tokens are sampled, so the estimate must equal a count token by token.
    std::vector<double> expected(static_cast<std::size_t>(n * n));
    for (int source = 0; source < n; ++source) {
      for (const auto& experts : model.layers[0].samples[source]) {
        std::vector<bool> is_seen(static_cast<std::size_t>(n));
        for (const ExpertId expert : experts) is_seen[gpu_of[expert.value]] = true;
        for (int gpu = 0; gpu < n; ++gpu)
          expected[static_cast<std::size_t>(source * n + gpu)] += is_seen[gpu] ? 1 : 0;
      }
    }
    const std::vector<double> rows =
        exchange_rows(LayerDemand(model.layers[0], model, n), placement_of(gpu_of));
    for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(rows[i], expected[i], 1e-9);
    const TrafficMatrix bytes = dispatch_bytes(model, 0, placement_of(gpu_of), n);
    EXPECT_EQ(bytes.at(0, 1), static_cast<Bytes>(expected[1] * 4096));
    EXPECT_EQ(combine_bytes(model, 0, placement_of(gpu_of), n), bytes.transposed());
  }
}

TEST(ExchangeRows, OfTrafficFromAnotherNumberOfSourcesAreSpreadEvenly) {
  std::mt19937_64 random(42);
  const ModelTraffic model = random_model({.num_experts = 6, .top_k = 2, .num_sources = 2}, random);
  const LayerDemand demand(model.layers[0], model, 4);
  EXPECT_DOUBLE_EQ(demand.tokens[0], 50);  // 2 sources of 100 tokens over 4 GPUs
  EXPECT_DOUBLE_EQ(demand.pairs(3, 1), demand.expert_pairs[1] / 4);
}

TEST(LayerTime, FollowsThePapersTable) {
  // Two GPUs; only the maxima count, and both models keep both GPUs equally busy.
  const auto load = [](double gate, double experts, double aggregate, double dispatch, double combine) {
    const std::vector<double> wire{dispatch, dispatch};
    const std::vector<double> back{combine, combine};
    return LayerLoad{{gate, gate}, {experts, experts}, {aggregate, aggregate}, wire, wire, back, back};
  };
  const std::vector<LayerLoad> loads{load(1, 10, 2, 20, 20), load(3, 5, 4, 8, 6)};
  // N^a ends 20, N^b 28; F^a 20..30, F^b 30..35; C^a ends max(48, 50) = 50, C^b max(54, 41) = 54; A^a 50..52,
  // A^b 54..58, then G^a.
  EXPECT_DOUBLE_EQ(colocated_layer_time_us(loads), 59);
  EXPECT_DOUBLE_EQ(exclusive_layer_time_us(loads[0]), 1 + 20 + 10 + 20 + 2);
  EXPECT_DOUBLE_EQ(utilisation({loads.data(), 1}, 53), 13.0 / 53);
}

TEST(UniformTraffic, IsPlacedEvenly) {
  const ModelTraffic model =
      uniform_traffic({.model = "a", .num_layers = 3, .num_experts = 60, .top_k = 4, .num_gpus = 8});
  const ModelPlacement placement = plan_placement(PlacementPolicy::kAuto, model, uniform_cluster(8, 10), {});
  for (const LayerPlacement& layer : placement.layers) {
    for (int gpu = 0; gpu < 8; ++gpu) {
      EXPECT_GE(layer.experts_on({gpu}).size(), 7u);
      EXPECT_LE(layer.experts_on({gpu}).size(), 8u);
    }
  }
}

TEST(Traffic, ThatContradictsItselfIsRefused) {
  std::mt19937_64 random(43);
  const ModelTraffic good = random_model({.num_experts = 4, .top_k = 2, .num_sources = 2}, random);
  EXPECT_NO_THROW(validate(good));
  const auto refused = [&](const std::function<void(ModelTraffic&)>& spoil) {
    ModelTraffic bad = good;
    spoil(bad);
    EXPECT_THROW(validate(bad), std::invalid_argument);
  };
  refused([](ModelTraffic& t) { t.top_k = 5; });
  refused([](ModelTraffic& t) { t.layers[0].dispatch[1].pop_back(); });
  refused([](ModelTraffic& t) { t.layers[0].dispatch[0][0] = -1; });
  refused([](ModelTraffic& t) { t.layers[0].dispatch[0][0] = std::numeric_limits<double>::quiet_NaN(); });
  refused([](ModelTraffic& t) { t.layers[0].dispatch[0][0] += 1; });
  refused([](ModelTraffic& t) { t.layers[0].dispatch[0] = {8, 1, 1, 0}; });
  refused([](ModelTraffic& t) { t.layers[0].samples[0][0] = {{1}, {1}}; });
  refused([](ModelTraffic& t) { t.layers[0].samples[0][0] = {{1}}; });
  refused([](ModelTraffic& t) { t.layers[0].samples[0][0] = {{1}, {4}}; });
  refused([](ModelTraffic& t) { t.layers[0].samples.pop_back(); });
  refused([](ModelTraffic& t) { t.layers[0].dispatch.clear(); });
  refused([](ModelTraffic& t) { t.expert_us_per_token = -1; });
  EXPECT_THROW(plan_deployment(std::vector<ModelTraffic>{good, good}, uniform_cluster(2, 10),
                               PlacementPolicy::kAuto, {}),
               std::invalid_argument);
  EXPECT_THROW(plan_placement(PlacementPolicy::kAuto, good, {}, {}), std::invalid_argument);
}

}  // namespace
}  // namespace aurora
