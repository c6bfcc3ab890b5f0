// What the search for placements rests on, each against counting or trying everything: branch and bound,
// lower bounds, sampled tokens as bits, loads kept up to date change by change, slots.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

#include "scheduler/branch_and_bound.h"
#include "scheduler/brute_force.h"
#include "scheduler/copy_state.h"
#include "scheduler/expert_slots.h"
#include "scheduler/layer_time_bound.h"
#include "scheduler/placement.h"
#include "scheduler/placement_problem.h"
#include "scheduler/placement_state.h"
#include "scheduler/sample_bits.h"
#include "scheduler/simulated_choice.h"
#include "scheduler/timeline.h"
#include "tests/scheduler/random_models.h"

namespace aurora {
namespace {

using test::random_model;

/// Compute and ports drawn apart from each other.
ClusterSpec random_cluster(int num_gpus, std::mt19937_64& random) {
  const std::vector<double> speeds{1.0, 0.8, 0.5, 0.4};
  ClusterSpec cluster = uniform_cluster(num_gpus, 100);
  for (ClusterGpu& gpu : cluster.gpus) {
    gpu.compute = speeds[random() % 4];
    gpu.port_gbps = 100 * speeds[random() % 4];
  }
  return cluster;
}

struct Setting {
  ClusterSpec cluster;
  std::vector<ModelTraffic> models;
};

/// Sources have 1 to 3 times the same tokens.
Setting random_setting(const std::vector<int>& experts, int num_gpus, bool has_samples,
                       std::mt19937_64& random) {
  Setting setting{random_cluster(num_gpus, random), {}};
  for (const int num_experts : experts) {
    const std::string name(1, static_cast<char>('a' + setting.models.size()));
    setting.models.push_back(random_model({.name = name,
                                           .num_experts = num_experts,
                                           .top_k = 1 + static_cast<int>(random() % 2) * (num_experts > 1),
                                           .num_sources = num_gpus,
                                           .tokens_per_source = 60,
                                           .has_samples = has_samples},
                                          random));
    for (auto& counts : setting.models.back().layers[0].dispatch) {
      const auto factor = static_cast<double>(1 + random() % 3);
      for (double& count : counts) count *= factor;
    }
  }
  return setting;
}

/// The least layer time over all assignments within the slots, each computed from scratch.
double least_time_us(const LayerProblem& problem) {
  double least = std::numeric_limits<double>::infinity();
  Assignment assignment;
  for (const LayerDemand& demand : problem.demands) assignment.emplace_back(demand.expert_pairs.size(), 0);
  const auto fits = [&] {
    for (std::size_t model = 0; model < assignment.size(); ++model) {
      for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
        if (std::count(assignment[model].begin(), assignment[model].end(), gpu) > problem.slots[model][gpu])
          return false;
      }
    }
    return true;
  };
  for (bool is_done = false; !is_done;) {
    if (fits()) least = std::min(least, layer_time_us(problem, assignment));
    is_done = true;
    for (auto& gpu_of : assignment) {
      for (int& gpu : gpu_of) {
        if (!is_done) continue;
        gpu = (gpu + 1) % problem.num_gpus();
        is_done = gpu == 0;
      }
    }
  }
  return least;
}

TEST(BranchAndBound, FindsTheBestOfAllPlacementsWithOneExpertOfEachModelOnAGpu) {
  const std::uint64_t seed = 61;
  std::mt19937_64 random(seed);
  const std::vector<std::pair<int, std::vector<int>>> shapes{{2, {2, 2}},    {3, {3, 3}}, {3, {3, 1}},
                                                             {3, {2, 3, 2}}, {4, {4, 3}}, {4, {4, 4}}};
  for (int instance = 0; instance < 36; ++instance) {
    const auto& [num_gpus, experts] = shapes[static_cast<std::size_t>(instance) % shapes.size()];
    const Setting setting = random_setting(experts, num_gpus, false, random);
    LayerProblem problem = test::problem_of(setting, 1);
    if (instance % 5 == 0 && experts.back() < num_gpus) problem.slots.back()[random() % 3] = 0;
    const double best = least_time_us(problem);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", instance " + std::to_string(instance));
    ASSERT_TRUE(can_branch_and_bound(problem));
    const BranchAndBoundResult found = branch_and_bound(problem, {.limit_us = 10 * best});
    ASSERT_TRUE(found.assignment);
    EXPECT_TRUE(found.is_proven);
    EXPECT_NEAR(found.layer_time_us, best, 1e-9 * best);
    EXPECT_NEAR(layer_time_us(problem, *found.assignment), best, 1e-9 * best);
    for (std::size_t model = 0; model < experts.size(); ++model) {
      const auto& gpu_of = (*found.assignment)[model];
      EXPECT_EQ(std::set<int>(gpu_of.begin(), gpu_of.end()).size(), gpu_of.size()) << "two on one GPU";
      for (const int gpu : gpu_of) EXPECT_EQ(problem.slots[model][gpu], 1);
    }
    const BranchAndBoundResult nothing = branch_and_bound(problem, {.limit_us = best * (1 - 1e-6)});
    EXPECT_FALSE(nothing.assignment) << "nothing is below the optimum";
    EXPECT_TRUE(nothing.is_proven);
  }
}

