#include <algorithm>
#include <numeric>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

struct Shape {
  std::int64_t num_heads = 4, num_kv_heads = 2, width = 32, block_size = 4;
};

// Several sequences of given lengths with their keys and values scattered over a cache, every block of which
// belongs to at most one sequence.
struct World {
  Shape shape;
  std::int64_t num_blocks = 0, max_blocks = 0, num_sequences = 0;
  std::vector<std::int32_t> block_tables;
  std::vector<float> key_cache, value_cache;

  World(Random& random, const Shape& s, const std::vector<std::int64_t>& lengths) : shape(s) {
    num_sequences = static_cast<std::int64_t>(lengths.size());
    for (const std::int64_t length : lengths) {
      const std::int64_t blocks = (length + s.block_size - 1) / s.block_size;
      max_blocks = std::max(max_blocks, blocks);
      num_blocks += blocks;
    }
    std::vector<std::int32_t> free(static_cast<std::size_t>(num_blocks));
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), random.generator());
    for (const std::int64_t length : lengths) {
      for (std::int64_t b = 0; b < max_blocks; ++b) {
        const bool is_used = b * s.block_size < length;
        block_tables.push_back(is_used ? free.back() : -7);  // unused entries are not read
        if (is_used) free.pop_back();
      }
    }
    const std::int64_t count = num_blocks * s.block_size * s.num_kv_heads * s.width;
    key_cache = random.normals(count);
    value_cache = random.normals(count);
  }

  std::size_t row(std::int64_t sequence, std::int64_t position, std::int64_t kv_head) const {
    const std::int64_t block =
        block_tables[static_cast<std::size_t>(sequence * max_blocks + position / shape.block_size)];
    const std::int64_t slot = block * shape.block_size + position % shape.block_size;
    return static_cast<std::size_t>((slot * shape.num_kv_heads + kv_head) * shape.width);
  }
};

struct Queries {
  std::vector<std::int32_t> sequences, positions;
  std::vector<float> query;
};

std::vector<float> attend(Device& device, World& world, Queries& queries, float scale, std::int32_t window) {
  const Shape& s = world.shape;
  const auto n = static_cast<std::int64_t>(queries.positions.size());
  std::vector<float> output(queries.query.size());
  device.run(
      &Ops::paged_attention,
      PagedAttentionArgs{
          .query = view(queries.query, {n, s.num_heads, s.width}),
          .key_cache = view(world.key_cache, {world.num_blocks, s.block_size, s.num_kv_heads, s.width}),
          .value_cache = view(world.value_cache, {world.num_blocks, s.block_size, s.num_kv_heads, s.width}),
          .block_tables = view(world.block_tables, {world.num_sequences, world.max_blocks}),
          .sequence_index = view(queries.sequences, {n}),
          .positions = view(queries.positions, {n}),
          .scale = scale,
          .window = window,
          .output = view(output, {n, s.num_heads, s.width})});
  return output;
}

// One head of one token by the formula in double, with a bound on the error of any float32 evaluation: a
// score is off by at most e, so a weight by a factor exp(2e), and the sums add their own roundings.
void check_head(const World& world, const float* query, const float* output, std::int64_t sequence,
                std::int64_t position, std::int64_t head, float scale, std::int32_t window) {
  const Shape& s = world.shape;
  const std::int64_t kv_head = head / (s.num_heads / s.num_kv_heads);
  const std::int64_t first = window > 0 ? std::max<std::int64_t>(0, position - window + 1) : 0;
  std::vector<double> weights;
  double largest = -HUGE_VAL, score_error = 0;
  for (std::int64_t p = first; p <= position; ++p) {
    const float* key = world.key_cache.data() + world.row(sequence, p, kv_head);
    double score = 0, magnitude = 0;
    for (std::int64_t i = 0; i < s.width; ++i) {
      const double product = static_cast<double>(query[i]) * static_cast<double>(key[i]);
      score += product;
      magnitude += std::fabs(product);
    }
    weights.push_back(score * static_cast<double>(scale));
    largest = std::max(largest, weights.back());
    score_error =
        std::max(score_error, gamma(s.width + 3) * magnitude * std::fabs(static_cast<double>(scale)));
  }
  double total = 0;
  for (double& weight : weights) total += weight = std::exp(weight - largest);
  const double relative =
      std::expm1(2 * score_error) + gamma(2 * static_cast<std::int64_t>(weights.size()) + 20);
  for (std::int64_t i = 0; i < s.width; ++i) {
    double exact = 0, magnitude = 0;
    for (std::size_t j = 0; j < weights.size(); ++j) {
      const auto at = world.row(sequence, first + static_cast<std::int64_t>(j), kv_head);
      const double term =
          weights[j] / total * static_cast<double>(world.value_cache[at + static_cast<std::size_t>(i)]);
      exact += term;
      magnitude += std::fabs(term);
    }
    ASSERT_LE(std::fabs(static_cast<double>(output[i]) - exact), relative * magnitude)
        << "position " << position << " head " << head << " element " << i;
  }
}

