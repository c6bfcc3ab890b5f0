// group_rows against a naive loop over experts and rows, to the bit.
#include <algorithm>
#include <cstring>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

struct Shape {
  std::int64_t num_rows;
  std::int32_t num_experts, num_local_experts, top_k;
  bool is_skewed = false;  // every row names the first local expert alone
};

using Indices = std::vector<std::int32_t>;

struct Grouped {
  Indices expert_offsets, row_indices, term_offsets, term_indices;
  std::vector<float> term_weights;
};

/// Received rows with random headers; the rest of a row is noise.
struct Problem {
  static constexpr std::size_t kHeaderOffset = 12;

  Shape shape;
  std::size_t row_bytes;
  Indices local_index;  // [num_experts]
  std::vector<std::vector<RowEntry>> headers;
  Indices expert_offsets;
  std::int64_t num_announced = 0;  // pairs
  std::vector<float> bytes;        // [num_rows, row_bytes / 4]

  Problem(const Shape& given, Random& random)
      : shape(given),
        row_bytes(kHeaderOffset + static_cast<std::size_t>(given.top_k) * sizeof(RowEntry) + 8),
        local_index(static_cast<std::size_t>(given.num_experts), -1),
        bytes(random.normals(given.num_rows * static_cast<std::int64_t>(row_bytes / 4))) {
    Indices experts(local_index.size());
    for (std::size_t i = 0; i < experts.size(); ++i) experts[i] = static_cast<std::int32_t>(i);
    std::ranges::shuffle(experts, random.generator());
    experts.resize(static_cast<std::size_t>(shape.num_local_experts));
    std::ranges::sort(experts);
    for (std::size_t i = 0; i < experts.size(); ++i) local_index[experts[i]] = static_cast<std::int32_t>(i);
    const std::int32_t most = std::min(shape.top_k, shape.num_local_experts);
    for (std::int64_t row = 0; row < shape.num_rows; ++row) {
      if (!shape.is_skewed) std::ranges::shuffle(experts, random.generator());
      std::vector<RowEntry>& header = headers.emplace_back();
      const std::int32_t count = shape.is_skewed ? 1 : 1 + random.below(most);
      for (std::int32_t k = 0; k < count; ++k)
        header.push_back({experts[static_cast<std::size_t>(k)], random.normal()});
    }
    announce();
  }

  /// Writes the headers into the rows and counts their pairs.
  void announce() {
    expert_offsets.assign(static_cast<std::size_t>(shape.num_local_experts) + 1, 0);
    for (std::size_t row = 0; row < headers.size(); ++row) {
      std::vector<RowEntry> header = headers[row];
      for (const RowEntry& entry : header) ++expert_offsets[local_index[entry.expert] + 1];
      header.resize(static_cast<std::size_t>(shape.top_k));
      std::memcpy(reinterpret_cast<std::byte*>(bytes.data()) + row * row_bytes + kHeaderOffset, header.data(),
                  header.size() * sizeof(RowEntry));
    }
    for (std::size_t i = 1; i < expert_offsets.size(); ++i) expert_offsets[i] += expert_offsets[i - 1];
    num_announced = expert_offsets.back();
  }

  Grouped expected() const {
    Grouped result;
    result.expert_offsets = expert_offsets;
    Indices keys;  // row * top_k + entry of each grouped pair
    for (std::int32_t local = 0; local < shape.num_local_experts; ++local) {
      for (std::size_t row = 0; row < headers.size(); ++row) {
        for (std::size_t k = 0; k < headers[row].size(); ++k) {
          if (local_index[headers[row][k].expert] != local) continue;
          result.row_indices.push_back(static_cast<std::int32_t>(row));
          keys.push_back(static_cast<std::int32_t>(row * static_cast<std::size_t>(shape.top_k) + k));
        }
      }
    }
    for (std::size_t row = 0; row < headers.size(); ++row) {
      result.term_offsets.push_back(static_cast<std::int32_t>(result.term_indices.size()));
      for (std::size_t k = 0; k < headers[row].size(); ++k) {
        const auto key = static_cast<std::int32_t>(row * static_cast<std::size_t>(shape.top_k) + k);
        result.term_indices.push_back(static_cast<std::int32_t>(std::ranges::find(keys, key) - keys.begin()));
        result.term_weights.push_back(headers[row][k].weight);
      }
    }
    result.term_offsets.push_back(static_cast<std::int32_t>(result.term_indices.size()));
    return result;
  }

