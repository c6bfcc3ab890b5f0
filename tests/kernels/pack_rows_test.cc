// pack_rows: payload, header and gaps of every row, byte by byte.
#include <cstring>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

constexpr std::byte kUntouched{0xee};
constexpr std::int64_t kHeaderWidth = 3;

/// Rows of one packing, and what they should look like.
struct Problem {
  std::int64_t width, num_rows;
  DType wire;
  std::size_t payload, header_offset, row_bytes;
  std::vector<float> input;  // [4, width]
  std::vector<std::int32_t> indices, headers;
  std::vector<std::byte> output;

  /// Rows begin at multiples of `row_alignment` bytes.
  Problem(std::int64_t given_width, std::int64_t given_rows, DType given_wire, Random& random,
          std::size_t row_alignment = 4)
      : width(given_width),
        num_rows(given_rows),
        wire(given_wire),
        payload(static_cast<std::size_t>(width) * dtype_bytes(wire)),
        header_offset((payload + 3) / 4 * 4 + 4),
        row_bytes((header_offset + (kHeaderWidth + 1) * sizeof(std::int32_t) + row_alignment - 1) /
                  row_alignment * row_alignment),
        input(random.normals(4 * width)),
        indices(random.indices(num_rows, 4)),
        headers(random.indices(num_rows * kHeaderWidth, 1000)),
        output(row_bytes * static_cast<std::size_t>(num_rows), kUntouched) {}

  PackRowsArgs args() {
    PackRowsArgs args;
    args.input = view(input, {4, width});
    args.indices = view(indices, {num_rows});
    args.headers = view(headers, {num_rows, kHeaderWidth});
    args.header_offset = header_offset;
    args.row_bytes = row_bytes;
    args.wire_dtype = wire;
    args.output = output.data();
    return args;
  }

  std::vector<std::byte> expected_row(std::int64_t row) const {
    std::vector<std::byte> bytes(row_bytes, kUntouched);
    for (std::int64_t i = 0; i < width; ++i) {
      const float value = input[static_cast<std::size_t>(indices[static_cast<std::size_t>(row)] * width + i)];
      const std::uint16_t narrow = float_to_bfloat16(value);
      std::byte* place = bytes.data() + static_cast<std::size_t>(i) * dtype_bytes(wire);
      std::memcpy(place, wire == DType::kFloat32 ? static_cast<const void*>(&value) : &narrow,
                  dtype_bytes(wire));
    }
    std::memcpy(bytes.data() + header_offset, headers.data() + row * kHeaderWidth,
                kHeaderWidth * sizeof(std::int32_t));
    return bytes;
  }

  std::vector<std::byte> found_row(std::int64_t row) const {
    const auto begin = output.begin() + row * static_cast<std::ptrdiff_t>(row_bytes);
    return {begin, begin + static_cast<std::ptrdiff_t>(row_bytes)};
  }
};

class PackRows : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, PackRows, testing::ValuesIn(every_way()), variant_name);

TEST_P(PackRows, LaysOutPayloadAndHeaderAndLeavesTheRestAlone) {
  Random random(43);
  for (const DType wire : {DType::kFloat32, DType::kBFloat16}) {
    for (const std::int64_t width : {1, 5, 16, 20, 256}) {
      Problem problem(width, 7, wire, random);
      device().run(&Ops::pack_rows, problem.args());
      for (std::int64_t row = 0; row < problem.num_rows; ++row)
        EXPECT_EQ(problem.found_row(row), problem.expected_row(row)) << "row " << row;
    }
  }
}

// A GPU moves aligned rows 16 bytes at a time, and cuts few rows over more blocks than many.
TEST_P(PackRows, LaysOutAlignedRowsFewAndMany) {
  Random random(47);
  for (const DType wire : {DType::kFloat32, DType::kBFloat16}) {
    for (const std::int64_t width : {4, 8, 20, 256, 2056, 4100}) {
      for (const std::int64_t num_rows : {1, 2, 3, 600}) {
        Problem problem(width, num_rows, wire, random, 16);
        device().run(&Ops::pack_rows, problem.args());
        for (std::int64_t row = 0; row < num_rows; ++row)
          ASSERT_TRUE(problem.found_row(row) == problem.expected_row(row))
              << "row " << row << " of " << width;
      }
    }
  }
}

TEST_P(PackRows, PacksAsManyRowsAsThereAreAndLeavesOneRanksOut) {
  Random random(44);
  const std::vector<std::int32_t> offsets{0, 3, 3, 7, 9};  // of at most 12 rows
  for (std::int32_t left_out = 0; left_out < 4; ++left_out) {
    Problem problem(20, 12, DType::kBFloat16, random);
    for (std::int64_t row = 9; row < 12; ++row) problem.indices[static_cast<std::size_t>(row)] = 1000000;
    std::vector<std::int32_t> row_offsets = offsets;
    PackRowsArgs args = problem.args();
    args.row_offsets = view(row_offsets, {5});
    args.left_out_rank = left_out;
    device().run(&Ops::pack_rows, args);
    const std::vector<std::byte> untouched(problem.row_bytes, kUntouched);
    for (std::int32_t row = 0; row < 12; ++row) {
      const bool is_left_out = row >= offsets[static_cast<std::size_t>(left_out)] &&
                               row < offsets[static_cast<std::size_t>(left_out) + 1];
      const bool is_packed = row < 9 && !is_left_out;
      EXPECT_EQ(problem.found_row(row), is_packed ? problem.expected_row(row) : untouched)
          << "row " << row << ", rank left out " << left_out;
    }
  }
}

TEST_P(PackRows, AnIndexOutOfRangeIsNamed) {
  Random random(45);
  Problem problem(8, 3, DType::kFloat32, random);
  problem.indices[1] = 4;
  expect_error(ErrorKind::kInternal, "pack_rows: indices[1] is 4, must be in [0, 4)",
               [&] { device().run(&Ops::pack_rows, problem.args()); });
}

TEST_P(PackRows, AHeaderThatDoesNotFitIsRefused) {
  Random random(46);
  Problem problem(4, 2, DType::kFloat32, random);
  PackRowsArgs args = problem.args();
  const auto refuse = [&](const std::string& part) {
    expect_error(ErrorKind::kInternal, part, [&] { device().run(&Ops::pack_rows, args); });
  };
  args.row_bytes = 16;
  args.header_offset = 16;
  refuse("row_bytes is too small");
  args.row_bytes = 32;
  args.header_offset = 12;
  refuse("overlaps the payload");
  args.header_offset = 18;
  refuse("not aligned to 4 bytes");
}

}  // namespace
}  // namespace aurora::kernel_test
