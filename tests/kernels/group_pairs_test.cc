// group_pairs against a naive loop over experts and tokens, to the bit.
#include <algorithm>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

using Indices = std::vector<std::int32_t>;

struct Shape {
  std::int64_t num_tokens;
  std::int32_t num_experts, top_k;
  std::int32_t num_chosen;  // tokens choose among the last so many experts
};

struct Grouped {
  Indices expert_offsets, row_indices, term_offsets, term_indices;
};

struct Problem {
  Shape shape;
  Indices expert_ids;  // [num_tokens, top_k], those of a token distinct

  Problem(const Shape& given, Random& random) : shape(given) {
    Indices experts;
    for (std::int32_t i = 0; i < shape.num_chosen; ++i) experts.push_back(shape.num_experts - 1 - i);
    for (std::int64_t token = 0; token < shape.num_tokens; ++token) {
      std::ranges::shuffle(experts, random.generator());
      expert_ids.insert(expert_ids.end(), experts.begin(), experts.begin() + shape.top_k);
    }
  }

  Grouped expected() const {
    Grouped result;
    result.term_indices.resize(expert_ids.size());
    for (std::int32_t expert = 0; expert < shape.num_experts; ++expert) {
      result.expert_offsets.push_back(static_cast<std::int32_t>(result.row_indices.size()));
      for (std::size_t pair = 0; pair < expert_ids.size(); ++pair) {
        if (expert_ids[pair] != expert) continue;
        result.term_indices[pair] = static_cast<std::int32_t>(result.row_indices.size());
        result.row_indices.push_back(static_cast<std::int32_t>(pair) / shape.top_k);
      }
    }
    result.expert_offsets.push_back(static_cast<std::int32_t>(expert_ids.size()));
    for (std::int32_t token = 0; token <= shape.num_tokens; ++token)
      result.term_offsets.push_back(token * shape.top_k);
    return result;
  }

  Grouped run(Device& device) {
    const std::int64_t num_pairs = shape.num_tokens * shape.top_k;
    Grouped result;
    result.expert_offsets.resize(static_cast<std::size_t>(shape.num_experts) + 1, -1);
    result.row_indices.resize(expert_ids.size(), -1);
    result.term_offsets.resize(static_cast<std::size_t>(shape.num_tokens) + 1, -1);
    result.term_indices.resize(expert_ids.size(), -1);
    Indices scratch(device.ops().group_rows_scratch_bytes(shape.num_tokens, shape.top_k, shape.num_experts) /
                    4);
    device.run(&Ops::group_pairs,
               GroupPairsArgs{.expert_ids = view(expert_ids, {shape.num_tokens, shape.top_k}),
                              .scratch = view(scratch, {static_cast<std::int64_t>(scratch.size())}),
                              .expert_offsets = view(result.expert_offsets, {shape.num_experts + 1}),
                              .row_indices = view(result.row_indices, {num_pairs}),
                              .term_offsets = view(result.term_offsets, {shape.num_tokens + 1}),
                              .term_indices = view(result.term_indices, {num_pairs})});
    return result;
  }
};

class GroupPairs : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, GroupPairs, testing::ValuesIn(every_way()), variant_name);

// A GPU takes one block up to 2048 pairs (fewer with hundreds of experts), and several beyond.
TEST_P(GroupPairs, EqualsTheLoopOverExpertsAndTokens) {
  Random random(71);
  const std::vector<Shape> shapes{
      {1, 1, 1, 1},        {1, 128, 8, 128},   {2, 8, 2, 8},      {3, 33, 5, 6},      {255, 128, 8, 128},
      {256, 128, 8, 128},  {257, 128, 8, 128}, {2049, 60, 1, 60}, {31, 16, 3, 16},    {32, 16, 4, 16},
      {33, 16, 4, 9},      {500, 8, 1, 1},     {400, 64, 6, 6},   {1023, 60, 8, 60},  {1024, 128, 8, 128},
      {1025, 128, 8, 128}, {4097, 128, 8, 40}, {9000, 4, 2, 4},   {700, 600, 6, 600}, {90, 1500, 4, 1500}};
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(std::to_string(shape.num_tokens) + " tokens to " + std::to_string(shape.top_k) + " of " +
                 std::to_string(shape.num_experts) + " experts");
    Problem problem(shape, random);
    const Grouped expected = problem.expected();
    const Grouped found = problem.run(device());
    EXPECT_EQ(found.expert_offsets, expected.expert_offsets);
    EXPECT_EQ(found.row_indices, expected.row_indices);
    EXPECT_EQ(found.term_offsets, expected.term_offsets);
    EXPECT_EQ(found.term_indices, expected.term_indices);
  }
}

TEST_P(GroupPairs, AcceptsNoTokens) {
  Random random(72);
  Problem nothing({0, 8, 2, 8}, random);
  EXPECT_EQ(nothing.run(device()).expert_offsets, Indices(9, -1)) << "nothing is touched";
}

TEST_P(GroupPairs, AnExpertThatThereIsNotIsRefused) {
  Random random(73);
  for (const std::int32_t expert : {-1, 16}) {
    Problem problem({40, 16, 4, 16}, random);
    problem.expert_ids[87] = expert;
    expect_error(ErrorKind::kInternal,
                 "group_pairs: expert_ids[87] is " + std::to_string(expert) + ", must be in [0, 16)",
                 [&] { problem.run(*std::make_unique<Device>(make_device())); });
  }
}

}  // namespace
}  // namespace aurora::kernel_test