  Grouped run(Device& device) {
    const std::int64_t num_pairs = num_announced;
    Grouped result;
    result.expert_offsets.assign(expert_offsets.size(), -1);
    result.row_indices.resize(static_cast<std::size_t>(num_pairs));
    result.term_offsets.resize(static_cast<std::size_t>(shape.num_rows) + 1);
    result.term_indices.resize(static_cast<std::size_t>(num_pairs));
    result.term_weights.resize(static_cast<std::size_t>(num_pairs));
    std::vector<std::int32_t> scratch(
        device.ops().group_rows_scratch_bytes(shape.num_rows, shape.top_k, shape.num_local_experts) / 4);
    device.run(&Ops::group_rows,
               GroupRowsArgs{.rows = reinterpret_cast<const std::byte*>(bytes.data()),
                             .num_rows = shape.num_rows,
                             .row_bytes = row_bytes,
                             .header_offset = kHeaderOffset,
                             .top_k = shape.top_k,
                             .local_index = view(local_index, {shape.num_experts}),
                             .scratch = view(scratch, {static_cast<std::int64_t>(scratch.size())}),
                             .expert_offsets = view(result.expert_offsets, {shape.num_local_experts + 1}),
                             .row_indices = view(result.row_indices, {num_pairs}),
                             .term_offsets = view(result.term_offsets, {shape.num_rows + 1}),
                             .term_indices = view(result.term_indices, {num_pairs}),
                             .term_weights = view(result.term_weights, {num_pairs})});
    return result;
  }
};

class GroupRows : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, GroupRows, testing::ValuesIn(every_way()), variant_name);

TEST_P(GroupRows, EqualsTheLoopOverExpertsAndRows) {
  Random random(61);
  const std::vector<Shape> shapes{{1, 8, 1, 1},           {1, 8, 8, 8},       {31, 8, 3, 2},
                                  {32, 16, 16, 4},        {33, 16, 5, 4},     {256, 8, 4, 2},
                                  {257, 128, 128, 8},     {700, 64, 9, 6},    {500, 8, 4, 2, true},
                                  {1025, 200, 40, 4},     {2000, 12, 12, 3},  {1024, 40, 30, 8},
                                  {255, 40, 30, 8},       {256, 40, 30, 8},   {1025, 40, 30, 8},
                                  {3000, 16, 8, 4, true}, {700, 600, 600, 6}, {90, 1500, 1500, 4}};
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(std::to_string(shape.num_rows) + " rows, " + std::to_string(shape.num_local_experts) +
                 " local experts");
    Problem problem(shape, random);
    const Grouped expected = problem.expected();
    const Grouped found = problem.run(device());
    EXPECT_EQ(found.expert_offsets, expected.expert_offsets);
    EXPECT_EQ(found.row_indices, expected.row_indices);
    EXPECT_EQ(found.term_offsets, expected.term_offsets);
    EXPECT_EQ(found.term_indices, expected.term_indices);
    EXPECT_EQ(found.term_weights, expected.term_weights);
  }
}

TEST_P(GroupRows, AcceptsNoRowsAndNoExperts) {
  Random random(62);
  Problem nothing({0, 8, 4, 2}, random);
  EXPECT_TRUE(nothing.run(device()).row_indices.empty());
  Problem no_experts({0, 8, 0, 2}, random);
  EXPECT_TRUE(no_experts.run(device()).row_indices.empty());
}

TEST_P(GroupRows, ARowThatNamesAForeignExpertIsRefused) {
  Random random(63);
  Problem problem({40, 16, 4, 2}, random);
  const auto foreign =
      static_cast<std::int32_t>(std::ranges::find(problem.local_index, -1) - problem.local_index.begin());
  for (const std::int32_t expert : {foreign, 16}) {
    std::memcpy(
        reinterpret_cast<std::byte*>(problem.bytes.data()) + 35 * problem.row_bytes + Problem::kHeaderOffset,
        &expert, sizeof(expert));
    // The pair is missing from the counts too; either is worth an error, and a device may meet that one
    // first.
    expect_error(ErrorKind::kInternal,
                 "group_rows: ", [&] { problem.run(*std::make_unique<Device>(make_device())); });
  }
}

TEST_P(GroupRows, CountsThatWereAnnouncedOtherwiseAreRefused) {
  Random random(64);
  Problem problem({40, 16, 4, 2}, random);
  const std::int64_t pairs = problem.num_announced;
  for (const std::int64_t announced : {pairs - 1, pairs + 1}) {
    problem.num_announced = announced;
    expect_error(ErrorKind::kInternal,
                 "the rows hold " + std::to_string(pairs) + " pairs, the counts announced " +
                     std::to_string(announced),
                 [&] { problem.run(*std::make_unique<Device>(make_device())); });
  }
}

}  // namespace
}  // namespace aurora::kernel_test
