#include <numeric>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

// Weights of several experts, and the exact network with a bound on the error of evaluating it in float32.
struct Experts {
  std::int64_t hidden, inner;
  std::vector<std::vector<float>> gate, up, down;

  Experts(Random& random, std::int64_t count, std::int64_t hidden_width, std::int64_t inner_width)
      : hidden(hidden_width), inner(inner_width) {
    for (std::int64_t e = 0; e < count; ++e) {
      gate.push_back(random.normals(inner * hidden));
      up.push_back(random.normals(inner * hidden));
      down.push_back(random.normals(hidden * inner));
    }
  }

  std::vector<ExpertWeights> weights() {
    std::vector<ExpertWeights> views;
    for (std::size_t e = 0; e < gate.size(); ++e) {
      views.push_back(
          {view(gate[e], {inner, hidden}), view(up[e], {inner, hidden}), view(down[e], {hidden, inner})});
    }
    return views;
  }

  struct Product {
    double value = 0, magnitude = 0;
  };
  static Product dot(const float* a, const float* b, std::int64_t count) {
    Product product;
    for (std::int64_t i = 0; i < count; ++i) {
      const double term = static_cast<double>(a[i]) * static_cast<double>(b[i]);
      product.value += term;
      product.magnitude += std::fabs(term);
    }
    return product;
  }

  void check(std::size_t e, const float* x, const float* y) const {
    std::vector<double> activation, activation_error;
    for (std::int64_t i = 0; i < inner; ++i) {
      const Product g = dot(gate[e].data() + i * hidden, x, hidden);
      const Product u = dot(up[e].data() + i * hidden, x, hidden);
      const double g_error = gamma(hidden) * g.magnitude;
      const double u_error = gamma(hidden) * u.magnitude;
      const double silu = g.value / (1 + std::exp(-g.value));
      // |silu'| <= 1.1; silu itself rounds as in elementwise_test.cc.
      activation.push_back(silu * u.value);
      activation_error.push_back(1.1 * g_error * (std::fabs(u.value) + u_error) + std::fabs(silu) * u_error +
                                 10 * kUnitRoundoff * std::fabs(silu * u.value) + 100 * 0x1p-126);
    }
    for (std::int64_t column = 0; column < hidden; ++column) {
      const float* row = down[e].data() + column * inner;
      double exact = 0, error = 0;
      for (std::int64_t i = 0; i < inner; ++i) {
        const auto at = static_cast<std::size_t>(i);
        exact += static_cast<double>(row[i]) * activation[at];
        error += std::fabs(static_cast<double>(row[i])) *
                 (activation_error[at] + gamma(inner) * (std::fabs(activation[at]) + activation_error[at]));
      }
      ASSERT_LE(std::fabs(static_cast<double>(y[column]) - exact), error)
          << "expert " << e << " column " << column;
    }
  }
};

struct Case {
  std::vector<std::int32_t> rows_per_expert;
  std::int64_t hidden, inner;
  bool bfloat16_input = false;
  std::int64_t extra_columns = 0;  // of the input's rows, behind `hidden`
};

void check_case(Device& device, Random& random, const Case& c) {
  Experts experts(random, static_cast<std::int64_t>(c.rows_per_expert.size()), c.hidden, c.inner);
  std::vector<std::int32_t> offsets{0};
  for (const std::int32_t rows : c.rows_per_expert) offsets.push_back(offsets.back() + rows);
  const std::int64_t num_rows = offsets.back(), num_input_rows = 11, stride = c.hidden + c.extra_columns;
  std::vector<float> input = random.normals(num_input_rows * stride);
  std::vector<std::uint16_t> narrow = to_bfloat16(input);
  if (c.bfloat16_input) input = from_bfloat16(narrow);
  std::vector<std::int32_t> indices = random.indices(num_rows, num_input_rows);
  std::vector<float> output(static_cast<std::size_t>(num_rows * c.hidden));
  std::vector<float> scratch(device.ops().expert_ffn_scratch_bytes(num_rows, c.hidden, c.inner) /
                             sizeof(float));
  const ExpertBank bank(experts.weights());
  device.submit(&Ops::expert_ffn,
                ExpertFfnArgs{.input = c.bfloat16_input ? view(narrow, {num_input_rows, stride})
                                                        : view(input, {num_input_rows, stride}),
                              .row_indices = view(indices, {num_rows}),
                              .expert_offsets = view(offsets, {bank.size() + 1}),
                              .experts = &bank,
                              .scratch = view(scratch, {static_cast<std::int64_t>(scratch.size())}),
                              .output = view(output, {num_rows, c.hidden})});
  device.finish();
  for (std::size_t e = 0; e < c.rows_per_expert.size(); ++e) {
    for (std::int32_t p = offsets[e]; p < offsets[e + 1]; ++p) {
      experts.check(e, input.data() + indices[static_cast<std::size_t>(p)] * stride,
                    output.data() + p * c.hidden);
    }
  }
}