TEST(BranchAndBound, ThatRunsOutOfTrialsClaimsNoProof) {
  std::mt19937_64 random(62);
  const Setting setting = random_setting({6, 6}, 6, false, random);
  const LayerProblem problem = test::problem_of(setting, 1);
  const BranchAndBoundResult cut = branch_and_bound(problem, {.limit_us = 1e12, .max_trials = 1});
  EXPECT_FALSE(cut.is_proven);
  EXPECT_FALSE(cut.assignment);
}

TEST(BranchAndBound, RefusesWhatItCannotSolve) {
  std::mt19937_64 random(63);
  Setting setting = random_setting({5, 3}, 4, false, random);
  EXPECT_THROW(branch_and_bound(test::problem_of(setting, 1), {.limit_us = 1e12}), std::invalid_argument);
  setting = random_setting({4, 3}, 4, false, random);
  EXPECT_TRUE(can_branch_and_bound(test::problem_of(setting, 1)));
  setting.cluster.link_gbps = 400;
  EXPECT_FALSE(can_branch_and_bound(test::problem_of(setting, 1))) << "links inside nodes";
}

TEST(AutoPlacement, WithRoomForOneExpertOfEachModelIsTheOptimumOrTiesWithIt) {
  const std::uint64_t seed = 64;
  std::mt19937_64 random(seed);
  for (int instance = 0; instance < 40; ++instance) {
    const int num_gpus = 2 + instance % 3;
    std::vector<int> experts{num_gpus};
    if (instance % 2 == 1) experts.push_back(std::max(1, num_gpus - instance % 4 / 2));
    Setting setting = random_setting(experts, num_gpus, instance % 5 == 0, random);
    for (ClusterGpu& gpu : setting.cluster.gpus)
      gpu.memory_bytes = setting.models[0].expert_bytes * static_cast<double>(experts.size());
    const DeploymentPlan plan = plan_deployment(setting.models, setting.cluster, PlacementPolicy::kAuto, {});
    std::vector<LayerPlacement> placements;
    for (const ModelPlacement& model : plan.models) placements.push_back(model.layers[0]);
    const LayerProblem problem = test::problem_of(setting, 1);
    const double best = least_time_us(problem);
    // Of several models' placements within 0.4 % the event simulation chooses.
    const double tie = experts.size() > 1 ? 0.004 : 1e-9;
    EXPECT_GE(layer_time_us(problem, placements), best * (1 - 1e-9));
    EXPECT_LE(layer_time_us(problem, placements), best * (1 + tie) * (1 + 1e-9))
        << "seed " << seed << ", instance " << instance;
  }
}

TEST(ProvenDeployment, IsTheBestOfAllPlacementsOrNothing) {
  const std::uint64_t seed = 66;
  std::mt19937_64 random(seed);
  for (int instance = 0; instance < 12; ++instance) {
    Setting setting = random_setting({4, 3}, 4, false, random);
    EXPECT_FALSE(proven_deployment(setting.models, setting.cluster)) << "room for all experts on a GPU";
    for (ClusterGpu& gpu : setting.cluster.gpus) gpu.memory_bytes = 2 * setting.models[0].expert_bytes;
    const auto plan = proven_deployment(setting.models, setting.cluster);
    ASSERT_TRUE(plan);
    std::vector<LayerPlacement> placements;
    for (const ModelPlacement& model : plan->models) placements.push_back(model.layers[0]);
    const LayerProblem problem = test::problem_of(setting, 1);
    const double best = least_time_us(problem);
    EXPECT_NEAR(layer_time_us(problem, placements), best, 1e-9 * best)
        << "seed " << seed << ", instance " << instance;
  }
}

