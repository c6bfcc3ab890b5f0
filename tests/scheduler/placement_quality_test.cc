// How good and how fast `auto` is, over many instances: against exact optima, lower bounds and the event
// simulation. Prints its figures; asserts quality, never times.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "scheduler/branch_and_bound.h"
#include "scheduler/layer_time_bound.h"
#include "scheduler/placement.h"
#include "scheduler/placement_problem.h"
#include "scheduler/plan_evaluation.h"
#include "tests/scheduler/random_models.h"

namespace aurora {
namespace {

using test::random_model;
using test::test_cluster;

/// Processor time, which other programs on the machine do not lengthen much; there is one thread.
double milliseconds_of(const std::function<void()>& work) {
  const std::clock_t start = std::clock();
  work();
  return 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

/// Values of all instances.
class Figures {
 public:
  void add(double value) { values_.push_back(value); }
  double mean() const {
    return std::accumulate(values_.begin(), values_.end(), 0.0) / static_cast<double>(values_.size());
  }
  double largest() const { return *std::max_element(values_.begin(), values_.end()); }
  double quantile(double part) {
    std::sort(values_.begin(), values_.end());
    return values_[static_cast<std::size_t>(part * static_cast<double>(values_.size() - 1))];
  }

 private:
  std::vector<double> values_;
};

struct Instance {
  std::vector<ModelTraffic> models;
  ClusterSpec cluster;
};

/// The paper's setting: n GPUs of four kinds in random order, room for one expert of each model on each.
Instance one_expert_each(int num_gpus, const std::vector<int>& experts, std::mt19937_64& random) {
  Instance instance;
  double bytes = 0;
  for (const int num_experts : experts) {
    instance.models.push_back(
        random_model({.name = std::string(1, static_cast<char>('a' + instance.models.size())),
                      .num_experts = num_experts,
                      .top_k = 1 + static_cast<int>(random() % 2),
                      .num_sources = num_gpus,
                      .tokens_per_source = 50 + static_cast<int>(random() % 200),
                      .has_samples = false},
                     random));
    bytes += instance.models.back().expert_bytes;
  }
  instance.cluster = test_cluster(num_gpus, true);
  std::shuffle(instance.cluster.gpus.begin(), instance.cluster.gpus.end(), random);
  for (ClusterGpu& gpu : instance.cluster.gpus) gpu.memory_bytes = bytes;
  return instance;
}

double simulated_us(const Instance& instance, const DeploymentPlan& plan) {
  return simulate_plan(plan, instance.models, instance.cluster, Execution::kOverlapped).makespan_us;
}

DeploymentPlan plan_of(const Instance& instance, const Assignment& assignment) {
  DeploymentPlan plan;
  plan.num_gpus = instance.cluster.num_gpus();
  for (std::size_t model = 0; model < instance.models.size(); ++model) {
    plan.models.push_back({instance.models[model].model, {placement_of(assignment[model])}});
  }
  return plan;
}

struct Shape {
  int num_gpus;
  std::vector<int> experts;  // of each model
  int num_instances;
  std::uint64_t seed;
};

struct Colocated {
  Figures ratio;            // auto over the optimum, by the closed form
  Figures simulated_ratio;  // the same two placements in the event simulation
  Figures paper_ratio;
  Figures planning_ms;
  Figures proof_ms;
};

/// Plans every instance, then lets branch and bound, from scratch and without a limit on its effort, find and
/// prove the optimum.
Colocated compare_with_optimum(const Shape& shape) {
  std::mt19937_64 random(shape.seed);
  Colocated figures;
  for (int index = 0; index < shape.num_instances; ++index) {
    const Instance instance = one_expert_each(shape.num_gpus, shape.experts, random);
    DeploymentPlan plan;
    figures.planning_ms.add(milliseconds_of(
        [&] { plan = plan_deployment(instance.models, instance.cluster, PlacementPolicy::kAuto, {}); }));
    const double ours = evaluate_plan(plan, instance.models, instance.cluster).mean_layer_time_us;
    BranchAndBoundResult exact;
    figures.proof_ms.add(milliseconds_of(
        [&] { exact = branch_and_bound(test::problem_of(instance, 1), {.limit_us = ours * (1 + 1e-6)}); }));
    if (!exact.is_proven || !exact.assignment) {
      ADD_FAILURE() << "seed " << shape.seed << ", instance " << index << ": no optimum";
      continue;
    }
    figures.ratio.add(ours / exact.layer_time_us);
    figures.simulated_ratio.add(simulated_us(instance, plan) /
                                simulated_us(instance, plan_of(instance, *exact.assignment)));
    const DeploymentPlan paper =
        plan_deployment(instance.models, instance.cluster, PlacementPolicy::kPaper, {});
    figures.paper_ratio.add(evaluate_plan(paper, instance.models, instance.cluster).mean_layer_time_us /
                            exact.layer_time_us);
  }
  std::printf(
      "%d instances of %zu models on %d GPUs (seed %llu):\n"
      "  auto / optimum: mean %.6f, max %.6f; simulated: mean %.5f, p99 %.5f, max %.5f\n"
      "  paper / optimum: mean %.4f, max %.4f\n"
      "  auto: median %.2f ms, p99 %.2f, max %.2f; proof: median %.2f ms, p99 %.2f, max %.2f\n",
      shape.num_instances, shape.experts.size(), shape.num_gpus, static_cast<unsigned long long>(shape.seed),
      figures.ratio.mean(), figures.ratio.largest(), figures.simulated_ratio.mean(),
      figures.simulated_ratio.quantile(0.99), figures.simulated_ratio.largest(), figures.paper_ratio.mean(),
      figures.paper_ratio.largest(), figures.planning_ms.quantile(0.5), figures.planning_ms.quantile(0.99),
      figures.planning_ms.largest(), figures.proof_ms.quantile(0.5), figures.proof_ms.quantile(0.99),
      figures.proof_ms.largest());
  return figures;
}

void expect_close_to_optimum(const Shape& shape) {
  const Colocated figures = compare_with_optimum(shape);
  EXPECT_GE(figures.ratio.mean(), 1 - 1e-9);
  EXPECT_LE(figures.ratio.mean(), 1.001);
  EXPECT_LE(figures.ratio.largest(), 1.02);
  EXPECT_LE(figures.simulated_ratio.mean(), 1.001);
  EXPECT_LE(figures.simulated_ratio.largest(), 1.02);
  EXPECT_GT(figures.paper_ratio.mean(), figures.ratio.mean());
}

TEST(Colocation, OfTwoModelsOnEightUnequalGpusIsTheOptimumOrNextToIt) {
  expect_close_to_optimum({.num_gpus = 8, .experts = {8, 8}, .num_instances = 1000, .seed = 71});
}

TEST(Colocation, OfModelsWithUnequalNumbersOfExpertsIsTheOptimumOrNextToIt) {
  expect_close_to_optimum({.num_gpus = 8, .experts = {8, 5}, .num_instances = 200, .seed = 72});
}

TEST(Colocation, OfThreeModelsIsTheOptimumOrNextToIt) {
  expect_close_to_optimum({.num_gpus = 6, .experts = {6, 6, 4}, .num_instances = 100, .seed = 73});
}

TEST(Colocation, PlannedByTheClosedFormIsCloseToTheBestThatTheSimulationKnows) {
  // Four GPUs: all 576 placements in the event simulation. The closed form is a lower bound that lets phases
  // end at their maxima over GPUs, so that its optimum is not the simulation's; this says how much that
  // costs.
  const std::uint64_t seed = 74;
  std::mt19937_64 random(seed);
  Figures ratio;
  Figures paper_ratio;
  for (int index = 0; index < 100; ++index) {
    const Instance instance = one_expert_each(4, {4, 4}, random);
    double best = std::numeric_limits<double>::infinity();
    std::vector<int> a{0, 1, 2, 3};
    do {
      std::vector<int> b{0, 1, 2, 3};
      do {
        best = std::min(best, simulated_us(instance, plan_of(instance, {a, b})));
      } while (std::next_permutation(b.begin(), b.end()));
    } while (std::next_permutation(a.begin(), a.end()));
    const auto ratio_of = [&](PlacementPolicy policy) {
      return simulated_us(instance, plan_deployment(instance.models, instance.cluster, policy, {})) / best;
    };
    ratio.add(ratio_of(PlacementPolicy::kAuto));
    paper_ratio.add(ratio_of(PlacementPolicy::kPaper));
  }
  std::printf(
      "100 instances on 4 GPUs (seed %llu), simulated, over the best of all placements: auto mean %.4f, "
      "max %.4f; paper mean %.4f, max %.4f\n",
      static_cast<unsigned long long>(seed), ratio.mean(), ratio.largest(), paper_ratio.mean(),
      paper_ratio.largest());
  EXPECT_GE(ratio.quantile(0), 1 - 1e-9);
  EXPECT_LT(ratio.mean(), paper_ratio.mean());
  EXPECT_LE(ratio.mean(), 1.05);
}

struct Exclusive {
  Figures ratio;  // auto over the bound
  Figures planning_ms;
};

/// One model alone, as many experts on a GPU as the search likes.
Exclusive compare_with_bound(const Shape& shape, bool is_heterogeneous) {
  std::mt19937_64 random(shape.seed);
  Exclusive figures;
  for (int index = 0; index < shape.num_instances; ++index) {
    const Instance instance{{random_model({.num_experts = shape.experts.front(),
                                           .top_k = 6,
                                           .num_sources = shape.num_gpus,
                                           .tokens_per_source = 128,
                                           .has_samples = false},
                                          random)},
                            test_cluster(shape.num_gpus, is_heterogeneous)};
    DeploymentPlan plan;
    figures.planning_ms.add(milliseconds_of(
        [&] { plan = plan_deployment(instance.models, instance.cluster, PlacementPolicy::kAuto, {}); }));
    const double bound = layer_time_bound_us(test::problem_of(instance, shape.experts.front()), 1000);
    figures.ratio.add(evaluate_plan(plan, instance.models, instance.cluster).mean_layer_time_us / bound);
    EXPECT_GE(figures.ratio.quantile(0), 1 - 1e-9) << "seed " << shape.seed << ", instance " << index;
  }
  std::printf(
      "%d instances of %d experts on %d GPUs%s (seed %llu): auto / bound mean %.4f, max %.4f; median %.2f "
      "ms, "
      "max %.2f\n",
      shape.num_instances, shape.experts.front(), shape.num_gpus, is_heterogeneous ? ", unequal" : "",
      static_cast<unsigned long long>(shape.seed), figures.ratio.mean(), figures.ratio.largest(),
      figures.planning_ms.quantile(0.5), figures.planning_ms.largest());
  return figures;
}

TEST(SeveralExpertsPerGpu, AreWithinTwoPercentOfALowerBound) {
  for (const bool is_heterogeneous : {false, true}) {
    for (const Shape& shape : {Shape{8, {60}, 12, 75}, Shape{8, {64}, 12, 76}, Shape{16, {128}, 8, 77}}) {
      EXPECT_LE(compare_with_bound(shape, is_heterogeneous).ratio.mean(), 1.02);
    }
  }
}

TEST(SeveralExpertsPerGpu, OnSixtyFourGpusArePlannedQuickly) {
  // Two experts on a GPU: the bound, which may divide experts between GPUs, is loose on unequal ones.
  for (const bool is_heterogeneous : {false, true}) {
    EXPECT_LE(compare_with_bound({64, {128}, 5, 78}, is_heterogeneous).ratio.mean(), 1.08);
  }
}

TEST(SeveralExpertsPerGpu, WithSampledTokensArePlannedQuickly) {
  std::mt19937_64 random(79);
  const Instance instance{
      {random_model({.num_experts = 128, .top_k = 8, .num_sources = 64, .tokens_per_source = 128}, random)},
      test_cluster(64, true)};
  Figures planning_ms;
  DeploymentPlan plan;
  for (int repeat = 0; repeat < 9; ++repeat) {
    planning_ms.add(milliseconds_of(
        [&] { plan = plan_deployment(instance.models, instance.cluster, PlacementPolicy::kAuto, {}); }));
  }
  const double ours = evaluate_plan(plan, instance.models, instance.cluster).mean_layer_time_us;
  std::printf("128 experts on 64 GPUs with 8,192 sampled tokens: min %.2f ms, median %.2f\n",
              planning_ms.quantile(0), planning_ms.quantile(0.5));
  for (const PlacementPolicy policy : {PlacementPolicy::kContiguous, PlacementPolicy::kPaper}) {
    const DeploymentPlan other = plan_deployment(instance.models, instance.cluster, policy, {});
    EXPECT_LT(ours, evaluate_plan(other, instance.models, instance.cluster).mean_layer_time_us);
  }
}

}  // namespace
}  // namespace aurora
