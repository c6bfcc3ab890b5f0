// rms_norm, clamp, silu_multiply, add, sigmoid_gated_add.
#include <algorithm>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

// exp is within 2 ulp (4 units of roundoff), then come an addition, a division and two products.
constexpr double kSigmoidError = 10 * kUnitRoundoff;
// exp underflows and overflows to 0 and infinity at |x| = 88; what is lost is below 100 times the smallest
// normal.
constexpr double kUnderflow = 100 * 0x1p-126;

double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

class RmsNorm : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, RmsNorm, testing::ValuesIn(every_backend()), variant_name);

TEST_P(RmsNorm, EqualsTheFormulaForAwkwardShapes) {
  Random random(31);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t rows : {1, 2, 9}) {
      for (const std::int64_t width : {1, 3, 15, 16, 17, 32, 129, 2048, 8192, 8200, 8201}) {
        std::vector<float> input = random.normals(rows * width);
        std::vector<float> weight = random.normals(width);
        std::vector<float> output(input.size());
        constexpr float kEpsilon = 1e-6F;
        device().run(&Ops::rms_norm, RmsNormArgs{view(input, {rows, width}), view(weight, {width}), kEpsilon,
                                                 view(output, {rows, width})});
        for (std::int64_t row = 0; row < rows; ++row) {
          const float* x = input.data() + row * width;
          double squares = 0;
          for (std::int64_t i = 0; i < width; ++i)
            squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
          const double factor =
              1 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(kEpsilon));
          for (std::int64_t i = 0; i < width; ++i) {
            const double exact =
                static_cast<double>(x[i]) * factor * static_cast<double>(weight[static_cast<std::size_t>(i)]);
            const auto value = static_cast<double>(output[static_cast<std::size_t>(row * width + i)]);
            ASSERT_LE(std::fabs(value - exact), gamma(width + 8) * std::fabs(exact)) << "width " << width;
          }
        }
      }
    }
  });
}

TEST_P(RmsNorm, RunsInPlaceWithTheSameResult) {
  Random random(32);
  std::vector<float> input = random.normals(5 * 33);
  std::vector<float> weight = random.normals(33);
  std::vector<float> output(input.size());
  device().run(&Ops::rms_norm,
               RmsNormArgs{view(input, {5, 33}), view(weight, {33}), 1e-5F, view(output, {5, 33})});
  device().run(&Ops::rms_norm,
               RmsNormArgs{view(input, {5, 33}), view(weight, {33}), 1e-5F, view(input, {5, 33})});
  EXPECT_EQ(input, output);
}

TEST_P(RmsNorm, ARowHasTheSameBitsAloneAndWhereverItLies) {
  Random random(37);
  for (const std::int64_t width : {24, 256, 2048, 8200}) {
    constexpr std::int64_t kRows = 5;
    std::vector<float> input = random.normals(kRows * width), weight = random.normals(width);
    std::vector<float> together(input.size());
    device().run(&Ops::rms_norm, RmsNormArgs{view(input, {kRows, width}), view(weight, {width}), 1e-5F,
                                             view(together, {kRows, width})});
    for (std::int64_t row = 0; row < kRows; ++row) {
      std::vector<float> shifted(static_cast<std::size_t>(width + row));  // by 0, 4, ... bytes
      std::copy_n(input.begin() + row * width, width, shifted.begin() + row);
      const Tensor alone(shifted.data() + row, DType::kFloat32, {1, width});
      device().run(&Ops::rms_norm, RmsNormArgs{alone, view(weight, {width}), 1e-5F, alone});
      EXPECT_TRUE(std::equal(shifted.begin() + row, shifted.end(), together.begin() + row * width))
          << "row " << row << " of width " << width;
    }
  }
}

TEST_P(RmsNorm, ARowOfZeroesStaysZero) {
  std::vector<float> input(16);
  std::vector<float> weight(16, 1.0F);
  device().run(&Ops::rms_norm,
               RmsNormArgs{view(input, {1, 16}), view(weight, {16}), 1e-6F, view(input, {1, 16})});
  EXPECT_EQ(input, std::vector<float>(16));
}

class Clamp : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Clamp, testing::ValuesIn(every_backend()), variant_name);

TEST_P(Clamp, BoundsBothSidesAndKeepsNaN) {
  Random random(33);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t count : {1, 15, 16, 17, 100}) {
      std::vector<float> values = random.normals(count);
      values.back() = std::nanf("");
      const std::vector<float> before = values;
      device().run(&Ops::clamp, ClampArgs{view(values, {count}), 0.5F});
      for (std::size_t i = 0; i + 1 < values.size(); ++i) {
        EXPECT_EQ(values[i], std::min(std::max(before[i], -0.5F), 0.5F));
      }
      EXPECT_TRUE(std::isnan(values.back()));
    }
  });
}