double simulated_us(const LayerProblem& problem, const Assignment& assignment) {
  std::vector<std::vector<LayerWork>> work;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    work.push_back({layer_work(problem.demands[model], placement_of(assignment[model]),
                               *problem.models[model], *problem.cluster)});
  }
  return simulate_layers(work, *problem.cluster, Execution::kOverlapped).makespan_us;
}

TEST(ChoiceBySimulation, LowersTheSimulatedTimeAndKeepsToItsToleranceAndTheSlots) {
  const std::uint64_t seed = 67;
  std::mt19937_64 random(seed);
  int num_faster = 0;
  for (int instance = 0; instance < 40; ++instance) {
    const Setting setting = random_setting({5, 4}, 5, instance % 2 == 0, random);
    const LayerProblem problem = test::problem_of(setting, 1);
    Assignment start{{0, 1, 2, 3, 4}, {0, 1, 2, 3}};
    for (auto& gpus : start) std::shuffle(gpus.begin(), gpus.end(), random);
    const double tolerance = instance % 3 * 0.05;
    const Assignment chosen =
        choose_by_simulation(problem, start, {.tolerance = tolerance, .max_simulations = 20});
    EXPECT_LE(layer_time_us(problem, chosen), layer_time_us(problem, start) * (1 + tolerance) * (1 + 1e-9))
        << "seed " << seed << ", instance " << instance;
    EXPECT_LE(simulated_us(problem, chosen), simulated_us(problem, start) * (1 + 1e-9))
        << "seed " << seed << ", instance " << instance;
    num_faster += simulated_us(problem, chosen) < simulated_us(problem, start) * (1 - 1e-6);
    for (std::vector<int> gpus : chosen) {
      std::sort(gpus.begin(), gpus.end());
      EXPECT_EQ(std::adjacent_find(gpus.begin(), gpus.end()), gpus.end()) << "one expert on a GPU";
    }
    EXPECT_EQ(choose_by_simulation(problem, start, {.tolerance = tolerance, .max_simulations = 1}), start);
  }
  EXPECT_GE(num_faster, 30) << "a random start leaves much to gain";
}

TEST(LayerTimeBound, IsNeverAboveTheBestOfAllPlacements) {
  const std::uint64_t seed = 65;
  std::mt19937_64 random(seed);
  const std::vector<std::pair<int, std::vector<int>>> shapes{{2, {7}},    {3, {5}},    {4, {4}},
                                                             {2, {4, 3}}, {3, {3, 3}}, {2, {2, 3, 2}}};
  for (int instance = 0; instance < 72; ++instance) {
    const auto& [num_gpus, experts] = shapes[static_cast<std::size_t>(instance) % shapes.size()];
    Setting setting = random_setting(experts, num_gpus, instance / 6 % 2 == 1, random);
    if (instance % 7 == 0) setting.cluster.link_gbps = 300;
    const LayerProblem problem = test::problem_of(setting, instance % 3 == 0 ? 4 : 7);
    const double best = least_time_us(problem);
    const double bound = layer_time_bound_us(problem);
    EXPECT_GT(bound, 0);
    EXPECT_LE(bound, best * (1 + 1e-9)) << "seed " << seed << ", instance " << instance;
  }
}

TEST(LayerTimeBound, OfEqualSmallExpertsIsWhatDividingTheWorkGives) {
  // 64 equal experts, compute alone: GPUs of compute 1, 1, 0.5 and 0.5 share 64 experts of 10 us by speed.
  ModelTraffic model;
  model.model = "a";
  model.num_experts = 64;
  model.top_k = 1;
  model.expert_us_per_token = 1;
  model.layers = {{std::vector<std::vector<double>>(4, std::vector<double>(64, 2.5)), {}}};
  Setting setting{uniform_cluster(4, 100), {model}};
  setting.cluster.gpus[2].compute = setting.cluster.gpus[3].compute = 0.5;
  const double divided = 64 * 10 / 3.0;
  const double bound = layer_time_bound_us(test::problem_of(setting, 64), 2000);
  EXPECT_LE(bound, divided * (1 + 1e-9));
  EXPECT_GE(bound, divided * 0.99);
}

