// Which steps are submitted piece by piece, which are recorded and which are launched as graphs. The work is
// counted on the host when it is called, and in "device" memory when it runs.
#include "runtime/executor/layer_graphs.h"

#include <gtest/gtest.h>

#include "kernels/backend_registry.h"

namespace aurora {
namespace {

constexpr std::int64_t kNumLayers = 3;

class LayerGraphsTest : public ::testing::Test {
 protected:
  /// One step; returns how many of its layers were submitted by calling the work.
  int step(const StepShape& shape) {
    int num_calls = 0;
    graphs_.begin_step(shape);
    for (std::int64_t layer = 0; layer < kNumLayers; ++layer) {
      graphs_.submit(layer, [&] {
        ++num_calls;
        backend_->ops().add(*stream_, {one_, num_runs(layer)});
      });
    }
    ++num_steps_;
    for (std::int64_t layer = 0; layer < kNumLayers; ++layer) {
      EXPECT_EQ(*num_runs(layer).f32(), static_cast<float>(num_steps_)) << "every layer runs once a step";
    }
    return num_calls;
  }
  Tensor num_runs(std::int64_t layer) { return {&runs_[layer], DType::kFloat32, {1}}; }

  const std::unique_ptr<Backend> backend_ = create_backend("cpu", {.graphs = true});
  const std::unique_ptr<Stream> stream_ = backend_->create_stream();
  PhaseMarker phases_{*backend_, *stream_, 0};
  LayerGraphs graphs_{{backend_.get(), stream_.get(), &phases_, kNumLayers}};

 private:
  float one_value_ = 1;
  float runs_[kNumLayers] = {};
  Tensor one_{&one_value_, DType::kFloat32, {1}};
  int num_steps_ = 0;
};

TEST_F(LayerGraphsTest, RecordsAShapeThatComesAgainAndLaunchesItFromThenOn) {
  const StepShape shape{4, 4, 8};
  EXPECT_EQ(step(shape), kNumLayers) << "first: piece by piece";
  EXPECT_EQ(step(shape), kNumLayers) << "again: recorded";
  for (int i = 0; i < 5; ++i) EXPECT_EQ(step(shape), 0);
}

TEST_F(LayerGraphsTest, RecordsAllLayersAsOneBesideEachByItself) {
  float num_runs = 0;
  float one_value = 1;
  const Tensor runs(&num_runs, DType::kFloat32, {1});
  const Tensor one(&one_value, DType::kFloat32, {1});
  int num_calls = 0;
  for (int i = 1; i <= 4; ++i) {
    graphs_.begin_step({4, 4, 8});
    EXPECT_TRUE(graphs_.has_shape());
    graphs_.submit(LayerGraphs::kAllLayers, [&] {
      ++num_calls;
      for (int layer = 0; layer < kNumLayers; ++layer) backend_->ops().add(*stream_, {one, runs});
    });
    EXPECT_EQ(num_runs, static_cast<float>(i * kNumLayers));
  }
  EXPECT_EQ(num_calls, 2) << "piece by piece, recorded, and launched twice";
  EXPECT_EQ(step({4, 4, 8}), kNumLayers) << "the layers have not been recorded by themselves";
  EXPECT_EQ(step({4, 4, 8}), 0);
  graphs_.begin_step({});
  EXPECT_FALSE(graphs_.has_shape());
}

TEST_F(LayerGraphsTest, TellsShapesApartByEveryExtent) {
  for (const StepShape& shape :
       {StepShape{4, 4, 8}, StepShape{5, 4, 8}, StepShape{4, 5, 8}, StepShape{4, 4, 16}}) {
    EXPECT_EQ(step(shape), kNumLayers);
    EXPECT_EQ(step(shape), kNumLayers);
    EXPECT_EQ(step(shape), 0);
  }
  EXPECT_EQ(step({4, 4, 8}), 0) << "the others have not driven it out";
}

TEST_F(LayerGraphsTest, NeverRecordsAStepWithoutShape) {
  for (int i = 0; i < 4; ++i) EXPECT_EQ(step({}), kNumLayers);
}

TEST_F(LayerGraphsTest, KeepsTheShapesUsedLast) {
  const StepShape kept{1, 1, 8};
  for (int i = 0; i < 2; ++i) step(kept);
  constexpr auto kMost = static_cast<std::int64_t>(LayerGraphs::kMostShapes);
  for (std::int64_t tokens = 2; tokens <= kMost; ++tokens) {
    for (int i = 0; i < 2; ++i) step({tokens, tokens, 8});
  }
  EXPECT_EQ(step(kept), 0) << "there is room for " << kMost;
  step({kMost + 1, kMost + 1, 8});
  EXPECT_EQ(step(kept), 0) << "it was used after the others";
  EXPECT_EQ(step({2, 2, 8}), kNumLayers) << "it was the one used longest ago";
}

TEST_F(LayerGraphsTest, RecordsAnewWhenMemoryHasMoved) {
  const StepShape shape{4, 4, 8};
  for (int i = 0; i < 3; ++i) step(shape);
  const Buffer moved = backend_->allocate(64, MemorySpace::kDevice);
  EXPECT_EQ(step(shape), kNumLayers);
  EXPECT_EQ(step(shape), 0);
}

TEST(LayerGraphs, ABackendWithoutGraphsIsGivenEveryPiece) {
  const auto backend = create_backend("cpu", {});
  const auto stream = backend->create_stream();
  PhaseMarker phases(*backend, *stream, 0);
  LayerGraphs graphs({backend.get(), stream.get(), &phases, 1});
  int num_calls = 0;
  for (int i = 0; i < 3; ++i) {
    graphs.begin_step({4, 4, 8});
    graphs.submit(0, [&] { ++num_calls; });
  }
  EXPECT_EQ(num_calls, 3);
}

TEST(StepShape, IsThatOfStepsInWhichEverySequenceDecodesOneToken) {
  StepBatch batch;
  batch.token_ids = {1, 2};
  batch.num_sequences = 2;
  batch.max_blocks = 8;
  batch.output_rows = {0, 1};
  EXPECT_EQ(StepShape::of(batch), (StepShape{2, 2, 8}));
  batch.output_rows = {1};
  EXPECT_EQ(StepShape::of(batch), StepShape{}) << "a prompt goes on";
  batch.output_rows = {0, 1};
  batch.num_sequences = 1;
  EXPECT_EQ(StepShape::of(batch), StepShape{}) << "one sequence has both tokens";
}

}  // namespace
}  // namespace aurora
