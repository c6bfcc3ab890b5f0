// rope and append_kv.
#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

class Rope : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Rope, testing::ValuesIn(every_backend()), variant_name);

TEST_P(Rope, RotatesEachPairByItsAngle) {
  Random random(51);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t half : {1, 3, 8, 16, 17, 32}) {
      const std::int64_t num_tokens = 5, num_heads = 3, num_positions = 9;
      std::vector<float> heads = random.normals(num_tokens * num_heads * 2 * half);
      const std::vector<float> before = heads;
      std::vector<float> cosine = random.normals(num_positions * half);
      std::vector<float> sine = random.normals(num_positions * half);
      std::vector<std::int32_t> positions = random.indices(num_tokens, num_positions);
      device().run(&Ops::rope,
                   RopeArgs{view(heads, {num_tokens, num_heads, 2 * half}), view(positions, {num_tokens}),
                            view(cosine, {num_positions, half}), view(sine, {num_positions, half})});
      for (std::int64_t row = 0; row < num_tokens * num_heads; ++row) {
        const std::int64_t angle = positions[static_cast<std::size_t>(row / num_heads)] * half;
        for (std::int64_t i = 0; i < half; ++i) {
          const auto first = static_cast<std::size_t>(row * 2 * half + i);
          const auto second = static_cast<std::size_t>(row * 2 * half + half + i);
          const double x = before[first], y = before[second];
          const double c = cosine[static_cast<std::size_t>(angle + i)],
                       s = sine[static_cast<std::size_t>(angle + i)];
          ASSERT_LE(std::fabs(heads[first] - (x * c - y * s)),
                    gamma(2) * (std::fabs(x * c) + std::fabs(y * s)));
          ASSERT_LE(std::fabs(heads[second] - (y * c + x * s)),
                    gamma(2) * (std::fabs(y * c) + std::fabs(x * s)));
        }
      }
    }
  });
}

TEST_P(Rope, PositionsBeyondTheTableAndOddHeadsAreRefused) {
  std::vector<float> heads(8), table(8);
  std::vector<std::int32_t> positions{2};
  expect_error(ErrorKind::kInternal, "positions[0] is 2, must be in [0, 2)", [&] {
    device().run(&Ops::rope, RopeArgs{view(heads, {1, 1, 8}), view(positions, {1}), view(table, {2, 4}),
                                      view(table, {2, 4})});
  });
  expect_error(ErrorKind::kInternal, "odd", [&] {
    device().run(&Ops::rope, RopeArgs{view(heads, {1, 1, 7}), view(positions, {1}), view(table, {2, 3}),
                                      view(table, {2, 3})});
  });
}

class AppendKv : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, AppendKv, testing::ValuesIn(every_backend()), variant_name);

TEST_P(AppendKv, PutsEveryTokenIntoItsSlotAndNothingElse) {
  Random random(52);
  const std::int64_t num_blocks = 5, block_size = 3, num_heads = 2, width = 7, row = num_heads * width;
  std::vector<float> key_cache(static_cast<std::size_t>(num_blocks * block_size * row), -1.0F);
  std::vector<float> value_cache(key_cache.size(), -2.0F);
  std::vector<std::int32_t> slots{14, 0, 5, 3};
  std::vector<float> key = random.normals(4 * row);
  std::vector<float> value = random.normals(4 * row);
  std::vector<float> expected_keys = key_cache, expected_values = value_cache;
  for (std::size_t i = 0; i < key.size(); ++i) {
    const auto token = i / static_cast<std::size_t>(row);
    const auto at = static_cast<std::size_t>(slots[token] * row) + i % static_cast<std::size_t>(row);
    expected_keys[at] = key[i];
    expected_values[at] = value[i];
  }
  const AppendKvArgs args{view(key, {4, num_heads, width}), view(value, {4, num_heads, width}),
                          view(slots, {4}), view(key_cache, {num_blocks, block_size, num_heads, width}),
                          view(value_cache, {num_blocks, block_size, num_heads, width})};
  device().run(&Ops::append_kv, args);
  EXPECT_EQ(key_cache, expected_keys);
  EXPECT_EQ(value_cache, expected_values);
  slots[2] = 15;
  expect_error(ErrorKind::kInternal, "slots[2] is 15, must be in [0, 15)",
               [&] { device().run(&Ops::append_kv, args); });
}

}  // namespace
}  // namespace aurora::kernel_test