TEST(LayerTimeBound, KnowsThatAnExpertCannotBeDivided) {
  // One expert has all the work: 400 us on the fastest GPU, though eight GPUs could divide 50 each.
  ModelTraffic model;
  model.model = "a";
  model.num_experts = 8;
  model.top_k = 1;
  model.expert_us_per_token = 1;
  model.layers = {{std::vector<std::vector<double>>(8, {50, 0, 0, 0, 0, 0, 0, 0}), {}}};
  const Setting setting{uniform_cluster(8, 100), {model}};
  EXPECT_NEAR(layer_time_bound_us(test::problem_of(setting, 8)), 400, 1e-9);
}

TEST(SampleBits, CountUnionsAsSetsDo) {
  const std::uint64_t seed = 66;
  std::mt19937_64 random(seed);
  for (const int num_tokens : {1, 63, 64, 65, 300}) {
    const ModelTraffic model = random_model(
        {.num_experts = 9, .top_k = 3, .num_sources = 3, .tokens_per_source = num_tokens}, random);
    const LayerDemand demand(model.layers[0], model, 3);
    const SampleBits bits(demand, 1 << 20);
    std::vector<std::int32_t> counts(3);
    for (int a = 0; a < 9; ++a) {
      for (int b = 0; b < 9; ++b) {
        bits.count_union(bits.tokens_of(a), bits.tokens_of(b), counts);
        for (std::size_t source = 0; source < 3; ++source) {
          std::int32_t expected = 0;
          std::int32_t uses_a = 0;
          for (const auto& experts : model.layers[0].samples[source]) {
            const auto uses = [&](int expert) {
              return std::find(experts.begin(), experts.end(), ExpertId{expert}) != experts.end();
            };
            expected += uses(a) || uses(b) ? 1 : 0;
            uses_a += uses(a) ? 1 : 0;
          }
          EXPECT_EQ(counts[source], expected) << "seed " << seed << ", " << num_tokens << " tokens";
          EXPECT_EQ(bits.pairs_of(a)[source], uses_a);
        }
      }
    }
  }
}

TEST(SampleBits, KeepAnEvenPartOfLongSamples) {
  // The first half of the tokens uses expert 0, the second expert 1: a part that is even has as many of both.
  ModelTraffic model;
  model.model = "a";
  model.num_experts = 2;
  model.top_k = 1;
  LayerTraffic layer{{{500, 500}}, {{}}};
  for (int token = 0; token < 1000; ++token) layer.samples[0].push_back({{token / 500}});
  model.layers = {layer};
  const SampleBits bits(LayerDemand(model.layers[0], model, 1), 2);
  EXPECT_EQ(bits.num_words(), 2u);
  EXPECT_EQ(bits.pairs_of(0)[0], 64);
  EXPECT_EQ(bits.pairs_of(1)[0], 64);
}

TEST(PlacementState, AgreesWithLayerTimesFromScratch) {
  const std::uint64_t seed = 67;
  std::mt19937_64 random(seed);
  for (int instance = 0; instance < 24; ++instance) {
    const int n = 2 + instance % 4;
    std::vector<int> experts{7};
    if (instance % 3 != 0) experts.push_back(5);
    Setting setting = random_setting(experts, n, instance % 2 == 1, random);
    if (instance % 4 >= 2) {
      setting.cluster.link_gbps = 400;
      for (int gpu = 0; gpu < n; ++gpu) setting.cluster.gpus[gpu].node = gpu / 2;
    }
    const LayerProblem problem = test::problem_of(setting, 12);
    Assignment start;
    for (const int count : experts) start.emplace_back(static_cast<std::size_t>(count), 0);
    PlacementState state(problem, start);
    for (int step = 0; step < 30; ++step) {
      const auto any_expert = [&] {
        const std::size_t model = random() % experts.size();
        return ExpertRef{model, static_cast<int>(random() % static_cast<std::uint64_t>(experts[model]))};
      };
      const ExpertRef a = any_expert();
      const ExpertRef b = any_expert();
      const double limit = std::numeric_limits<double>::infinity();
      PlacementState::Trial trial;
      if (state.gpu_of(a) != state.gpu_of(b)) {
        trial = state.try_swap(a, b, limit);
        state.swap(a, b);
      } else {
        const int to = (state.gpu_of(a) + 1) % n;
        trial = state.try_move(a, to, limit);
        state.move(a, to);
      }
      const double scratch = layer_time_us(problem, state.assignment());
      EXPECT_NEAR(state.layer_time_us(), scratch, 1e-9 * scratch) << "seed " << seed << ", " << instance;
      EXPECT_NEAR(trial.layer_time_us, scratch, 1e-9 * scratch) << "seed " << seed << ", " << instance;
      EXPECT_NEAR(trial.score_us, state.score_us(), 1e-9 * trial.score_us);
      EXPECT_GE(trial.score_us, trial.layer_time_us);
    }
  }
}

