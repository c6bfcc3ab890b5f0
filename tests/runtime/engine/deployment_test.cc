// What an engine plans before it serves.
#include "runtime/deployment.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <random>

#include "kernels/backend_registry.h"
#include "runtime/engine.h"
#include "runtime/plan_io/traffic_file.h"
#include "scheduler/expert_load.h"
#include "tests/support/engine_harness.h"
#include "tests/support/random_checkpoint.h"
#include "tests/support/random_placement.h"
#include "tests/support/rank_threads.h"

namespace aurora {
namespace {

constexpr int kNumRanks = 8;
constexpr int kNumExperts = 8;

/// What two models of one layer on eight ranks did, in records that do not say what compute took.
class RecordedModels {
 public:
  RecordedModels()
      : folder_(std::filesystem::temp_directory_path() /
                ("aurora-deployment-" + std::to_string(::getpid()))) {
    for (const char* name : {"a", "b"}) {
      test::write_random_checkpoint(folder_ / name,
                                    {.num_layers = 1, .num_experts = kNumExperts, .top_k = 2});
      options_.models.push_back(test::model_options(folder_ / name));
      options_.models.back().traffic = folder_ / (std::string(name) + ".json");
    }
    options_.check_only = true;
  }
  RecordedModels(const RecordedModels&) = delete;
  RecordedModels& operator=(const RecordedModels&) = delete;
  ~RecordedModels() { std::filesystem::remove_all(folder_); }

  /// Every source's tokens choose their experts at random.
  void record(std::mt19937& random) const {
    constexpr int kNumTokens = 200;  // of a source
    for (const ModelOptions& model : options_.models) {
      ModelTraffic traffic = uniform_traffic({.model = model.name,
                                              .num_layers = 1,
                                              .num_experts = kNumExperts,
                                              .top_k = 2,
                                              .num_gpus = kNumRanks});
      LayerTraffic& layer = traffic.layers.front();
      layer.samples.resize(kNumRanks);
      for (int source = 0; source < kNumRanks; ++source) {
        std::ranges::fill(layer.dispatch[source], 0.0);
        for (int token = 0; token < kNumTokens; ++token) {
          std::vector<ExpertId> chosen;
          for (const std::int32_t expert : test::random_expert_ids(1, kNumExperts, 2, random)) {
            chosen.push_back({expert});
            layer.dispatch[source][static_cast<std::size_t>(expert)] += 1;
          }
          layer.samples[source].push_back(std::move(chosen));
        }
      }
      std::ofstream(model.traffic) << traffic_text(traffic);
    }
  }

  DeploymentPlan plan() const {
    DeploymentPlan plan;
    test::run_ranks(kNumRanks, [&](Transport& transport) {
      const auto backend = create_backend("cpu", {});
      const Engine engine(options_, transport, *backend);
      if (transport.rank() == 0) plan = engine.plan();
    });
    return plan;
  }

 private:
  std::filesystem::path folder_;
  EngineOptions options_;
};

// By exchanges alone, one model's experts had better lie in pairs on one half of the ranks and the other's on
// the other half: a token that chooses both of a pair travels once.
TEST(Deployment, WithoutKnownCostsExpertsOfAModelAreSpreadOverAllRanks) {
  const RecordedModels models;
  std::mt19937 random(11);
  for (int trial = 0; trial < 5; ++trial) {
    models.record(random);
    for (const ModelPlacement& placement : models.plan().models) {
      std::map<int, int> num_on;
      for (const auto& replicas : placement.layers.front().experts) ++num_on[replicas.front().gpu.value];
      EXPECT_EQ(num_on.size(), static_cast<std::size_t>(kNumRanks)) << placement.model << ", trial " << trial;
    }
  }
}

}  // namespace
}  // namespace aurora
