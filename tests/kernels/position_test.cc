// rope and append_kv.
#include <algorithm>
#include <array>
#include <numeric>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

class Rope : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Rope, testing::ValuesIn(every_backend()), variant_name);

// By the formula in double.
void check_rotated(const std::vector<float>& before, const std::vector<float>& after, std::int64_t num_heads,
                   std::int64_t half, const std::vector<std::int32_t>& positions,
                   const std::vector<float>& cosine, const std::vector<float>& sine) {
  const auto num_rows = static_cast<std::int64_t>(positions.size()) * num_heads;
  for (std::int64_t row = 0; row < num_rows; ++row) {
    const std::int64_t angle = positions[static_cast<std::size_t>(row / num_heads)] * half;
    for (std::int64_t i = 0; i < half; ++i) {
      const auto first = static_cast<std::size_t>(row * 2 * half + i);
      const auto second = static_cast<std::size_t>(row * 2 * half + half + i);
      const double x = before[first], y = before[second];
      const double c = cosine[static_cast<std::size_t>(angle + i)],
                   s = sine[static_cast<std::size_t>(angle + i)];
      ASSERT_LE(std::fabs(after[first] - (x * c - y * s)), gamma(2) * (std::fabs(x * c) + std::fabs(y * s)));
      ASSERT_LE(std::fabs(after[second] - (y * c + x * s)), gamma(2) * (std::fabs(y * c) + std::fabs(x * s)));
    }
  }
}

TEST_P(Rope, RotatesEachPairByItsAngle) {
  Random random(51);
  const std::int64_t num_tokens = 5, num_positions = 9;
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t half : {1, 3, 8, 16, 17, 20, 32, 64}) {
      for (const auto& [num_heads, num_kv_heads] : std::vector<std::array<std::int64_t, 2>>{{3, 1}, {6, 6}}) {
        std::vector<float> query = random.normals(num_tokens * num_heads * 2 * half);
        std::vector<float> key = random.normals(num_tokens * num_kv_heads * 2 * half);
        const std::vector<float> query_before = query, key_before = key;
        std::vector<float> cosine = random.normals(num_positions * half);
        std::vector<float> sine = random.normals(num_positions * half);
        std::vector<std::int32_t> positions = random.indices(num_tokens, num_positions);
        device().run(&Ops::rope,
                     RopeArgs{view(query, {num_tokens, num_heads, 2 * half}),
                              view(key, {num_tokens, num_kv_heads, 2 * half}), view(positions, {num_tokens}),
                              view(cosine, {num_positions, half}), view(sine, {num_positions, half})});
        check_rotated(query_before, query, num_heads, half, positions, cosine, sine);
        check_rotated(key_before, key, num_kv_heads, half, positions, cosine, sine);
      }
    }
  });
}

TEST_P(Rope, PositionsBeyondTheTableOddHeadsAndUnequalOnesAreRefused) {
  std::vector<float> query(8), key(8), table(8);
  std::vector<std::int32_t> positions{2};
  const auto rotate = [&](std::int64_t width, std::int64_t key_width) {
    device().run(&Ops::rope,
                 RopeArgs{view(query, {1, 1, width}), view(key, {1, 1, key_width}), view(positions, {1}),
                          view(table, {2, width / 2}), view(table, {2, width / 2})});
  };
  expect_error(ErrorKind::kInternal, "positions[0] is 2, must be in [0, 2)", [&] { rotate(8, 8); });
  expect_error(ErrorKind::kInternal, "odd", [&] { rotate(7, 7); });
  expect_error(ErrorKind::kInternal, "rope: key is [1, 1, 6], expected [1, 1, 8]", [&] { rotate(8, 6); });
}

class AppendKv : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, AppendKv, testing::ValuesIn(every_backend()), variant_name);

// Rows of odd widths, of whole 16-byte words, and of more than a block moves at once.
TEST_P(AppendKv, PutsEveryTokenIntoItsSlotAndNothingElse) {
  Random random(52);
  const std::int64_t num_blocks = 5, block_size = 3, num_heads = 2;
  for (const std::int64_t width : {7, 8, 64, 128, 130, 1500}) {
    const std::int64_t row = num_heads * width;
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
    EXPECT_EQ(key_cache, expected_keys) << "width " << width;
    EXPECT_EQ(value_cache, expected_values) << "width " << width;
  }
}

// As many as leave a thread several words of a row.
TEST_P(AppendKv, ManyTokensFillTheCacheInAnyOrder) {
  Random random(53);
  const std::int64_t num_tokens = 1200, block_size = 16, num_heads = 3, width = 24, row = num_heads * width;
  std::vector<std::int32_t> slots(static_cast<std::size_t>(num_tokens));
  std::iota(slots.begin(), slots.end(), 0);
  std::shuffle(slots.begin(), slots.end(), random.generator());
  std::vector<float> key = random.normals(num_tokens * row), value = random.normals(num_tokens * row);
  std::vector<float> key_cache(key.size()), value_cache(value.size());
  device().run(&Ops::append_kv,
               AppendKvArgs{view(key, {num_tokens, num_heads, width}),
                            view(value, {num_tokens, num_heads, width}), view(slots, {num_tokens}),
                            view(key_cache, {num_tokens / block_size, block_size, num_heads, width}),
                            view(value_cache, {num_tokens / block_size, block_size, num_heads, width})});
  for (std::int64_t token = 0; token < num_tokens; ++token) {
    const std::int64_t at = slots[static_cast<std::size_t>(token)] * row;
    const auto holds = [&](const std::vector<float>& cache, const std::vector<float>& rows) {
      return std::equal(cache.begin() + at, cache.begin() + at + row, rows.begin() + token * row);
    };
    ASSERT_TRUE(holds(key_cache, key) && holds(value_cache, value)) << "token " << token;
  }
}

TEST_P(AppendKv, ASlotBeyondTheCacheIsNamed) {
  std::vector<float> rows(3 * 8), cache(15 * 8);
  std::vector<std::int32_t> slots{14, 0, 15};
  expect_error(ErrorKind::kInternal, "slots[2] is 15, must be in [0, 15)", [&] {
    device().run(&Ops::append_kv, AppendKvArgs{view(rows, {3, 1, 8}), view(rows, {3, 1, 8}), view(slots, {3}),
                                               view(cache, {5, 3, 1, 8}), view(cache, {5, 3, 1, 8})});
  });
}

}  // namespace
}  // namespace aurora::kernel_test
