// E4M3 numbers against their definition, and rows of them with scales against a brute-force search for the
// nearest number.
#include "kernels/float8.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

/// The value of an E4M3 by its definition, in double; NaN for all ones.
double e4m3_by_definition(int bits) {
  const int exponent = (bits >> 3) & 0xf;
  const int mantissa = bits & 7;
  const double sign = (bits & 0x80) != 0 ? -1 : 1;
  if (exponent == 15 && mantissa == 7) return std::nan("");
  if (exponent == 0) return sign * std::ldexp(mantissa, -9);
  return sign * std::ldexp(8 + mantissa, exponent - 10);
}

/// Of all finite numbers the nearest; of two the even one. `value` is finite.
std::uint8_t nearest_e4m3(double value) {
  int best = 0;
  for (int bits = 0; bits < 0x7f; ++bits) {
    const double error = std::abs(std::abs(value) - e4m3_by_definition(bits));
    const double least = std::abs(std::abs(value) - e4m3_by_definition(best));
    if (error < least || (error == least && bits % 2 == 0)) best = bits;
  }
  return static_cast<std::uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

TEST(E4M3, EveryNumberConvertsExactlyAndBack) {
  for (int bits = 0; bits < 256; ++bits) {
    const double expected = e4m3_by_definition(bits);
    const float value = e4m3_to_float(static_cast<std::uint8_t>(bits));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value)) << bits;
    } else {
      EXPECT_EQ(static_cast<double>(value), expected) << bits;
    }
    EXPECT_EQ(std::signbit(value), bits >= 0x80) << bits;
    EXPECT_EQ(float_to_e4m3(value), bits);
  }
}

// The table of the paper (arXiv 2209.05433, table 1).
TEST(E4M3, HasTheExtremesOfThePaper) {
  EXPECT_EQ(e4m3_to_float(0x7e), 448.0F);
  EXPECT_EQ(e4m3_to_float(0x08), 0x1p-6F);  // smallest normal number
  EXPECT_EQ(e4m3_to_float(0x07), 0.875F * 0x1p-6F);
  EXPECT_EQ(e4m3_to_float(0x01), 0x1p-9F);
}

TEST(E4M3, FloatsRoundToTheNearestAndTiesToTheEvenOne) {
  Random random(61);
  std::vector<float> values;
  for (int i = 0; i < 4000; ++i) values.push_back(random.normal() * std::ldexp(1.0F, random.below(22) - 12));
  for (int bits = 0; bits < 0x7e; ++bits) {  // every tie, and its neighbours
    const auto tie = static_cast<float>((e4m3_by_definition(bits) + e4m3_by_definition(bits + 1)) / 2);
    for (const float value : {std::nextafter(tie, 0.0F), tie, std::nextafter(tie, 1000.0F)}) {
      values.push_back(value);
      values.push_back(-value);
    }
  }
  for (const float value : values) EXPECT_EQ(float_to_e4m3(value), nearest_e4m3(value)) << value;
}

TEST(E4M3, WhatIsTooLargeIsTheLargestAndWhatIsNotFiniteIsNan) {
  EXPECT_EQ(float_to_e4m3(1e30F), 0x7e);
  EXPECT_EQ(float_to_e4m3(-480.0F), 0xfe);
  EXPECT_EQ(float_to_e4m3(std::numeric_limits<float>::infinity()), 0x7f);
  EXPECT_EQ(float_to_e4m3(-std::numeric_limits<float>::infinity()), 0xff);
  EXPECT_EQ(float_to_e4m3(std::numeric_limits<float>::quiet_NaN()), 0x7f);
}

/// A row by its definition: numbers and scales, and what they stand for.
struct ExpectedRow {
  std::vector<std::uint8_t> numbers;
  std::vector<float> scales;
  std::vector<float> values;

  explicit ExpectedRow(std::span<const float> row) {
    for (std::size_t begin = 0; begin < row.size(); begin += 128) {
      const std::span<const float> group = row.subspan(begin, std::min<std::size_t>(128, row.size() - begin));
      float largest = 0;
      for (const float value : group) {
        if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
      }
      const float scale = std::max(largest / 448.0F, std::numeric_limits<float>::min());
      scales.push_back(scale);
      for (const float value : group) {
        const auto nan = static_cast<std::uint8_t>(std::signbit(value) ? 0xff : 0x7f);
        numbers.push_back(std::isfinite(value) ? nearest_e4m3(value / scale) : nan);
        values.push_back(static_cast<float>(e4m3_by_definition(numbers.back())) * scale);
      }
    }
  }
};