class ExpertFfn : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, ExpertFfn, testing::ValuesIn(every_way()), variant_name);

TEST_P(ExpertFfn, EqualsTheNetworkForAwkwardGroups) {
  Random random(81);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const auto& [hidden, inner] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {17, 33}, {32, 16}}) {
      check_case(device(), random, {{1}, hidden, inner});
      check_case(device(), random, {{0, 3, 0, 1, 0}, hidden, inner});
      check_case(device(), random, {{0, 0, 70}, hidden, inner});
      check_case(device(), random, {{5, 4, 9, 40}, hidden, inner});
    }
  });
}

TEST_P(ExpertFfn, ReadsTheWiresBFloat16AndSkipsWhatFollowsThePayload) {
  Random random(82);
  for_each_isa(device(), [&](cpu::Isa) {
    check_case(device(), random, {{2, 0, 37}, 24, 20, true, 0});
    check_case(device(), random, {{2, 0, 37}, 24, 20, true, 6});
    check_case(device(), random, {{2, 0, 37}, 24, 20, false, 5});
  });
}

TEST_P(ExpertFfn, WithoutRowsTouchesNothing) {
  Random random(83);
  Experts experts(random, 2, 8, 4);
  std::vector<std::int32_t> offsets{0, 0, 0};
  const ExpertBank bank(experts.weights());
  device().run(&Ops::expert_ffn, ExpertFfnArgs{.input = Tensor(nullptr, DType::kFloat32, {0, 8}),
                                               .row_indices = Tensor(nullptr, DType::kInt32, {0}),
                                               .expert_offsets = view(offsets, {3}),
                                               .experts = &bank,
                                               .scratch = {},
                                               .output = Tensor(nullptr, DType::kFloat32, {0, 8})});
}

TEST_P(ExpertFfn, BadGroupsScratchAndIndicesAreRefused) {
  Random random(84);
  Experts experts(random, 2, 8, 4);
  const ExpertBank bank(experts.weights());
  std::vector<float> input(24), output(24), scratch(3 * 16);
  std::vector<std::int32_t> indices{0, 1, 3};
  std::vector<std::int32_t> offsets{0, 1, 3};
  ExpertFfnArgs args{.input = view(input, {3, 8}),
                     .row_indices = view(indices, {3}),
                     .expert_offsets = view(offsets, {3}),
                     .experts = &bank,
                     .scratch = view(scratch, {48}),
                     .output = view(output, {3, 8})};
  // A worker stream would stay broken, so each error has a stream of its own.
  const auto expect = [&](const std::string& text) {
    Device own = make_device();
    expect_error(ErrorKind::kInternal, text, [&] { own.run(&Ops::expert_ffn, args); });
  };
  expect("is 3, must be in [0, 3)");
  indices[2] = 2;
  offsets = {0, 1, 4};
  expect("expert 1 has rows 1 to 4 of 3");
  offsets = {0, 2, 1};
  expect("expert 1 has rows 2 to 1 of 3");
  args.scratch = view(scratch, {2});
  expect("scratch is smaller");
  args.expert_offsets = view(offsets, {2});
  expect("expert_offsets");
}

TEST_P(ExpertFfn, LeavesRowsBehindTheLastGroupAlone) {
  Random random(85);
  Experts experts(random, 2, 8, 4);
  const ExpertBank bank(experts.weights());
  std::vector<float> input = random.normals(24), output(40, 7.0F);
  std::vector<std::int32_t> indices{0, 1, 2, 99, -5}, offsets{0, 1, 3};
  std::vector<float> scratch(device().ops().expert_ffn_scratch_bytes(5, 8, 4) / sizeof(float));
  device().run(&Ops::expert_ffn,
               ExpertFfnArgs{.input = view(input, {3, 8}),
                             .row_indices = view(indices, {5}),
                             .expert_offsets = view(offsets, {3}),
                             .experts = &bank,
                             .scratch = view(scratch, {static_cast<std::int64_t>(scratch.size())}),
                             .output = view(output, {5, 8})});
  experts.check(0, input.data(), output.data());
  for (const std::int32_t row : {1, 2}) experts.check(1, input.data() + row * 8, output.data() + row * 8);
  for (std::size_t i = 24; i < 40; ++i) EXPECT_EQ(output[i], 7.0F);
}

TEST(ExpertBank, RefusesExpertsOfUnlikeShapes) {
  Random random(86);
  Experts narrow(random, 1, 8, 4), wide(random, 1, 8, 5);
  std::vector<ExpertWeights> weights{narrow.weights().front(), wide.weights().front()};
  expect_error(ErrorKind::kInternal, "expert bank: gate", [&] { const ExpertBank bank(weights); });
}

}  // namespace
}  // namespace aurora::kernel_test
