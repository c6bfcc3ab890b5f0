// What the rows of `aurora-bench layer` are made of: shapes, routing, floors, the float64 reference, turns.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "benchmarks/layer/floors.h"
#include "benchmarks/layer/layer_bench.h"
#include "benchmarks/layer/reference.h"
#include "benchmarks/layer/routing.h"
#include "benchmarks/layer/shape.h"
#include "kernels/backend_registry.h"
#include "kernels/error.h"

namespace aurora::bench {
namespace {

std::string refusal_of(const std::string& shape) {
  try {
    parse_layer_shape(shape);
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(LayerShape, IsAPublishedOneOrFourNumbers) {
  EXPECT_EQ(parse_layer_shapes({"all", "8x2x64x32"}).size(), 5U);
  const LayerShape shape = parse_layer_shape("8x2x64x32");
  EXPECT_EQ(shape.num_experts, 8);
  EXPECT_EQ(shape.top_k, 2);
  EXPECT_EQ(shape.hidden, 64);
  EXPECT_EQ(shape.inner, 32);
  EXPECT_NE(refusal_of("qwen3-30b-a3").find("qwen3-30b-a3b"), std::string::npos);
  EXPECT_NE(refusal_of("8x9x64x32").find("top-k must be 1 to the experts"), std::string::npos);
  for (const char* text :
       {"", "8", "8x2x64", "8x2x64x32x1", "8x2x64x", "8x2x64x-1", "8x2xax32", "8x2x64x0"}) {
    EXPECT_NE(refusal_of(text).find("--shape"), std::string::npos) << text;
  }
}

TEST(LayerRouting, UniformBatchesAreDistinctExpertsAndBeginLargerOnes) {
  const LayerShape shape = parse_layer_shape("128x8x2048x768");
  const LayerRouting small = uniform_routing(shape, 100, 7);
  const LayerRouting large = uniform_routing(shape, 4000, 7);
  EXPECT_TRUE(std::equal(small.expert_ids.begin(), small.expert_ids.end(), large.expert_ids.begin()));
  for (auto token = large.expert_ids.begin(); token != large.expert_ids.end(); token += 8) {
    EXPECT_EQ(std::set<std::int32_t>(token, token + 8).size(), 8U);
  }
  // 250 pairs an expert on average, standard deviation below 16.
  for (const std::int64_t pairs : large.pairs_by_expert(128)) {
    EXPECT_GT(pairs, 250 - 6 * 16);
    EXPECT_LT(pairs, 250 + 6 * 16);
  }
}

TEST(LayerRouting, UniformIsWhatThePeersDraw) {
  // Printed by benchmarks/layer_routing.py 8 3 4 5 (experts, top-k, tokens, seed).
  const std::vector<std::int32_t> expected{2, 6, 7, 5, 4, 6, 1, 2, 6, 3, 5, 6};
  EXPECT_EQ(uniform_routing(parse_layer_shape("8x3x8x8"), 4, 5).expert_ids, expected);
}

TEST(LayerRouting, ARecordIsReadFromItsMiddleAroundItsEnd) {
  RoutingRecord record;
  record.num_layers = 3;
  record.num_experts = 9;
  record.top_k = 2;
  record.num_tokens = 4;
  record.expert_ids.assign(3 * 4 * 2, 0);
  for (std::uint16_t i = 0; i < 8; ++i) record.expert_ids[8 + i] = i;  // the middle layer
  const LayerRouting routing = replayed_routing(record, 5);
  EXPECT_EQ(routing.expert_ids, (std::vector<std::int32_t>{4, 5, 6, 7, 0, 1, 2, 3, 4, 5}));
  EXPECT_TRUE(fits(record, parse_layer_shape("9x2x8x8")));
  EXPECT_FALSE(fits(record, parse_layer_shape("8x2x8x8")));
  EXPECT_FALSE(fits(record, parse_layer_shape("9x1x8x8")));
}

TEST(LayerRouting, EvenBatchesGiveTheFirstExpertsTheSame) {
  const LayerRouting routing = even_routing(parse_layer_shape("8x2x8x8"), 4, 3);
  EXPECT_EQ(routing.num_tokens, 6);
  EXPECT_EQ(routing.pairs_by_expert(8), (std::vector<std::int64_t>{3, 3, 3, 3, 0, 0, 0, 0}));
}

/// `rows` for each of `num_hit` experts.
LayerFloors floors_of(const char* name, std::int64_t num_tokens, std::int64_t num_hit, std::int64_t rows) {
  const LayerShape shape = parse_layer_shape(name);
  std::vector<std::int64_t> pairs(static_cast<std::size_t>(shape.num_experts));
  std::fill_n(pairs.begin(), num_hit, rows);
  return layer_floors(shape, num_tokens, pairs, DType::kBFloat16, *find_ceilings("NVIDIA H200"));
}

TEST(LayerFloors, AreThoseOfTheTableOfPeersWhereEveryExpertIsHit) {
  // Microseconds, at 790 TFLOP/s and 4.3 TB/s, as published with the measured peers: three digits.
  const auto expect = [](const LayerFloors& floors, double published_us) {
    EXPECT_NEAR(floors.raw_us, published_us, 0.003 * published_us);
  };
  expect(floors_of("mixtral-8x7b", 1, 2, 1), 164);
  expect(floors_of("mixtral-8x7b", 256, 8, 64), 656);
  expect(floors_of("mixtral-8x7b", 4096, 8, 1024), 3653);
  expect(floors_of("qwen3-30b-a3b", 1, 8, 1), 17.6);
  expect(floors_of("qwen3-30b-a3b", 1024, 128, 64), 281);
  expect(floors_of("olmoe-1b-7b", 16384, 64, 2048), 2088);
  expect(floors_of("deepseek-v2-lite", 16384, 64, 1536), 2153);
}

TEST(LayerFloors, TheAttainableOneAddsActivationsAndPadding) {
  const LayerShape shape{"", 2, 1, 10, 20};
  const DeviceCeilings ceilings{.tflops = 1, .terabytes_per_s = 1e9, .source = "", .tile_rows = 64};
  // Nothing but operations: 65 and 1 rows become 128 and 64, of three products of 2 10 20.
  const LayerFloors compute =
      layer_floors(shape, 66, std::vector<std::int64_t>{65, 1}, DType::kFloat32, ceilings);
  EXPECT_NEAR(compute.attainable_us, 192 * 1200 * 1e-6, 1e-9);
  EXPECT_NEAR(compute.raw_us, 66 * 1200 * 1e-6, 1e-9);
  // Nothing but bytes, two each: weights 3 200; hidden and sum 66 10; activations 66 20 and outputs 66 10,
  // both written and read.
  const LayerFloors memory = layer_floors(shape, 66, std::vector<std::int64_t>{0, 66}, DType::kBFloat16,
                                          {.tflops = 1e9, .terabytes_per_s = 1, .source = ""});
  EXPECT_NEAR(memory.bytes, 2 * (600 + 2 * 660 + 2 * 1320 + 2 * 660), 1e-9);
  EXPECT_NEAR(memory.attainable_us, memory.bytes * 1e-6, 1e-12);
  EXPECT_NEAR(memory.raw_us, 2 * 600 * 1e-6, 1e-12);
  EXPECT_EQ(memory.num_hit, 1);
}

TEST(LayerFloors, AreUnknownForOtherDevices) {
  EXPECT_EQ(find_ceilings("NVIDIA A100-SXM4-80GB GPU-1a2b3c4d"), nullptr);
  EXPECT_EQ(find_ceilings(""), nullptr);
}

TEST(RepeatedValues, FillWhatRowSaysAndHaveTheirDeviation) {
  const auto backend = create_backend("cpu", {});
  const auto stream = backend->create_stream();
  std::cout << "seed 3\n";
  const RepeatedValues values(*backend, DType::kBFloat16, 0.5, 100, 3);
  std::vector<std::uint16_t> array(2500000);
  values.fill(*stream, Tensor(array.data(), DType::kBFloat16, {static_cast<std::int64_t>(array.size())}));
  double sum = 0, squares = 0;
  for (std::size_t first = 0; first + 100 <= array.size(); first += 97) {
    const float* row = values.row(static_cast<std::int64_t>(first));
    for (std::size_t i = 0; i < 100; ++i) ASSERT_EQ(row[i], bfloat16_to_float(array[first + i])) << first + i;
  }
  for (const std::uint16_t bits : array) {
    sum += bfloat16_to_float(bits);
    squares += static_cast<double>(bfloat16_to_float(bits)) * bfloat16_to_float(bits);
  }
  const auto count = static_cast<double>(array.size());
  EXPECT_NEAR(sum / count, 0, 0.005);
  EXPECT_NEAR(std::sqrt(squares / count), 0.5, 0.005);
}

/// A small layer on the CPU backend, made ready and run once.
struct SmallLayer {
  explicit SmallLayer(const char* name, std::int64_t tokens)
      : device(quick()),
        inputs(device, parse_layer_shape(name), 11),
        routing(uniform_routing(inputs.shape(), tokens, 12)),
        layer(device, inputs, routing) {
    std::cout << "seeds 11, 12\n";
    layer.reserve(1, 3, true);
  }
  ReferenceLayer reference() {
    return {.shape = inputs.shape(),
            .routing = routing,
            .dtype = DType::kFloat32,
            .weights = inputs.weights(),
            .hidden = inputs.hidden(),
            .logits = layer.logits()};
  }

  static LayerOptions quick() {
    LayerOptions options;
    options.seconds = 0;
    return options;
  }

  LayerDevice device;
  LayerInputs inputs;
  LayerRouting routing;
  RotatedLayer layer;
};

TEST(LayerReference, HoldsForTheRuntimesOperationsAndForNothingElse) {
  SmallLayer small("5x3x24x10", 7);
  small.layer.check_routing();
  std::vector<float> output = small.layer.output_once();
  const auto num_wrong = [&](std::int64_t most_tokens = 7) {
    std::int64_t checked = 0;
    const std::int64_t wrong = count_wrong_elements(small.reference(), output, most_tokens, checked);
    EXPECT_EQ(checked, most_tokens * 24);
    return wrong;
  };
  EXPECT_EQ(num_wrong(), 0);
  EXPECT_EQ(small.layer.output_once(), output) << "the residual starts from zeros each time";
  output[30] *= 1.001F;
  EXPECT_EQ(num_wrong(), 1);
  output[31] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(num_wrong(), 2);
  EXPECT_EQ(num_wrong(1), 0) << "token 0 alone";
  std::rotate(output.begin(), output.begin() + 24, output.end());  // every token has another's output
  EXPECT_GT(num_wrong(), 160);
}

TEST(LayerReference, IsTheNetworkOfItsWeights) {
  // One expert, one input and one hidden neuron: down silu(gate x) (up x).
  const auto backend = create_backend("cpu", {});
  const RepeatedValues weights(*backend, DType::kFloat32, 1, 1, 5);
  const RepeatedValues hidden(*backend, DType::kFloat32, 1, 1, 6);
  const LayerShape shape{"", 1, 1, 1, 1};
  const LayerRouting routing = uniform_routing(shape, 2, 1);
  const std::vector<float> logits(2, 0.5F);
  const ReferenceRow row = reference_row({.shape = shape,
                                          .routing = routing,
                                          .dtype = DType::kFloat32,
                                          .weights = weights,
                                          .hidden = hidden,
                                          .logits = logits},
                                         1);
  const double x = hidden.row(1)[0];
  const double gate = weights.row(0)[0] * x;
  EXPECT_NEAR(row.values[0], weights.row(2)[0] * gate / (1 + std::exp(-gate)) * (weights.row(1)[0] * x),
              1e-12);
  EXPECT_GT(row.tolerances[0], 0);
  EXPECT_LT(row.tolerances[0], 1e-4 * std::fabs(row.values[0]));
}

TEST(RotatedLayer, TakesItsRunsAndWeightsInTurn) {
  SmallLayer small("4x2x8x6", 3);
  ASSERT_EQ(small.layer.num_turns(), 3U);
  std::vector<std::pair<const LayerRun*, const ExpertBank*>> seen;
  small.layer.time(
      [&](const LayerRun& run, const ExpertBank& weights) { seen.emplace_back(&run, &weights); });
  ASSERT_GT(seen.size(), 6U);
  EXPECT_EQ(std::set(seen.begin(), seen.end()).size(), 3U);
  for (std::size_t i = 3; i < seen.size(); ++i) EXPECT_EQ(seen[i], seen[i - 3]);
  EXPECT_NE(seen[0].first, seen[1].first);
  EXPECT_NE(seen[0].second, seen[1].second);
  // Without weights, and touching enough at once: one run.
  small.layer.reserve(10, 3, false);
  EXPECT_EQ(small.layer.num_turns(), 1U);
}

}  // namespace
}  // namespace aurora::bench
