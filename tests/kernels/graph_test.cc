// Graphs: work that is recorded once and submitted again as a whole, on every backend.
#include <array>
#include <optional>
#include <stdexcept>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

/// Two numbers in device memory, and work that adds the one to the other.
class GraphTest : public OnEveryBackend {
 protected:
  void SetUp() override {
    OnEveryBackend::SetUp();
    if (IsSkipped()) return;
    device_.emplace(BackendOptions{.worker_streams = GetParam().worker_streams, .graphs = true},
                    GetParam().backend);
    memory_ = backend().allocate(512, MemorySpace::kDevice);
  }

  Backend& backend() { return device_->backend(); }
  Stream& stream() { return device_->stream(); }
  Tensor term() { return {memory_.data(), DType::kFloat32, {1}}; }
  Tensor sum() { return {memory_.data() + 256, DType::kFloat32, {1}}; }
  void put(const Tensor& tensor, float value) {
    backend().copy(stream(), tensor.bytes(), &value, sizeof(value));
    stream().synchronize(soon());
  }
  float get(const Tensor& tensor) {
    float value = 0;
    backend().copy(stream(), &value, tensor.bytes(), sizeof(value));
    stream().synchronize(soon());
    return value;
  }
  std::unique_ptr<Graph> record_addition() {
    return backend().capture(stream(), [&] { backend().ops().add(stream(), {term(), sum()}); });
  }

 private:
  std::optional<Device> device_;
  Buffer memory_;
};

std::vector<Variant> backends_and_workers() {
  std::vector<Variant> variants = every_backend();
  variants.push_back({.backend = "cpu", .worker_streams = true});
  return variants;
}

INSTANTIATE_TEST_SUITE_P(Backends, GraphTest, testing::ValuesIn(backends_and_workers()), variant_name);

TEST_P(GraphTest, RunsWhenItIsLaunchedAndReadsWhatIsThereThen) {
  put(term(), 1);
  put(sum(), 10);
  const std::unique_ptr<Graph> graph = record_addition();
  EXPECT_EQ(get(sum()), 10) << "recording runs nothing";
  graph->launch(stream());
  EXPECT_EQ(get(sum()), 11);
  put(term(), 5);
  for (int i = 0; i < 3; ++i) graph->launch(stream());
  EXPECT_EQ(get(sum()), 26);
}

TEST_P(GraphTest, StandsInOrderWithWorkBeforeAndAfter) {
  put(term(), 1);
  put(sum(), 0);
  const std::unique_ptr<Graph> graph = record_addition();
  // sum = 2 (2 (0 + 1) + 1) + 1 = 7 in this order only.
  for (int i = 0; i < 3; ++i) {
    backend().ops().add(stream(), {sum(), sum()});
    graph->launch(stream());
  }
  EXPECT_EQ(get(sum()), 7);
}

TEST_P(GraphTest, IsCurrentUntilABufferComesOrGoes) {
  Buffer spare = backend().allocate(64, MemorySpace::kDevice);
  const std::unique_ptr<Graph> first = record_addition();
  EXPECT_TRUE(first->is_current());
  spare = Buffer();
  EXPECT_FALSE(first->is_current());
  const std::unique_ptr<Graph> second = record_addition();
  EXPECT_TRUE(second->is_current());
  spare = backend().allocate(64, MemorySpace::kHost);
  EXPECT_FALSE(second->is_current());
}

TEST_P(GraphTest, WhatCannotBeRecordedIsRefusedAndLeavesTheStreamInOrder) {
  const auto event = backend().create_event();
  EXPECT_THROW(backend().capture(stream(), [&] { stream().record(*event); }), Error);
  EXPECT_THROW(backend().capture(stream(), [&] { stream().wait(*event); }), Error);
  EXPECT_THROW(backend().capture(stream(), [&] { stream().synchronize(soon()); }), Error);
  EXPECT_THROW(backend().capture(stream(), [&] { record_addition(); }), Error);
  EXPECT_THROW(backend().capture(stream(), [] { throw std::runtime_error("of the caller"); }),
               std::runtime_error);
  put(term(), 2);
  put(sum(), 3);
  record_addition()->launch(stream());
  EXPECT_EQ(get(sum()), 5);
}

TEST_P(GraphTest, SpansOfTheHostAreCopiedWithTheWorkOrRefused) {
  const std::array<float, 2> scores{1, 5};
  const Tensor logits(term().bytes(), DType::kFloat32, {1, 2});
  const Tensor token(sum().bytes(), DType::kInt32, {1});
  backend().copy(stream(), logits.bytes(), scores.data(), sizeof scores);
  std::vector<SamplingRow> rows{{.temperature = 0}};  // the larger
  std::unique_ptr<Graph> graph;
  try {
    graph = backend().capture(stream(), [&] {
      backend().ops().sample(stream(), {.logits = logits, .rows = rows, .token_ids = token});
    });
  } catch (const Error&) {
    EXPECT_NE(backend().name(), "cpu");
    return;
  }
  rows = {{.temperature = 1000, .random = 0.99F}};  // would be the smaller
  graph->launch(stream());
  std::int32_t chosen = -1;
  backend().copy(stream(), &chosen, token.bytes(), sizeof chosen);
  stream().synchronize(soon());
  EXPECT_EQ(chosen, 1);
}

TEST_P(GraphTest, ABackendMadeWithoutGraphsRefusesThem) {
  EXPECT_TRUE(backend().has_graphs());
  EXPECT_FALSE(device().backend().has_graphs());
  EXPECT_THROW(device().backend().capture(device().stream(), [] {}), Error);
}

}  // namespace
}  // namespace aurora::kernel_test
