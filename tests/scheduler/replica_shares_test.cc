// Which copy serves which source: by hand, by conservation, and against the bound on what can stay local; and
// the states that searches keep against the closed forms.
#include "scheduler/replica_shares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "scheduler/copy_state.h"
#include "scheduler/expert_load.h"
#include "scheduler/layer_time.h"
#include "tests/scheduler/random_models.h"
#include "tests/support/random_placement.h"

namespace aurora {
namespace {

TEST(ReplicaShares, ASourceServesItselfAsFarAsItsCopysShareHasRoom) {
  // Three sources with a third of all tokens each; copies on 0 and 1 with 1/4 and 3/4.
  const std::vector<ExpertReplica> replicas{{GpuId{0}, 0.25}, {GpuId{1}, 0.75}};
  // Source 0 keeps 1/4 of the 1/3 and sends the rest to copy 1; source 1 keeps all; copy 1 has 3/4 - 1/3
  // left, copy 0 nothing, so source 2 sends to copy 1.
  EXPECT_EQ(shares_from(replicas, GpuId{0}, 3), (std::vector<double>{0.75, 0.25}));
  EXPECT_EQ(shares_from(replicas, GpuId{1}, 3), (std::vector<double>{0, 1}));
  EXPECT_EQ(shares_from(replicas, GpuId{2}, 3), (std::vector<double>{0, 1}));
}

TEST(ReplicaShares, SourcesWithoutACopyTakeWhatIsLeftInProportion) {
  const std::vector<ExpertReplica> replicas{{GpuId{0}, 0.5}, {GpuId{1}, 0.3}, {GpuId{2}, 0.2}};
  // Five sources of 1/5: left are 0.3, 0.1 and nothing.
  EXPECT_EQ(shares_from(replicas, GpuId{2}, 5), (std::vector<double>{0, 0, 1}));
  for (const int source : {3, 4}) {
    const std::vector<double> shares = shares_from(replicas, GpuId{source}, 5);
    EXPECT_NEAR(shares[0], 0.75, 1e-12);
    EXPECT_NEAR(shares[1], 0.25, 1e-12);
    EXPECT_NEAR(shares[2], 0, 1e-12);
  }
}

TEST(ReplicaShares, CopiesOnAllGpusWithEqualSharesServeTheirOwnTokens) {
  std::vector<ExpertReplica> replicas;
  for (int gpu = 0; gpu < 4; ++gpu) replicas.push_back({GpuId{gpu}, 0.25});
  for (int gpu = 0; gpu < 4; ++gpu) EXPECT_EQ(shares_from(replicas, GpuId{gpu}, 4)[gpu], 1);
}

TEST(ReplicaShares, EqualSourcesGiveEveryCopyItsShareAndNothingMoreCouldStayLocal) {
  std::mt19937 random(3);
  for (int round = 0; round < 100; ++round) {
    const int num_gpus = 2 + static_cast<int>(random() % 6);
    const LayerPlacement placement = test::random_placement(1, num_gpus, 4, random);
    const std::vector<ExpertReplica>& replicas = placement.experts[0];
    std::vector<double> served(replicas.size(), 0.0);
    double local = 0;
    for (int source = 0; source < num_gpus; ++source) {
      const std::vector<double> shares = shares_from(replicas, GpuId{source}, num_gpus);
      EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0), 1, 1e-12);
      for (std::size_t index = 0; index < shares.size(); ++index) {
        EXPECT_GE(shares[index], 0);
        served[index] += shares[index] / num_gpus;
        if (replicas[index].gpu.value == source) local += shares[index] / num_gpus;
      }
    }
    double most_local = 0;
    for (std::size_t index = 0; index < served.size(); ++index) {
      EXPECT_NEAR(served[index], replicas[index].share, 1e-12);
      most_local += std::min(replicas[index].share, 1.0 / num_gpus);
    }
    EXPECT_NEAR(local, most_local, 1e-12);
  }
}

TEST(ReplicaShares, RowsOfUnequalSourcesFollowTheirOwnCopies) {
  // Source 0 has all tokens and half a copy: with two sources it keeps all of them.
  ModelTraffic model;
  model.model = "a";
  model.num_experts = 1;
  model.top_k = 1;
  model.layers = {{.dispatch = {{100}, {0}, {0}, {0}}, .samples = {}}};
  const LayerPlacement halves{{{{GpuId{0}, 0.5}, {GpuId{1}, 0.5}}}};
  const LayerDemand demand(model.layers[0], model, 4);
  EXPECT_EQ(exchange_rows(demand, halves)[0], 100);
  EXPECT_EQ(exchange_rows(demand, halves)[1], 0);
  EXPECT_EQ(pairs_of_replicas(demand, halves, 0), (std::vector<double>{100, 0}));
}

TEST(CopyState, KeepsTheLoadsOfTheClosedFormThroughChanges) {
  std::mt19937_64 random(9);
  std::mt19937 placements(10);
  for (int round = 0; round < 10; ++round) {
    const ClusterSpec cluster = test::test_cluster(4, round % 2 == 1);
    const std::vector<ModelTraffic> models{test::random_model(
        {.num_experts = 8, .top_k = 3, .num_sources = 4, .tokens_per_source = 80}, random)};
    const LayerProblem problem = layer_problems(models, cluster)[0];
    std::vector<LayerPlacement> current{test::random_placement(8, 4, 3, placements)};
    CopyState state(problem, current);
    for (int change = 0; change < 30; ++change) {
      const int expert = static_cast<int>(placements() % 8);
      current[0].experts[expert] = test::random_placement(1, 4, 3, placements).experts[0];
      state.set_copies(0, expert, current[0].experts[expert]);
    }
    const LayerLoad expected = layer_load(problem.demands[0], current[0], models[0], cluster);
    const LayerLoad& kept = state.loads()[0];
    for (int gpu = 0; gpu < 4; ++gpu) {
      const auto expect_near = [&](double a, double b) {
        EXPECT_NEAR(a, b, 1e-9 * (1 + b)) << "GPU " << gpu;
      };
      expect_near(kept.expert_us[gpu], expected.expert_us[gpu]);
      expect_near(kept.dispatch_send_us[gpu], expected.dispatch_send_us[gpu]);
      expect_near(kept.dispatch_receive_us[gpu], expected.dispatch_receive_us[gpu]);
      expect_near(kept.combine_send_us[gpu], expected.combine_send_us[gpu]);
      expect_near(kept.combine_receive_us[gpu], expected.combine_receive_us[gpu]);
    }
  }
}

}  // namespace
}  // namespace aurora
