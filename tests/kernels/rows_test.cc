// embed, gather_rows, weighted_sum.
#include <cstring>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

class Embed : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Embed, testing::ValuesIn(every_backend()), variant_name);

TEST_P(Embed, CopiesTheRowsOfTheTable) {
  Random random(41);
  for (const std::int64_t width : {1, 16, 33}) {
    for (const std::int64_t num_tokens : {0, 1, 10, 11}) {
      std::vector<float> table = random.normals(10 * width);
      std::vector<std::int32_t> ids = random.indices(num_tokens, 10);
      std::vector<float> output(static_cast<std::size_t>(num_tokens * width));
      device().run(&Ops::embed, EmbedArgs{view(table, {10, width}), view(ids, {num_tokens}),
                                          view(output, {num_tokens, width})});
      for (std::size_t i = 0; i < output.size(); ++i) {
        const auto row = i / static_cast<std::size_t>(width);
        const auto column = i % static_cast<std::size_t>(width);
        EXPECT_EQ(output[i],
                  table[static_cast<std::size_t>(ids[row]) * static_cast<std::size_t>(width) + column]);
      }
    }
  }
}

TEST_P(Embed, AnIdOutsideTheVocabularyIsNamed) {
  std::vector<float> table(40);
  std::vector<float> output(8);
  for (const std::int32_t bad : {-1, 10, 1000000}) {
    std::vector<std::int32_t> ids{3, bad};
    expect_error(
        ErrorKind::kInternal, "token_ids[1] is " + std::to_string(bad) + ", must be in [0, 10)", [&] {
          device().run(&Ops::embed, EmbedArgs{view(table, {10, 4}), view(ids, {2}), view(output, {2, 4})});
        });
  }
}

class GatherRows : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, GatherRows, testing::ValuesIn(every_backend()), variant_name);

TEST_P(GatherRows, CopiesAndConvertsBetweenFloat32AndBFloat16) {
  Random random(42);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t width : {1, 15, 16, 17, 40}) {
      const std::int64_t num_rows = 13;
      std::vector<float> input = random.normals(5 * width);
      std::vector<std::uint16_t> narrow_input = to_bfloat16(input);
      const std::vector<float> rounded = from_bfloat16(narrow_input);
      std::vector<std::int32_t> indices = random.indices(num_rows, 5);
      const auto count = static_cast<std::size_t>(num_rows * width);
      std::vector<float> wide(count), widened(count);
      std::vector<std::uint16_t> narrow(count), narrowed(count);
      const Tensor index = view(indices, {num_rows});
      device().run(&Ops::gather_rows,
                   GatherRowsArgs{view(input, {5, width}), index, view(wide, {num_rows, width})});
      device().run(&Ops::gather_rows,
                   GatherRowsArgs{view(input, {5, width}), index, view(narrowed, {num_rows, width})});
      device().run(&Ops::gather_rows,
                   GatherRowsArgs{view(narrow_input, {5, width}), index, view(narrow, {num_rows, width})});
      device().run(&Ops::gather_rows,
                   GatherRowsArgs{view(narrow_input, {5, width}), index, view(widened, {num_rows, width})});
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t at = static_cast<std::size_t>(indices[i / static_cast<std::size_t>(width)]) *
                                   static_cast<std::size_t>(width) +
                               i % static_cast<std::size_t>(width);
        EXPECT_EQ(wide[i], input[at]);
        EXPECT_EQ(narrowed[i], narrow_input[at]);
        EXPECT_EQ(narrow[i], narrow_input[at]);
        EXPECT_EQ(widened[i], rounded[at]);
      }
    }
  });
}

TEST_P(GatherRows, AnIndexOutOfRangeIsNamed) {
  std::vector<float> input(8), output(8);
  std::vector<std::int32_t> indices{0, 2};
  expect_error(ErrorKind::kInternal, "gather_rows: indices[1] is 2", [&] {
    device().run(&Ops::gather_rows,
                 GatherRowsArgs{view(input, {2, 4}), view(indices, {2}), view(output, {2, 4})});
  });
}

// A combine of random shape: each row has from 0 to 5 terms.
struct Combine {
  std::int64_t num_rows, num_input_rows, width;
  std::vector<std::int32_t> offsets{0};
  std::vector<std::int32_t> indices;
  std::vector<float> weights;

  Combine(Random& random, std::int64_t rows, std::int64_t input_rows, std::int64_t columns)
      : num_rows(rows), num_input_rows(input_rows), width(columns) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int32_t num_terms = random.below(6);
      for (std::int32_t i = 0; i < num_terms; ++i) {
        indices.push_back(random.below(input_rows));
        weights.push_back(random.normal());
      }
      offsets.push_back(static_cast<std::int32_t>(indices.size()));
    }
  }
  std::int64_t num_terms() const { return static_cast<std::int64_t>(indices.size()); }

  /// The sum in float32 in the order of the terms, which the operation promises to the bit.
  std::vector<float> sum(const std::vector<float>& input, const std::vector<float>* initial,
                         bool weighted) const {
    std::vector<float> output(static_cast<std::size_t>(num_rows * width));
    for (std::int64_t row = 0; row < num_rows; ++row) {
      for (std::int64_t column = 0; column < width; ++column) {
        const auto at = static_cast<std::size_t>(row * width + column);
        float total = initial != nullptr ? (*initial)[at] : 0.0F;
        for (auto p = static_cast<std::size_t>(offsets[static_cast<std::size_t>(row)]);
             p < static_cast<std::size_t>(offsets[static_cast<std::size_t>(row) + 1]); ++p) {
          // volatile: no contraction into a fused multiply-add
          volatile float term = input[static_cast<std::size_t>(indices[p] * width + column)];
          if (weighted) term = term * weights[p];
          total += term;
        }
        output[at] = total;
      }
    }
    return output;
  }
};

