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

/// Narrow and wide rows, with and without whole vectors of 16 bytes, cut over one block of a GPU or several.
constexpr std::int64_t kWidths[] = {1, 7, 8, 12, 33, 1000, 2056, 4100};
/// Few rows, whose blocks are cut smaller on a GPU, and many.
constexpr std::int64_t kRowCounts[] = {1, 2, 3, 700};

TEST_P(GatherRows, RowsOfEveryWidthAndPlaceAreCopiedInFewAndInMany) {
  Random random(47);
  for (const std::int64_t width : kWidths) {
    for (const std::int64_t num_rows : kRowCounts) {
      for (const std::int64_t shift : {0, 1}) {  // elements by which all data is misaligned
        SCOPED_TRACE(std::to_string(num_rows) + " rows of " + std::to_string(width) + ", shifted by " +
                     std::to_string(shift));
        std::vector<float> input = random.normals(3 * width + shift);
        std::vector<std::uint16_t> narrow_input = to_bfloat16(input);
        std::vector<std::int32_t> indices = random.indices(num_rows, 3);
        std::vector<float> wide(static_cast<std::size_t>(num_rows * width + shift), 7.0F);
        std::vector<std::uint16_t> narrow(wide.size(), 7), narrowed(wide.size(), 7);
        const Tensor from(input.data() + shift, DType::kFloat32, {3, width});
        const Tensor narrow_from(narrow_input.data() + shift, DType::kBFloat16, {3, width});
        const Tensor index = view(indices, {num_rows});
        const auto gather = [&](const Tensor& rows, void* output, DType dtype) {
          device().run(&Ops::gather_rows,
                       GatherRowsArgs{rows, index, Tensor(output, dtype, {num_rows, width})});
        };
        gather(from, wide.data() + shift, DType::kFloat32);
        gather(from, narrowed.data() + shift, DType::kBFloat16);
        gather(narrow_from, narrow.data() + shift, DType::kBFloat16);
        std::vector<float> expected(static_cast<std::size_t>(shift), 7.0F);
        std::vector<std::uint16_t> narrow_expected(static_cast<std::size_t>(shift), 7);
        for (const std::int32_t i : indices) {
          const auto begin = static_cast<std::ptrdiff_t>(shift + i * width);
          expected.insert(expected.end(), input.begin() + begin, input.begin() + begin + width);
          narrow_expected.insert(narrow_expected.end(), narrow_input.begin() + begin,
                                 narrow_input.begin() + begin + width);
        }
        EXPECT_TRUE(wide == expected);
        EXPECT_TRUE(narrow == narrow_expected);
        EXPECT_TRUE(narrowed == narrow_expected);
      }
    }
  }
}

// A combine: each row has a random number of terms from 0 to 5, or those of `term_counts` in turn.
struct Combine {
  std::int64_t num_rows, num_input_rows, width;
  std::vector<std::int32_t> offsets{0};
  std::vector<std::int32_t> indices;
  std::vector<float> weights;

  Combine(Random& random, std::int64_t rows, std::int64_t input_rows, std::int64_t columns,
          const std::vector<std::int32_t>& term_counts = {})
      : num_rows(rows), num_input_rows(input_rows), width(columns) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int32_t num_terms = term_counts.empty()
                                         ? random.below(6)
                                         : term_counts[static_cast<std::size_t>(row) % term_counts.size()];
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

class WeightedSum : public OnEveryBackend {
 protected:
  /// Rows of In summed onto initial ones of Out: each float, or uint16_t for bfloat16.
  template <class In, class Out>
  void check_sum(Combine combine, std::int64_t shift, Random& random) {
    std::vector<float> input = rounded_to<In>(random.normals(combine.num_input_rows * combine.width));
    std::vector<float> initial = rounded_to<Out>(random.normals(combine.num_rows * combine.width));
    std::vector<In> rows = as<In>(input);
    std::vector<Out> output = as<Out>(initial);
    rows.insert(rows.begin(), static_cast<std::size_t>(shift), In{});
    output.insert(output.begin(), static_cast<std::size_t>(shift), Out{});
    const Tensor result(output.data() + shift, dtype_of<Out>(), {combine.num_rows, combine.width});
    device().run(&Ops::weighted_sum, WeightedSumArgs{.input = Tensor(rows.data() + shift, dtype_of<In>(),
                                                                     {combine.num_input_rows, combine.width}),
                                                     .offsets = view(combine.offsets, {combine.num_rows + 1}),
                                                     .indices = view(combine.indices, {combine.num_terms()}),
                                                     .weights = view(combine.weights, {combine.num_terms()}),
                                                     .initial = result,
                                                     .output = result});
    std::vector<Out> expected = as<Out>(combine.sum(input, &initial, true));
    expected.insert(expected.begin(), static_cast<std::size_t>(shift), Out{});
    EXPECT_TRUE(output == expected);
  }

  void check_sum_of_every_dtype(const Combine& combine, std::int64_t shift, Random& random) {
    check_sum<float, float>(combine, shift, random);
    check_sum<float, std::uint16_t>(combine, shift, random);
    check_sum<std::uint16_t, float>(combine, shift, random);
    check_sum<std::uint16_t, std::uint16_t>(combine, shift, random);
  }

 private:
  template <class T>
  static constexpr DType dtype_of() {
    return std::is_same_v<T, float> ? DType::kFloat32 : DType::kBFloat16;
  }
  template <class T>
  static std::vector<T> as(const std::vector<float>& values) {
    if constexpr (std::is_same_v<T, float>) {
      return values;
    } else {
      return to_bfloat16(values);
    }
  }
  template <class T>
  static std::vector<float> rounded_to(const std::vector<float>& values) {
    return std::is_same_v<T, float> ? values : from_bfloat16(to_bfloat16(values));
  }
};
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

// A GPU loads terms in batches of 4 or 8, and reads their indices 32 at a time.
TEST_P(WeightedSum, RowsOfEveryWidthPlaceAndNumberOfTermsAreSummedToTheBit) {
  Random random(48);
  for (const std::int64_t width : kWidths) {
    for (const std::vector<std::int32_t>& term_counts :
         {std::vector<std::int32_t>{9}, {0, 33}, {1, 8, 4}, {5, 0, 1, 8, 2, 32, 9}}) {
      const std::int64_t num_rows =
          term_counts.size() > 3 ? 700 : static_cast<std::int64_t>(term_counts.size());
      if (num_rows * width > 2'000'000) continue;  // adds minutes and no case
      const Combine combine(random, num_rows, 40, width, term_counts);
      for (const std::int64_t shift : {0, 1}) {  // elements by which all rows are misaligned
        SCOPED_TRACE(std::to_string(num_rows) + " rows of " + std::to_string(width) + ", shifted by " +
                     std::to_string(shift));
        check_sum_of_every_dtype(combine, shift, random);
      }
    }
  }
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
  indices.assign(40, 0);  // the bad one is not among the first that a warp of a GPU reads
  indices[39] = 4;
  offsets = {0, 1, 40};
  args.indices = view(indices, {40});
  expect_error(ErrorKind::kInternal, "indices[39] is 4", [&] { device().run(&Ops::weighted_sum, args); });
  args.indices = view(indices, {2});
  offsets = {0, 1, 3};
  expect_error(ErrorKind::kInternal, "beyond the terms", [&] { device().run(&Ops::weighted_sum, args); });
  offsets = {0, 2, 1};
  expect_error(ErrorKind::kInternal, "offsets decrease", [&] { device().run(&Ops::weighted_sum, args); });
}

}  // namespace
}  // namespace aurora::kernel_test
