#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

struct Problem {
  std::int64_t num_rows, in_width, out_width;
  bool has_bias = false;
  bool accumulate = false;
};

// Runs `linear` and compares every element with the sum in double.
void check_linear(Device& device, Random& random, const Problem& problem) {
  const auto [m, k, n, has_bias, accumulate] = problem;
  SCOPED_TRACE("rows " + std::to_string(m) + " in " + std::to_string(k) + " out " + std::to_string(n));
  std::vector<float> input = random.normals(m * k);
  std::vector<float> weight = random.normals(n * k);
  std::vector<float> bias = random.normals(n);
  std::vector<float> output = random.normals(m * n);
  const std::vector<float> before = output;
  device.run(&Ops::linear, LinearArgs{.input = view(input, {m, k}),
                                      .weight = view(weight, {n, k}),
                                      .bias = has_bias ? view(bias, {n}) : Tensor(),
                                      .output = view(output, {m, n}),
                                      .accumulate = accumulate});
  for (std::int64_t row = 0; row < m; ++row) {
    for (std::int64_t column = 0; column < n; ++column) {
      const auto at = static_cast<std::size_t>(row * n + column);
      double sum = has_bias ? bias[static_cast<std::size_t>(column)] : 0.0;
      double magnitude = std::fabs(sum);
      if (accumulate) {
        sum += static_cast<double>(before[at]);
        magnitude += std::fabs(static_cast<double>(before[at]));
      }
      for (std::int64_t i = 0; i < k; ++i) {
        const double product = static_cast<double>(input[static_cast<std::size_t>(row * k + i)]) *
                               static_cast<double>(weight[static_cast<std::size_t>(column * k + i)]);
        sum += product;
        magnitude += std::fabs(product);
      }
      ASSERT_LE(std::fabs(static_cast<double>(output[at]) - sum), gamma(k + 2) * magnitude)
          << "row " << row << " column " << column;
    }
  }
}

class Linear : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Linear, testing::ValuesIn(every_gemm()), variant_name);

TEST_P(Linear, EqualsTheNaiveSumForAwkwardShapes) {
  Random random(21);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t m : {1, 2, 3, 4, 5, 7, 8, 9, 17, 33, 64}) {
      for (const std::int64_t k : {1, 15, 16, 17, 33, 130}) {
        for (const std::int64_t n : {1, 2, 3, 4, 5, 16, 31}) check_linear(device(), random, {m, k, n});
      }
    }
  });
}

TEST_P(Linear, AddsTheBiasAndTheFormerOutput) {
  Random random(22);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t m : {1, 6, 40}) {
      for (const std::int64_t n : {1, 7, 32}) {
        check_linear(device(), random, {m, 24, n, true, false});
        check_linear(device(), random, {m, 24, n, false, true});
        check_linear(device(), random, {m, 24, n, true, true});
      }
    }
  });
}

TEST_P(Linear, HandlesMatricesBeyondOneCacheBlock) {
  Random random(23);
  check_linear(device(), random, {300, 700, 20});
  check_linear(device(), random, {3, 40000, 5});
}

TEST_P(Linear, WithoutRowsTouchesNothing) {
  std::vector<float> weight(32);
  device().run(&Ops::linear, LinearArgs{.input = Tensor(nullptr, DType::kFloat32, {0, 8}),
                                        .weight = view(weight, {4, 8}),
                                        .bias = {},
                                        .output = Tensor(nullptr, DType::kFloat32, {0, 4})});
}

TEST_P(Linear, WithoutInputsGivesTheBias) {
  std::vector<float> bias{1, 2, 3};
  std::vector<float> output(6, 9.0F);
  device().run(&Ops::linear, LinearArgs{.input = Tensor(nullptr, DType::kFloat32, {2, 0}),
                                        .weight = Tensor(nullptr, DType::kFloat32, {3, 0}),
                                        .bias = view(bias, {3}),
                                        .output = view(output, {2, 3})});
  EXPECT_EQ(output, (std::vector<float>{1, 2, 3, 1, 2, 3}));
}

TEST_P(Linear, AMisshapenTensorIsNamedWithBothShapes) {
  std::vector<float> values(64);
  expect_error(ErrorKind::kInternal, "linear: weight is [4, 8], expected [4, 7]", [&] {
    device().run(&Ops::linear, LinearArgs{.input = view(values, {2, 7}),
                                          .weight = view(values, {4, 8}),
                                          .bias = {},
                                          .output = view(values, {2, 4})});
  });
}

}  // namespace
}  // namespace aurora::kernel_test