class WeightedSum : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, WeightedSum, testing::ValuesIn(every_backend()), variant_name);

TEST_P(WeightedSum, AddsTheTermsInTheirOrderToTheBit) {
  Random random(44);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t width : {1, 15, 16, 17, 128}) {
      for (const std::int64_t num_rows : {1, 6, 20}) {
        Combine combine(random, num_rows, 9, width);
        std::vector<float> input = random.normals(9 * width);
        std::vector<float> initial = random.normals(num_rows * width);
        for (const bool weighted : {false, true}) {
          for (const bool starts_anew : {false, true}) {
            std::vector<float> output = initial;
            WeightedSumArgs args{
                .input = view(input, {9, width}),
                .offsets = view(combine.offsets, {num_rows + 1}),
                .indices = view(combine.indices, {combine.num_terms()}),
                .weights = weighted ? view(combine.weights, {combine.num_terms()}) : Tensor(),
                .initial = starts_anew ? Tensor() : view(output, {num_rows, width}),
                .output = view(output, {num_rows, width})};
            device().run(&Ops::weighted_sum, args);
            EXPECT_EQ(output, combine.sum(input, starts_anew ? nullptr : &initial, weighted));
          }
        }
      }
    }
  });
}

TEST_P(WeightedSum, ReadsAndWritesBFloat16AndSumsInFloat32) {
  Random random(45);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t width : {5, 16, 37}) {
      Combine combine(random, 8, 6, width);
      std::vector<std::uint16_t> input = to_bfloat16(random.normals(6 * width));
      std::vector<std::uint16_t> output(static_cast<std::size_t>(8 * width));
      device().run(&Ops::weighted_sum,
                   WeightedSumArgs{.input = view(input, {6, width}),
                                   .offsets = view(combine.offsets, {9}),
                                   .indices = view(combine.indices, {combine.num_terms()}),
                                   .weights = view(combine.weights, {combine.num_terms()}),
                                   .initial = {},
                                   .output = view(output, {8, width})});
      EXPECT_EQ(output, to_bfloat16(combine.sum(from_bfloat16(input), nullptr, true)));
    }
  });
}

TEST_P(WeightedSum, ReadsTheTermsFromTheFirstOffsetOn) {
  std::vector<float> input{1, 2, 4, 8};
  std::vector<std::int32_t> offsets{1, 2, 4};
  std::vector<std::int32_t> indices{0, 1, 2, 3};
  std::vector<float> output(2);
  device().run(&Ops::weighted_sum, WeightedSumArgs{.input = view(input, {4, 1}),
                                                   .offsets = view(offsets, {3}),
                                                   .indices = view(indices, {4}),
                                                   .weights = {},
                                                   .initial = {},
                                                   .output = view(output, {2, 1})});
  EXPECT_EQ(output, (std::vector<float>{2, 12}));
}

TEST_P(WeightedSum, RowsWithoutAnyTermAreZeroOrTheInitial) {
  std::vector<std::int32_t> offsets{0, 0, 0};
  std::vector<float> initial{1, 2, 3, 4};
  std::vector<float> output(4, 9.0F);
  WeightedSumArgs args{.input = Tensor(nullptr, DType::kFloat32, {0, 2}),
                       .offsets = view(offsets, {3}),
                       .indices = Tensor(nullptr, DType::kInt32, {0}),
                       .weights = {},
                       .initial = {},
                       .output = view(output, {2, 2})};
  device().run(&Ops::weighted_sum, args);
  EXPECT_EQ(output, (std::vector<float>{0, 0, 0, 0}));
  args.initial = view(initial, {2, 2});
  device().run(&Ops::weighted_sum, args);
  EXPECT_EQ(output, initial);
}

TEST_P(WeightedSum, OffsetsAndIndicesOutOfRangeAreRefused) {
  std::vector<float> input(4), output(2);
  std::vector<std::int32_t> offsets{0, 1, 2};
  std::vector<std::int32_t> indices{0, 4};
  WeightedSumArgs args{.input = view(input, {4, 1}),
                       .offsets = view(offsets, {3}),
                       .indices = view(indices, {2}),
                       .weights = {},
                       .initial = {},
                       .output = view(output, {2, 1})};
  expect_error(ErrorKind::kInternal, "indices[1] is 4", [&] { device().run(&Ops::weighted_sum, args); });
  indices[1] = 0;
  offsets[2] = 3;
  expect_error(ErrorKind::kInternal, "beyond the terms", [&] { device().run(&Ops::weighted_sum, args); });
  offsets = {0, 2, 1};
  expect_error(ErrorKind::kInternal, "offsets decrease", [&] { device().run(&Ops::weighted_sum, args); });
}

}  // namespace
}  // namespace aurora::kernel_test