bool equal_or_both_nan(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

/// Rows through pack_rows and back.
class Float8Rows : public OnEveryBackend {
 protected:
  struct Packed {
    std::size_t row_bytes = 0;
    std::vector<std::byte> bytes;
  };

  Packed pack(const Tensor& input, std::vector<std::int32_t>& indices) {
    const std::int64_t width = input.dim(1);
    const auto num_rows = static_cast<std::int64_t>(indices.size());
    Packed packed{.row_bytes = wire_bytes(width, DType::kFloat8E4M3) + 8, .bytes = {}};
    packed.bytes.assign(packed.row_bytes * indices.size(), std::byte{0xee});
    PackRowsArgs args;
    args.input = input;
    args.indices = view(indices, {num_rows});
    args.row_bytes = packed.row_bytes;
    args.wire_dtype = DType::kFloat8E4M3;
    args.output = packed.bytes.data();
    device().run(&Ops::pack_rows, args);
    return packed;
  }

  void expect_row(const Packed& packed, std::size_t row, const ExpectedRow& expected) {
    const std::byte* bytes = packed.bytes.data() + row * packed.row_bytes;
    const std::size_t width = expected.numbers.size();
    for (std::size_t i = 0; i < width; ++i) {
      ASSERT_EQ(static_cast<int>(bytes[i]), static_cast<int>(expected.numbers[i])) << "column " << i;
    }
    const std::size_t scales = (width + 3) / 4 * 4;
    EXPECT_EQ(std::memcmp(bytes + scales, expected.scales.data(), expected.scales.size() * sizeof(float)), 0);
    for (std::size_t at = scales + expected.scales.size() * sizeof(float); at < packed.row_bytes; ++at) {
      EXPECT_EQ(bytes[at], std::byte{0xee}) << "behind the row";
    }
  }

  template <class Element>
  std::vector<Element> unpack(Packed& packed, std::int64_t num_rows, std::int64_t width) {
    std::vector<Element> output(static_cast<std::size_t>(num_rows * width));
    device().run(&Ops::dequantize_rows,
                 DequantizeRowsArgs{packed.bytes.data(), packed.row_bytes, view(output, {num_rows, width})});
    return output;
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, Float8Rows, testing::ValuesIn(every_way()), variant_name);

TEST_P(Float8Rows, TakeTheNearestNumbersUnderTheScaleOfEachGroupAndComeBack) {
  Random random(62);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t width : {1, 3, 16, 127, 128, 129, 300, 392, 512, 648, 4096}) {
      std::vector<float> input = random.normals(4 * width);
      // Columns of very different size, so that scales differ and subnormal numbers occur.
      for (float& value : input) value *= std::ldexp(1.0F, random.below(24) - 12);
      std::vector<std::int32_t> indices{3, 0, 2};
      Packed packed = pack(view(input, {4, width}), indices);
      const std::vector<float> output = unpack<float>(packed, 3, width);
      const std::vector<std::uint16_t> narrow = unpack<std::uint16_t>(packed, 3, width);
      for (std::size_t row = 0; row < indices.size(); ++row) {
        const auto columns = static_cast<std::size_t>(width);
        const std::span source(input.data() + static_cast<std::size_t>(indices[row]) * columns, columns);
        const ExpectedRow expected(source);
        expect_row(packed, row, expected);
        for (std::size_t i = 0; i < columns; ++i) {
          const float found = output[row * columns + i];
          EXPECT_EQ(found, expected.values[i]);
          EXPECT_EQ(narrow[row * columns + i], float_to_bfloat16(found));
          // Half a unit in the last place of a number with three digits of mantissa, or of a subnormal one;
          // division and product round once each.
          const double scale = expected.scales[i / 128];
          const double tolerance =
              std::max(std::abs(source[i]) * 0x1p-4, 0x1p-10 * scale) * (1 + 4 * kUnitRoundoff);
          EXPECT_LE(std::abs(static_cast<double>(found) - source[i]), tolerance);
        }
      }
    }
  });
}

TEST_P(Float8Rows, ReadBFloat16) {
  Random random(63);
  const std::int64_t width = 200;
  std::vector<std::uint16_t> input = to_bfloat16(random.normals(2 * width));
  const std::vector<float> wide = from_bfloat16(input);
  std::vector<std::int32_t> indices{1, 0};
  const Packed packed = pack(view(input, {2, width}), indices);
  expect_row(packed, 0, ExpectedRow(std::span(wide).subspan(200)));
  expect_row(packed, 1, ExpectedRow(std::span(wide).first(200)));
}

TEST_P(Float8Rows, ZerosStayZerosAndWhatIsNotFiniteLeavesItsGroupAlone) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  Random random(64);
  for_each_isa(device(), [&](cpu::Isa) {
    const std::int64_t width = 3 * 128 + 5;
    std::vector<float> input = random.normals(width);
    std::fill(input.begin(), input.begin() + 128, 0.0F);
    input[5] = -0.0F;
    input[130] = kInfinity;
    input[131] = -kInfinity;
    input[132] = kNan;
    std::fill(input.begin() + 256, input.begin() + 384, 1e-44F);  // below the smallest scale
    input[257] = std::numeric_limits<float>::max();
    std::fill(input.begin() + 384, input.end(), kNan);
    std::vector<std::int32_t> indices{0};
    Packed packed = pack(view(input, {1, width}), indices);
    const ExpectedRow expected(input);
    expect_row(packed, 0, expected);
    const std::vector<float> output = unpack<float>(packed, 1, width);
    for (std::size_t i = 0; i < output.size(); ++i) {
      EXPECT_TRUE(equal_or_both_nan(output[i], expected.values[i])) << "column " << i;
      EXPECT_EQ(std::isnan(output[i]), !std::isfinite(input[i])) << "column " << i;
    }
  });
}

TEST_P(Float8Rows, RowsThatDoNotHoldTheirScalesAreRefused) {
  std::vector<std::byte> rows(64);
  std::vector<float> output(20);
  DequantizeRowsArgs args{rows.data(), 20, view(output, {1, 20})};
  const auto refuse = [&](const std::string& part) {
    expect_error(ErrorKind::kInternal, part, [&] { device().run(&Ops::dequantize_rows, args); });
  };
  refuse("row_bytes is too small");
  args.row_bytes = 26;
  refuse("not aligned to 4 bytes");
}

}  // namespace
}  // namespace aurora::kernel_test