void check_world(Device& device, Random& random, World& world, std::int32_t window) {
  const Shape& s = world.shape;
  Queries queries;
  for (std::int64_t sequence = 0; sequence < world.num_sequences; ++sequence) {
    std::int64_t length = 0;
    while (
        length / s.block_size < world.max_blocks &&
        world.block_tables[static_cast<std::size_t>(sequence * world.max_blocks + length / s.block_size)] >=
            0) {
      queries.sequences.push_back(static_cast<std::int32_t>(sequence));
      queries.positions.push_back(static_cast<std::int32_t>(length++));
    }
  }
  const std::int64_t row = s.num_heads * s.width;
  queries.query = random.normals(static_cast<std::int64_t>(queries.positions.size()) * row);
  const float scale = 1.0F / std::sqrt(static_cast<float>(s.width));
  const std::vector<float> output = attend(device, world, queries, scale, window);
  for (std::size_t token = 0; token < queries.positions.size(); ++token) {
    for (std::int64_t head = 0; head < s.num_heads; ++head) {
      const auto at = static_cast<std::int64_t>(token) * row + head * s.width;
      check_head(world, queries.query.data() + at, output.data() + at, queries.sequences[token],
                 queries.positions[token], head, scale, window);
    }
  }
}

class PagedAttention : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, PagedAttention, testing::ValuesIn(every_backend()), variant_name);

TEST_P(PagedAttention, EqualsTheFormulaForAwkwardShapes) {
  Random random(61);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const Shape& shape : {Shape{4, 2, 32, 4}, Shape{3, 3, 16, 1}, Shape{6, 1, 20, 5}, Shape{2, 1, 1, 3},
                               Shape{1, 1, 15, 16}, Shape{8, 2, 64, 7}}) {
      World world(random, shape, {1, 5, 16, 33});
      check_world(device(), random, world, 0);
    }
  });
}

TEST_P(PagedAttention, AWindowHidesOlderPositions) {
  Random random(62);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int32_t window : {1, 2, 7, 16, 1000}) {
      World world(random, {4, 2, 24, 4}, {3, 40, 17});
      check_world(device(), random, world, window);
    }
  });
}

TEST_P(PagedAttention, ATokenSeesTheSameHoweverThePromptIsCutAndWhoeverIsBeside) {
  Random random(63);
  const Shape shape{4, 2, 32, 4};
  World world(random, shape, {40, 23, 31});
  const std::int64_t row = shape.num_heads * shape.width;
  for (const std::int32_t window : {0, 9}) {
    Queries whole;
    for (std::int32_t position = 0; position < 40; ++position) {
      whole.sequences.push_back(0);
      whole.positions.push_back(position);
    }
    whole.query = random.normals(40 * row);
    const std::vector<float> expected = attend(device(), world, whole, 0.2F, window);
    for (const std::int64_t chunk : {1, 2, 7, 39}) {
      for (std::int64_t first = 0; first < 40; first += chunk) {
        const std::int64_t last = std::min<std::int64_t>(40, first + chunk);
        Queries part{
            {5 % 2, 2}, {11, 30}, random.normals(2 * row)};  // neighbours of other sequences in front
        part.sequences.insert(part.sequences.end(), static_cast<std::size_t>(last - first), 0);
        part.positions.insert(part.positions.end(), whole.positions.begin() + first,
                              whole.positions.begin() + last);
        part.query.insert(part.query.end(), whole.query.begin() + first * row,
                          whole.query.begin() + last * row);
        const std::vector<float> output = attend(device(), world, part, 0.2F, window);
        EXPECT_TRUE(std::equal(output.begin() + 2 * row, output.end(), expected.begin() + first * row))
            << "chunk " << chunk << " at " << first;
      }
    }
  }
}