/// One to three copies on distinct GPUs, with shares in eighths; one copy often has them all.
std::vector<ExpertReplica> random_copies(int num_gpus, std::mt19937_64& random) {
  std::vector<int> gpus(static_cast<std::size_t>(num_gpus));
  std::iota(gpus.begin(), gpus.end(), 0);
  std::shuffle(gpus.begin(), gpus.end(), random);
  gpus.resize(1 + random() % 3);
  std::sort(gpus.begin(), gpus.end());
  std::vector<ExpertReplica> copies;
  double left = 1;
  for (const int gpu : gpus) {
    const double share = copies.size() + 1 == gpus.size() ? left : static_cast<double>(1 + random() % 3) / 8;
    copies.push_back({{gpu}, share});
    left -= share;
  }
  return copies;
}

TEST(CopyState, AgreesWithLoadsFromScratchAfterManyChanges) {
  const std::uint64_t seed = 68;
  std::mt19937_64 random(seed);
  for (int instance = 0; instance < 8; ++instance) {
    const int num_gpus = 4;
    Setting setting = random_setting({9, 6}, num_gpus, instance % 2 == 0, random);
    if (instance % 4 < 2) {
      setting.cluster.link_gbps = 400;
      setting.cluster.gpus[3].node = setting.cluster.gpus[2].node = 1;
    }
    const LayerProblem problem = test::problem_of(setting, 9);
    std::vector<LayerPlacement> placements;
    for (const LayerDemand& demand : problem.demands) {
      placements.push_back(placement_of(std::vector<int>(static_cast<std::size_t>(demand.num_experts))));
    }
    CopyState state(problem, placements);
    for (int change = 0; change < 400; ++change) {
      const std::size_t model = random() % 2;
      const int expert = static_cast<int>(random() % placements[model].experts.size());
      placements[model].experts[expert] = random_copies(num_gpus, random);
      state.set_copies(model, expert, placements[model].experts[expert]);
    }
    for (std::size_t model = 0; model < 2; ++model) {
      const LayerLoad expected =
          layer_load(problem.demands[model], placements[model], *problem.models[model], *problem.cluster);
      const LayerLoad& load = state.loads()[model];
      for (int gpu = 0; gpu < num_gpus; ++gpu) {
        const double tolerance = 1e-9 * layer_time_us(problem, placements);
        EXPECT_NEAR(load.gate_us[gpu], expected.gate_us[gpu], tolerance);
        EXPECT_NEAR(load.expert_us[gpu], expected.expert_us[gpu], tolerance);
        EXPECT_NEAR(load.aggregate_us[gpu], expected.aggregate_us[gpu], tolerance);
        EXPECT_NEAR(load.dispatch_send_us[gpu], expected.dispatch_send_us[gpu], tolerance)
            << "seed " << seed << ", instance " << instance;
        EXPECT_NEAR(load.dispatch_receive_us[gpu], expected.dispatch_receive_us[gpu], tolerance);
        EXPECT_NEAR(load.combine_send_us[gpu], expected.combine_send_us[gpu], tolerance);
        EXPECT_NEAR(load.combine_receive_us[gpu], expected.combine_receive_us[gpu], tolerance);
      }
    }
  }
}

TEST(ExpertSlots, GiveWhatRoundingLeavesToTheModelWithTheFewestSlots) {
  // Room for two experts on each of 8 GPUs. In proportion to size, b's part of a GPU holds no expert at all.
  std::mt19937_64 random(68);
  const Setting setting = random_setting({8, 5}, 8, false, random);
  ClusterSpec cluster = setting.cluster;
  for (ClusterGpu& gpu : cluster.gpus) gpu.memory_bytes = 2 * setting.models[0].expert_bytes;
  const ExpertSlots slots = expert_slots(setting.models, cluster);
  EXPECT_EQ(slots[0][0], std::vector<int>(8, 1));
  EXPECT_EQ(slots[1][0], std::vector<int>(8, 1));
}

}  // namespace
}  // namespace aurora