class SiluMultiply : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, SiluMultiply, testing::ValuesIn(every_backend()), variant_name);

TEST_P(SiluMultiply, EqualsTheFormulaAlsoForLargeInputs) {
  Random random(34);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t count : {1, 15, 16, 17, 333}) {
      std::vector<float> gate = random.normals(count);
      for (std::size_t i = 0; i < gate.size(); i += 3) gate[i] *= 60;
      std::vector<float> up = random.normals(count);
      std::vector<float> output(gate.size());
      device().run(&Ops::silu_multiply,
                   SiluMultiplyArgs{view(gate, {count}), view(up, {count}), view(output, {count})});
      for (std::size_t i = 0; i < gate.size(); ++i) {
        const auto x = static_cast<double>(gate[i]);
        const double exact = x * exact_sigmoid(x) * static_cast<double>(up[i]);
        ASSERT_LE(std::fabs(static_cast<double>(output[i]) - exact),
                  kSigmoidError * std::fabs(exact) + kUnderflow)
            << gate[i] << " " << up[i];
      }
      std::vector<float> in_place = gate;
      device().run(&Ops::silu_multiply,
                   SiluMultiplyArgs{view(in_place, {count}), view(up, {count}), view(in_place, {count})});
      EXPECT_EQ(in_place, output);
    }
  });
}

class Add : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Add, testing::ValuesIn(every_backend()), variant_name);

TEST_P(Add, AddsElementwise) {
  Random random(35);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t count : {1, 15, 16, 17, 100}) {
      std::vector<float> input = random.normals(count);
      std::vector<float> output = random.normals(count);
      std::vector<float> expected = output;
      for (std::size_t i = 0; i < input.size(); ++i) expected[i] += input[i];
      device().run(&Ops::add, AddArgs{view(input, {count}), view(output, {count})});
      EXPECT_EQ(output, expected);
    }
  });
}

class SigmoidGatedAdd : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, SigmoidGatedAdd, testing::ValuesIn(every_backend()), variant_name);

TEST_P(SigmoidGatedAdd, EqualsTheFormula) {
  Random random(36);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t rows : {1, 2, 5}) {
      for (const std::int64_t width : {1, 16, 33}) {
        std::vector<float> input = random.normals(rows * width);
        std::vector<float> gates = random.normals(rows);
        gates[0] *= 40;
        std::vector<float> output = random.normals(rows * width);
        const std::vector<float> before = output;
        device().run(&Ops::sigmoid_gated_add,
                     SigmoidGatedAddArgs{view(input, {rows, width}), view(gates, {rows}),
                                         view(output, {rows, width})});
        for (std::size_t i = 0; i < output.size(); ++i) {
          const double term =
              exact_sigmoid(gates[i / static_cast<std::size_t>(width)]) * static_cast<double>(input[i]);
          const double exact = static_cast<double>(before[i]) + term;
          const double bound = kSigmoidError * (std::fabs(term) + std::fabs(static_cast<double>(before[i])));
          ASSERT_LE(std::fabs(static_cast<double>(output[i]) - exact), bound + kUnderflow);
        }
      }
    }
  });
}

class Elementwise : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Elementwise, testing::ValuesIn(every_backend()), variant_name);

TEST_P(Elementwise, NothingIsTouchedWithoutRows) {
  const Tensor none(nullptr, DType::kFloat32, {0, 16});
  std::vector<float> weight(16);
  device().run(&Ops::rms_norm, RmsNormArgs{none, view(weight, {16}), 1e-5F, none});
  device().run(&Ops::clamp, ClampArgs{none, 1.0F});
  device().run(&Ops::silu_multiply, SiluMultiplyArgs{none, none, none});
  device().run(&Ops::add, AddArgs{none, none});
  device().run(&Ops::sigmoid_gated_add,
               SigmoidGatedAddArgs{none, Tensor(nullptr, DType::kFloat32, {0}), none});
}

TEST_P(Elementwise, TensorsOfDifferentSizeAreRefused) {
  std::vector<float> values(32);
  expect_error(ErrorKind::kInternal, "differ in size", [&] {
    device().run(&Ops::add, AddArgs{view(values, {16}), view(values, {15})});
  });
  expect_error(ErrorKind::kInternal, "expected [8]", [&] {
    device().run(&Ops::rms_norm,
                 RmsNormArgs{view(values, {2, 8}), view(values, {9}), 0.0F, view(values, {2, 8})});
  });
}

}  // namespace
}  // namespace aurora::kernel_test