// Long contexts may be cut into parts that are merged: by the formula, and alone to the bit as in a batch.
TEST_P(PagedAttention, LongContextsAreRightAndTheSameAloneAsInABatch) {
  Random random(66);
  // Heads that share keys, more than eight of them, and none; rows that are whole 16-byte words and not.
  for (const Shape& shape : {Shape{4, 1, 20, 16}, Shape{2, 2, 130, 16}, Shape{2, 2, 128, 16},
                             Shape{9, 1, 64, 16}, Shape{2, 1, 256, 16}}) {
    World world(random, shape, {530, 256, 257});
    const std::int64_t row = shape.num_heads * shape.width;
    for (const std::int32_t window : {0, 300}) {
      Queries all;
      for (const std::int32_t position : {0, 31, 32, 255, 256, 257, 400, 511, 512, 529}) {
        for (std::int32_t sequence = 0; sequence < 3; ++sequence) {
          if (position >= std::int32_t{sequence == 0 ? 530 : 255 + sequence}) continue;
          all.sequences.push_back(sequence);
          all.positions.push_back(position);
        }
      }
      const auto num_tokens = static_cast<std::int64_t>(all.positions.size());
      all.query = random.normals(num_tokens * row);
      const std::vector<float> together = attend(device(), world, all, 0.3F, window);
      for (std::int64_t token = 0; token < num_tokens; ++token) {
        const auto at = static_cast<std::size_t>(token);
        const auto begin = all.query.begin() + token * row;
        Queries alone{{all.sequences[at]}, {all.positions[at]}, {begin, begin + row}};
        const std::vector<float> output = attend(device(), world, alone, 0.3F, window);
        EXPECT_TRUE(std::equal(output.begin(), output.end(), together.begin() + token * row))
            << "sequence " << all.sequences[at] << " position " << all.positions[at];
        for (std::int64_t head = 0; head < shape.num_heads; ++head) {
          check_head(world, alone.query.data() + head * shape.width, output.data() + head * shape.width,
                     all.sequences[at], all.positions[at], head, 0.3F, window);
        }
      }
    }
  }
}

// Decoding, where every token has a sequence of its own: contexts about the size of a tile and of several.
TEST_P(PagedAttention, LastTokensOfManySequencesEqualTheFormula) {
  Random random(67);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const Shape& shape : {Shape{3, 3, 128, 16}, Shape{6, 2, 64, 7}, Shape{8, 1, 32, 16}}) {
      World world(random, shape, {40, 1, 31, 32, 33, 127, 128, 129, 161});
      const std::int64_t row = shape.num_heads * shape.width;
      for (const std::int32_t window : {0, 5, 40}) {
        Queries last{{8, 3, 0, 1, 2, 4, 5, 6, 7}, {160, 31, 39, 0, 30, 32, 126, 127, 128}, {}};
        const auto num_tokens = static_cast<std::int64_t>(last.positions.size());
        last.query = random.normals(num_tokens * row);
        const std::vector<float> output = attend(device(), world, last, 0.2F, window);
        for (std::int64_t token = 0; token < num_tokens; ++token) {
          for (std::int64_t head = 0; head < shape.num_heads; ++head) {
            const std::int64_t at = token * row + head * shape.width;
            const auto index = static_cast<std::size_t>(token);
            check_head(world, last.query.data() + at, output.data() + at, last.sequences[index],
                       last.positions[index], head, 0.2F, window);
          }
        }
      }
    }
  });
}

TEST_P(PagedAttention, ExtremeScoresGiveNoNaN) {
  Random random(64);
  World world(random, {1, 1, 16, 4}, {20});
  Queries queries{{0}, {19}, random.normals(16)};
  for (float& value : queries.query) value *= 1e6F;
  for (const float value : attend(device(), world, queries, 1.0F, 0)) EXPECT_TRUE(std::isfinite(value));
}

TEST_P(PagedAttention, BlocksAndSequencesOutOfRangeAreNamed) {
  Random random(65);
  World world(random, {1, 1, 16, 4}, {8});
  Queries queries{{1}, {3}, random.normals(16)};
  expect_error(ErrorKind::kInternal, "sequence_index[0] is 1",
               [&] { attend(device(), world, queries, 1.0F, 0); });
  queries.sequences = {0};
  queries.positions = {8};
  expect_error(ErrorKind::kInternal, "must be in [0, 2)", [&] { attend(device(), world, queries, 1.0F, 0); });
  queries.positions = {-1};
  expect_error(ErrorKind::kInternal, "negative", [&] { attend(device(), world, queries, 1.0F, 0); });
  queries.positions = {7};
  world.block_tables[1] = 99;
  expect_error(ErrorKind::kInternal, "block_tables[1] is 99",
               [&] { attend(device(), world, queries, 1.0F, 0); });
}

}  // namespace
}  // namespace aurora::kernel_test
