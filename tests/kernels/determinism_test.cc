// With `deterministic`, a row's result has the same bits alone, in any batch, and on any instruction set.
#include <algorithm>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

constexpr std::int64_t kBatches[] = {1, 2, 3, 5, 7, 64, 200};

std::vector<float> linear(Device& device, std::vector<float> input, std::vector<float>& weight,
                          std::int64_t k) {
  const auto m = static_cast<std::int64_t>(input.size()) / k;
  const auto n = static_cast<std::int64_t>(weight.size()) / k;
  std::vector<float> output(static_cast<std::size_t>(m * n));
  device.run(&Ops::linear, LinearArgs{.input = view(input, {m, k}),
                                      .weight = view(weight, {n, k}),
                                      .bias = {},
                                      .output = view(output, {m, n})});
  return output;
}

class Determinism : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Determinism, testing::ValuesIn(every_deterministic()), variant_name);

TEST_P(Determinism, ALinearRowHasTheSameBitsInEveryBatchAndOnEveryInstructionSet) {
  Random random(91);
  for (const auto& [k, n] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{128, 128}, {37, 19}, {300, 3}}) {
    std::vector<float> weight = random.normals(n * k);
    const std::vector<float> input = random.normals(200 * k);
    const std::vector<float> expected = linear(device(), input, weight, k);
    for_each_isa(device(), [&](cpu::Isa) {
      for (const std::int64_t batch : kBatches) {
        for (std::int64_t first = 0; first + batch <= 200; first += batch + 13) {
          const std::vector<float> part(input.begin() + first * k, input.begin() + (first + batch) * k);
          const std::vector<float> output = linear(device(), part, weight, k);
          ASSERT_TRUE(std::equal(output.begin(), output.end(), expected.begin() + first * n))
              << batch << " " << first;
        }
      }
    });
  }
}

TEST_P(Determinism, AnExpertsRowHasTheSameBitsInEveryGroup) {
  Random random(92);
  const std::int64_t hidden = 40, inner = 24;
  std::vector<float> gate = random.normals(inner * hidden), up = random.normals(inner * hidden),
                     down = random.normals(hidden * inner);
  const std::vector<ExpertWeights> experts{
      {view(gate, {inner, hidden}), view(up, {inner, hidden}), view(down, {hidden, inner})}};
  const ExpertBank bank(experts);
  std::vector<float> input = random.normals(64 * hidden);
  const auto run = [&](std::int64_t first, std::int64_t count) {
    std::vector<std::int32_t> indices(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < indices.size(); ++i)
      indices[i] = static_cast<std::int32_t>(first) + static_cast<std::int32_t>(i);
    std::vector<std::int32_t> offsets{0, static_cast<std::int32_t>(count)};
    std::vector<float> scratch(device().ops().expert_ffn_scratch_bytes(count, hidden, inner) / 4);
    std::vector<float> output(static_cast<std::size_t>(count * hidden));
    device().run(&Ops::expert_ffn,
                 ExpertFfnArgs{.input = view(input, {64, hidden}),
                               .row_indices = view(indices, {count}),
                               .expert_offsets = view(offsets, {2}),
                               .experts = &bank,
                               .scratch = view(scratch, {static_cast<std::int64_t>(scratch.size())}),
                               .output = view(output, {count, hidden})});
    return output;
  };
  const std::vector<float> expected = run(0, 64);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t count : {1, 2, 7, 33, 64}) {
      for (std::int64_t first = 0; first + count <= 64; first += 5) {
        const std::vector<float> output = run(first, count);
        ASSERT_TRUE(std::equal(output.begin(), output.end(), expected.begin() + first * hidden))
            << first << " " << count;
      }
    }
  });
}

TEST(InstructionSets, TheOtherOperationsGiveTheSameBitsOnEveryInstructionSet) {
  Random random(93);
  Device device;
  const std::int64_t rows = 7, width = 45;
  std::vector<float> x = random.normals(rows * width), y = random.normals(rows * width),
                     w = random.normals(width);
  std::vector<float> gates = random.normals(rows);
  std::vector<std::vector<float>> results;
  for_each_isa([&](cpu::Isa) {
    std::vector<float> out(x.size()), sum = y;
    device.run(&Ops::rms_norm,
               RmsNormArgs{view(x, {rows, width}), view(w, {width}), 1e-5F, view(out, {rows, width})});
    std::vector<float> all = out;
    device.run(&Ops::silu_multiply,
               SiluMultiplyArgs{view(x, {rows, width}), view(y, {rows, width}), view(out, {rows, width})});
    all.insert(all.end(), out.begin(), out.end());
    device.run(&Ops::sigmoid_gated_add,
               SigmoidGatedAddArgs{view(x, {rows, width}), view(gates, {rows}), view(sum, {rows, width})});
    all.insert(all.end(), sum.begin(), sum.end());
    std::vector<std::int32_t> ids(static_cast<std::size_t>(rows * 5));
    std::vector<float> weights(ids.size());
    device.run(&Ops::route, RouteArgs{.logits = view(x, {rows, width}),
                                      .expert_ids = view(ids, {rows, 5}),
                                      .weights = view(weights, {rows, 5})});
    all.insert(all.end(), weights.begin(), weights.end());
    // One sequence of `rows` positions, keys x and values y, a head as wide as a row.
    std::vector<std::int32_t> blocks{0}, sequences(static_cast<std::size_t>(rows)), positions;
    for (std::int32_t i = 0; i < rows; ++i) positions.push_back(i);
    device.run(&Ops::paged_attention, PagedAttentionArgs{.query = view(y, {rows, 1, width}),
                                                         .key_cache = view(x, {1, rows, 1, width}),
                                                         .value_cache = view(y, {1, rows, 1, width}),
                                                         .block_tables = view(blocks, {1, 1}),
                                                         .sequence_index = view(sequences, {rows}),
                                                         .positions = view(positions, {rows}),
                                                         .scale = 0.1F,
                                                         .output = view(out, {rows, 1, width})});
    all.insert(all.end(), out.begin(), out.end());
    results.push_back(all);
  });
  for (const std::vector<float>& result : results) EXPECT_EQ(result, results.front());
}

}  // namespace
}  // namespace aurora::kernel_test
