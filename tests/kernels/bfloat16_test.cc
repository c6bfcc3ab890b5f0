// Bfloat16 weights and activations, which GPUs compute with: each operation against the CPU's in float32 on
// the same numbers. A bfloat16 result is rounded once, so it may differ by half a unit in its last place and
// by what two float32 evaluations may differ.
#include <algorithm>
#include <array>
#include <numeric>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

constexpr double kBfloat16Roundoff = 0x1p-8;  // eight significant bits, rounded to nearest

using Narrow = std::vector<std::uint16_t>;

/// Random numbers that bfloat16 holds exactly, in both types.
struct Exact {
  Narrow narrow;
  std::vector<float> wide;

  Exact(Random& random, std::int64_t count)
      : narrow(to_bfloat16(random.normals(count))), wide(from_bfloat16(narrow)) {}
};

/// What rounding to bfloat16 and `relative` errors of two float32 evaluations of sums of `magnitude` allow.
double bound(double value, double magnitude, double relative) {
  return kBfloat16Roundoff * (std::fabs(value) + relative * magnitude) + 2 * relative * magnitude + 0x1p-126;
}

/// The tests need a backend that computes in bfloat16; every build has the CPU, which does not.
class Bfloat16 : public OnEveryBackend {
 protected:
  void SetUp() override {
    OnEveryBackend::SetUp();
    if (IsSkipped()) return;
    if (!device().backend().computes(DType::kBFloat16))
      GTEST_SKIP() << "this backend computes in float32 only";
  }
  Device cpu_;
};
INSTANTIATE_TEST_SUITE_P(Backends, Bfloat16, testing::ValuesIn(every_gemm()), variant_name);

struct Shape {
  std::int64_t rows, width;
};
const Shape kShapes[] = {{0, 8}, {1, 1}, {1, 64}, {2, 7}, {5, 129}, {33, 256}, {3, 2048}};

TEST_P(Bfloat16, RmsNormReadsBothTypesAndRoundsOnce) {
  Random random(121);
  for (const auto& [rows, width] : kShapes) {
    Exact x(random, rows * width), weight(random, width);
    std::vector<float> expected(x.wide.size());
    cpu_.run(&Ops::rms_norm, RmsNormArgs{view(x.wide, {rows, width}), view(weight.wide, {width}), 1e-6F,
                                         view(expected, {rows, width})});
    for (const bool is_wide : {false, true}) {
      Narrow output(x.narrow.size());
      const Tensor input = is_wide ? view(x.wide, {rows, width}) : view(x.narrow, {rows, width});
      device().run(&Ops::rms_norm,
                   RmsNormArgs{input, view(weight.narrow, {width}), 1e-6F, view(output, {rows, width})});
      for (std::size_t i = 0; i < output.size(); ++i) {
        const auto value = static_cast<double>(expected[i]);
        ASSERT_LE(std::fabs(static_cast<double>(bfloat16_to_float(output[i])) - value),
                  bound(value, std::fabs(value), gamma(width + 8)));
      }
    }
  }
}

// One product with all combinations of output type, bias and accumulation.
void check_linear(Device& device, Random& random, std::int64_t m, std::int64_t k, std::int64_t n) {
  Exact x(random, m * k), weight(random, n * k), bias(random, n), before(random, m * n);
  for (const bool has_bias : {false, true}) {
    for (const bool accumulate : {false, true}) {
      std::vector<float> wide = before.wide;
      Narrow narrow = before.narrow;
      for (const Tensor& output : {view(wide, {m, n}), view(narrow, {m, n})}) {
        device.run(&Ops::linear, LinearArgs{.input = view(x.narrow, {m, k}),
                                            .weight = view(weight.narrow, {n, k}),
                                            .bias = has_bias ? view(bias.narrow, {n}) : Tensor(),
                                            .output = output,
                                            .accumulate = accumulate});
      }
      for (std::int64_t at = 0; at < m * n; ++at) {
        const auto i = static_cast<std::size_t>(at);
        double sum = (has_bias ? static_cast<double>(bias.wide[i % static_cast<std::size_t>(n)]) : 0.0) +
                     (accumulate ? static_cast<double>(before.wide[i]) : 0.0);
        const double start = sum;
        double magnitude = (has_bias ? 1.0 : 0.0) *
                               std::fabs(static_cast<double>(bias.wide[i % static_cast<std::size_t>(n)])) +
                           std::fabs(static_cast<double>(before.wide[i]));
        for (std::int64_t j = 0; j < k; ++j) {
          const double product = static_cast<double>(x.wide[static_cast<std::size_t>(at / n * k + j)]) *
                                 static_cast<double>(weight.wide[static_cast<std::size_t>(at % n * k + j)]);
          sum += product;
          magnitude += std::fabs(product);
        }
        ASSERT_LE(std::fabs(static_cast<double>(wide[i]) - sum), gamma(k + 2) * magnitude) << m << " " << k;
        // The bias is rounded into the output before the product is added to it, and cuBLAS may round the
        // product before it adds it.
        const double rounded_early = start == 0 ? 0 : std::fabs(start) + std::fabs(sum - start);
        ASSERT_LE(std::fabs(static_cast<double>(bfloat16_to_float(narrow[i])) - sum),
                  bound(sum, magnitude, gamma(k + 2)) + kBfloat16Roundoff * rounded_early)
            << m << " " << k << " " << n;
      }
    }
  }
}

TEST_P(Bfloat16, LinearEqualsTheNaiveSum) {
  Random random(122);
  for (const std::int64_t m : {0, 1, 3, 64, 65}) {
    for (const std::int64_t k : {1, 16, 33, 200}) {
      for (const std::int64_t n : {1, 8, 67}) check_linear(device(), random, m, k, n);
    }
  }
}

TEST_P(Bfloat16, RopeRotatesAndRoundsOnce) {
  Random random(123);
  const std::int64_t tokens = 5, heads = 3, kv_heads = 2, positions = 9;
  for (const std::int64_t half : {20, 64}) {  // 64: 16 bytes at a time
    Exact query(random, tokens * heads * 2 * half), key(random, tokens * kv_heads * 2 * half);
    std::vector<float> cosine = random.normals(positions * half), sine = random.normals(positions * half);
    std::vector<std::int32_t> at = random.indices(tokens, positions);
    double largest = 0;
    for (const std::vector<float>& values : {query.wide, key.wide, cosine, sine}) {
      for (const float value : values) largest = std::max(largest, std::fabs(static_cast<double>(value)));
    }
    const auto args = [&](auto& rotated_query, auto& rotated_key) {
      return RopeArgs{view(rotated_query, {tokens, heads, 2 * half}),
                      view(rotated_key, {tokens, kv_heads, 2 * half}), view(at, {tokens}),
                      view(cosine, {positions, half}), view(sine, {positions, half})};
    };
    cpu_.run(&Ops::rope, args(query.wide, key.wide));
    device().run(&Ops::rope, args(query.narrow, key.narrow));
    for (const Exact* rotated : {&query, &key}) {
      for (std::size_t i = 0; i < rotated->wide.size(); ++i) {
        const auto value = static_cast<double>(rotated->wide[i]);
        ASSERT_LE(std::fabs(static_cast<double>(bfloat16_to_float(rotated->narrow[i])) - value),
                  bound(value, 2 * largest * largest, gamma(2)));
      }
    }
  }
}

TEST_P(Bfloat16, ElementwiseOperationsRoundOnce) {
  Random random(124);
  for (const auto& [rows, width] : kShapes) {
    const std::int64_t count = rows * width;
    Exact a(random, count), b(random, count), gates(random, rows);
    std::vector<float> sum = b.wide, gated = b.wide, activated(a.wide.size()), clamped = a.wide;
    Narrow narrow_sum = b.narrow, narrow_gated = b.narrow, narrow_activated(a.narrow.size()),
           narrow_clamped = a.narrow;
    cpu_.run(&Ops::add, AddArgs{view(a.wide, {count}), view(sum, {count})});
    device().run(&Ops::add, AddArgs{view(a.narrow, {count}), view(narrow_sum, {count})});
    cpu_.run(&Ops::silu_multiply,
             SiluMultiplyArgs{view(a.wide, {count}), view(b.wide, {count}), view(activated, {count})});
    device().run(&Ops::silu_multiply, SiluMultiplyArgs{view(a.narrow, {count}), view(b.narrow, {count}),
                                                       view(narrow_activated, {count})});
    cpu_.run(&Ops::sigmoid_gated_add,
             SigmoidGatedAddArgs{view(a.wide, {rows, width}), view(gates.wide, {rows}),
                                 view(gated, {rows, width})});
    device().run(&Ops::sigmoid_gated_add,
                 SigmoidGatedAddArgs{view(a.narrow, {rows, width}), view(gates.narrow, {rows}),
                                     view(narrow_gated, {rows, width})});
    cpu_.run(&Ops::clamp, ClampArgs{view(clamped, {count}), 0.5F});
    device().run(&Ops::clamp, ClampArgs{view(narrow_clamped, {count}), 0.5F});
    EXPECT_EQ(narrow_clamped, to_bfloat16(clamped));
    EXPECT_EQ(narrow_sum, to_bfloat16(sum));
    for (std::size_t i = 0; i < sum.size(); ++i) {
      const double terms =
          std::fabs(static_cast<double>(a.wide[i])) + std::fabs(static_cast<double>(b.wide[i]));
      const auto near = [&](std::uint16_t narrow, float wide) {
        return std::fabs(static_cast<double>(bfloat16_to_float(narrow)) - static_cast<double>(wide)) <=
               bound(static_cast<double>(wide), terms, 12 * kUnitRoundoff);
      };
      ASSERT_TRUE(near(narrow_gated[i], gated[i])) << i;
      ASSERT_LE(std::fabs(static_cast<double>(bfloat16_to_float(narrow_activated[i])) -
                          static_cast<double>(activated[i])),
                bound(static_cast<double>(activated[i]), std::fabs(static_cast<double>(activated[i])),
                      12 * kUnitRoundoff));
    }
  }
}

TEST_P(Bfloat16, KeysAndValuesAreStoredToTheBit) {
  Random random(125);
  Exact key(random, 3 * 14), value(random, 3 * 14);
  Narrow key_cache(6 * 14), value_cache(6 * 14);
  std::vector<std::int32_t> slots{5, 0, 2};
  device().run(&Ops::append_kv,
               AppendKvArgs{view(key.narrow, {3, 2, 7}), view(value.narrow, {3, 2, 7}), view(slots, {3}),
                            view(key_cache, {2, 3, 2, 7}), view(value_cache, {2, 3, 2, 7})});
  for (std::size_t token = 0; token < 3; ++token) {
    const auto from = static_cast<std::ptrdiff_t>(token * 14), to = std::ptrdiff_t{slots[token]} * 14;
    EXPECT_TRUE(
        std::equal(key.narrow.begin() + from, key.narrow.begin() + from + 14, key_cache.begin() + to));
    EXPECT_TRUE(
        std::equal(value.narrow.begin() + from, value.narrow.begin() + from + 14, value_cache.begin() + to));
  }
}

// Tokens of `batch`, whose output is there, alone as in decoding: the same bits.
void check_alone(Device& device, const PagedAttentionArgs& batch) {
  const std::int64_t heads = batch.query.dim(1), width = batch.query.dim(2), row = heads * width;
  for (std::int32_t position : {0, 31, 39, 128, 256, 299}) {
    std::vector<std::int32_t> sequence{0}, positions{position};
    Narrow output(static_cast<std::size_t>(row));
    PagedAttentionArgs alone = batch;
    alone.query = Tensor(batch.query.u16() + position * row, DType::kBFloat16, {1, heads, width});
    alone.sequence_index = view(sequence, {1});
    alone.positions = view(positions, {1});
    alone.output = view(output, {1, heads, width});
    device.run(&Ops::paged_attention, alone);
    EXPECT_TRUE(std::equal(output.begin(), output.end(), batch.output.u16() + position * row))
        << "width " << width << " position " << position;
  }
}

// One sequence whose tokens are all queried; blocks in descending order.
TEST_P(Bfloat16, AttentionEqualsTheCpus) {
  Random random(126);
  const std::int64_t block = 16, length = 300, blocks = (length + block - 1) / block;
  std::vector<std::int32_t> table, sequences(static_cast<std::size_t>(length)), positions;
  for (std::int64_t b = blocks; b-- > 0;) table.push_back(static_cast<std::int32_t>(b));
  for (std::int32_t p = 0; p < length; ++p) positions.push_back(p);
  for (const auto& [heads, kv_heads, width] :
       std::vector<std::array<std::int64_t, 3>>{{8, 1, 64}, {4, 4, 128}, {2, 1, 20}, {16, 2, 256}}) {
    Exact query(random, length * heads * width), keys(random, blocks * block * kv_heads * width),
        values(random, blocks * block * kv_heads * width);
    std::vector<float> expected(query.wide.size());
    Narrow output(query.narrow.size());
    const float scale = 1 / std::sqrt(static_cast<float>(width));
    const auto args = [&](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) {
      return PagedAttentionArgs{.query = q,
                                .key_cache = k,
                                .value_cache = v,
                                .block_tables = view(table, {1, blocks}),
                                .sequence_index = view(sequences, {length}),
                                .positions = view(positions, {length}),
                                .scale = scale,
                                .output = out};
    };
    const std::initializer_list<std::int64_t> tokens{length, heads, width},
        cache{blocks, block, kv_heads, width};
    cpu_.run(&Ops::paged_attention, args(view(query.wide, tokens), view(keys.wide, cache),
                                         view(values.wide, cache), view(expected, tokens)));
    device().run(&Ops::paged_attention, args(view(query.narrow, tokens), view(keys.narrow, cache),
                                             view(values.narrow, cache), view(output, tokens)));
    double largest_key = 0, largest_query = 0, largest_value = 0;
    for (const float x : keys.wide) largest_key = std::max(largest_key, std::fabs(static_cast<double>(x)));
    for (const float x : query.wide)
      largest_query = std::max(largest_query, std::fabs(static_cast<double>(x)));
    for (const float x : values.wide)
      largest_value = std::max(largest_value, std::fabs(static_cast<double>(x)));
    // A score is off by at most this, and a weight by its exponential; the sums add their own roundings.
    const double score_error = gamma(width + 3) * static_cast<double>(width) * largest_key * largest_query *
                               static_cast<double>(scale);
    const double relative = std::expm1(2 * score_error) + gamma(2 * length + 20);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto value = static_cast<double>(expected[i]);
      ASSERT_LE(std::fabs(static_cast<double>(bfloat16_to_float(output[i])) - value),
                bound(value, largest_value, relative))
          << "width " << width << " at " << i;
    }
    check_alone(device(), args(view(query.narrow, tokens), view(keys.narrow, cache),
                               view(values.narrow, cache), view(output, tokens)));
  }
}

// The network in double with the roundings that bfloat16 gate, up and output may add.
void check_expert(const std::array<Exact*, 3>& weights, std::int64_t hidden, std::int64_t inner,
                  const float* x, const std::uint16_t* y) {
  const auto& [gate, up, down] = weights;
  std::vector<double> activation, error;
  for (std::int64_t i = 0; i < inner; ++i) {
    double g = 0, u = 0, g_magnitude = 0, u_magnitude = 0;
    for (std::int64_t j = 0; j < hidden; ++j) {
      const auto at = static_cast<std::size_t>(i * hidden + j);
      g += static_cast<double>(gate->wide[at]) * static_cast<double>(x[j]);
      u += static_cast<double>(up->wide[at]) * static_cast<double>(x[j]);
      g_magnitude += std::fabs(static_cast<double>(gate->wide[at]) * static_cast<double>(x[j]));
      u_magnitude += std::fabs(static_cast<double>(up->wide[at]) * static_cast<double>(x[j]));
    }
    const double g_error = bound(g, g_magnitude, gamma(hidden));
    const double u_error = bound(u, u_magnitude, gamma(hidden));
    const double silu = g / (1 + std::exp(-g));
    activation.push_back(silu * u);
    // |silu'| <= 1.1; the product is rounded to bfloat16 again.
    const double before = 1.1 * g_error * (std::fabs(u) + u_error) + std::fabs(silu) * u_error;
    error.push_back(before + bound(silu * u, std::fabs(silu * u) + before, 10 * kUnitRoundoff) +
                    kBfloat16Roundoff * before);
  }
  for (std::int64_t column = 0; column < hidden; ++column) {
    double exact = 0, magnitude = 0, inherited = 0;
    for (std::int64_t i = 0; i < inner; ++i) {
      const auto weight = static_cast<double>(down->wide[static_cast<std::size_t>(column * inner + i)]);
      const auto at = static_cast<std::size_t>(i);
      exact += weight * activation[at];
      inherited += std::fabs(weight) * error[at];
      magnitude += std::fabs(weight) * (std::fabs(activation[at]) + error[at]);
    }
    ASSERT_LE(std::fabs(static_cast<double>(bfloat16_to_float(y[column])) - exact),
              inherited + bound(std::fabs(exact) + inherited, magnitude, gamma(inner)));
  }
}

struct ExpertShape {
  std::int64_t hidden, inner;
  std::int64_t extra_columns = 0;  // of the input's rows, behind `hidden`
};

/// Experts, some rows of input, and an output that was something before.
struct ExpertCase {
  static constexpr std::int64_t kInputRows = 7;
  static constexpr std::uint16_t kBefore = 0x40E0;  // 7
  std::int64_t hidden, inner, stride, num_rows;
  std::vector<std::array<Exact, 3>> experts;
  Exact input;
  std::vector<std::int32_t> offsets, indices;
  Narrow output;

  /// `num_rows_bound`: of the output; it may be larger than the groups' sum.
  ExpertCase(Random& random, const ExpertShape& shape, const std::vector<std::int32_t>& rows_per_expert,
             std::int64_t num_rows_bound = 0)
      : hidden(shape.hidden),
        inner(shape.inner),
        stride(shape.hidden + shape.extra_columns),
        num_rows(std::max(num_rows_bound,
                          std::reduce(rows_per_expert.begin(), rows_per_expert.end(), std::int64_t{0}))),
        input(random, kInputRows * stride),
        offsets{0},
        indices(random.indices(num_rows, kInputRows)),
        output(static_cast<std::size_t>(num_rows * hidden), kBefore) {
    for (const std::int32_t count : rows_per_expert) {
      const std::int64_t size = inner * hidden;
      experts.push_back({Exact(random, size), Exact(random, size), Exact(random, size)});
      offsets.push_back(offsets.back() + count);
    }
  }

  void run(Device& device) {
    std::vector<ExpertWeights> weights;
    for (auto& [gate, up, down] : experts) {
      weights.push_back({view(gate.narrow, {inner, hidden}), view(up.narrow, {inner, hidden}),
                         view(down.narrow, {hidden, inner})});
    }
    const ExpertBank bank(weights);
    std::vector<float> scratch(device.ops().expert_ffn_scratch_bytes(num_rows, hidden, inner) /
                               sizeof(float));
    device.run(&Ops::expert_ffn,
               ExpertFfnArgs{.input = view(input.narrow, {kInputRows, stride}),
                             .row_indices = view(indices, {num_rows}),
                             .expert_offsets = view(offsets, {bank.size() + 1}),
                             .experts = &bank,
                             .scratch = view(scratch, {static_cast<std::int64_t>(scratch.size())}),
                             .output = view(output, {num_rows, hidden})});
  }

  /// Each group's rows are the network's, and those behind the last are what they were.
  void check() {
    for (std::size_t e = 0; e < experts.size(); ++e) {
      auto& [gate, up, down] = experts[e];
      for (std::int32_t p = offsets[e]; p < offsets[e + 1]; ++p) {
        check_expert({&gate, &up, &down}, hidden, inner,
                     input.wide.data() + indices[static_cast<std::size_t>(p)] * stride,
                     output.data() + p * hidden);
      }
    }
    EXPECT_TRUE(std::all_of(output.begin() + offsets.back() * hidden, output.end(),
                            [](std::uint16_t value) { return value == kBefore; }));
  }
};

void check_experts(Device& device, Random& random, const ExpertShape& shape,
                   const std::vector<std::int32_t>& rows_per_expert) {
  ExpertCase experts(random, shape, rows_per_expert);
  experts.run(device);
  experts.check();
}

TEST_P(Bfloat16, ExpertsEqualTheNetworkForAwkwardGroups) {
  Random random(127);
  for (const std::vector<std::int32_t>& rows : {std::vector<std::int32_t>{1}, {0, 3, 0, 65}, {0, 0, 40, 0}}) {
    check_experts(device(), random, {36, 20}, rows);
  }
}

// Widths that tiles of 64 to 512 divide, cut and exceed, and groups around every number of columns that a
// product of a warpgroup may have; on average few rows an expert, some (more than 32) and many (more than
// 128).
TEST_P(Bfloat16, ExpertsEqualTheNetworkAroundTheEdgesOfTiles) {
  Random random(128);
  const std::vector<std::vector<std::int32_t>> groups{{1},
                                                      {0, 8, 0, 9},
                                                      {7, 16, 17, 0, 32, 33, 64, 65},
                                                      {0, 130, 0},
                                                      {1, 8, 9, 96, 97, 128, 129, 300},
                                                      {161, 0, 321, 152}};
  for (const ExpertShape& shape : {ExpertShape{64, 64}, {8, 8}, {72, 136, 8}, {264, 24}, {136, 200, 16}}) {
    for (const std::vector<std::int32_t>& rows : groups) check_experts(device(), random, shape, rows);
  }
}

// Where blocks share the strips of a tile: 1 to 10 panels of 64 features, so that at the end all of a block
// or half of each have nothing to compute.
TEST_P(Bfloat16, ExpertsEqualTheNetworkWhereTheLastTileLacksStrips) {
  Random random(129);
  for (const std::int64_t width : {8, 64, 72, 136, 200, 264, 328, 456, 520, 584}) {
    for (const std::int32_t rows : {33, 150}) {
      check_experts(device(), random, {24, width}, {rows});
      check_experts(device(), random, {width, 24}, {rows});
    }
  }
}

// Groups of all sizes, none too, in more tiles than a GPU takes at once; a second time, to the same bits.
TEST_P(Bfloat16, ExpertsEqualTheNetworkInManyTiles) {
  Random random(130);
  struct Groups {
    std::size_t num_experts;
    std::int64_t most_rows;
  };
  for (const auto& [num_experts, most_rows] : {Groups{200, 40}, Groups{200, 120}, Groups{32, 400}}) {
    std::vector<std::int32_t> rows(num_experts);
    for (std::int32_t& count : rows) count = random.below(most_rows + 1);
    ExpertCase experts(random, {72, 264, 8}, rows);
    experts.run(device());
    experts.check();
    const Narrow first = experts.output;
    experts.run(device());
    EXPECT_EQ(experts.output, first);
  }
}

// The bound on the rows, from which the way of computing is chosen, says nothing of what comes.
TEST_P(Bfloat16, ExpertsLeaveRowsBehindTheLastGroupAlone) {
  Random random(131);
  for (const std::int64_t num_rows : {12, 150, 700}) {
    for (const std::vector<std::int32_t>& rows : {std::vector<std::int32_t>{1, 2}, {0, 0}, {0, 9}}) {
      ExpertCase experts(random, {72, 136}, rows, num_rows);
      std::fill(experts.indices.begin() + experts.offsets.back(), experts.indices.end(), -5);
      experts.run(device());
      experts.check();
    }
  }
}

TEST_P(Bfloat16, BadGroupsAndIndicesOfExpertsAreRefused) {
  Random random(132);
  // A broken stream stays broken, so each error has one of its own.
  const auto expect = [&](ExpertCase& experts, const std::string& text) {
    Device own = make_device();
    expect_error(ErrorKind::kInternal, text, [&] { experts.run(own); });
  };
  for (const std::int32_t rows : {4, 60, 200, 400}) {
    const std::string count = std::to_string(rows);
    for (const std::int32_t position : {0, 1, rows - 1}) {
      ExpertCase experts(random, {72, 136}, {rows});
      experts.indices[static_cast<std::size_t>(position)] = position % 2 == 0 ? ExpertCase::kInputRows : -1;
      expect(experts, "must be in [0, 7)");
    }
    ExpertCase experts(random, {72, 136}, {1, rows - 1});
    experts.offsets = {0, 1, rows + 1};
    expect(experts, "expert 1 has rows 1 to " + std::to_string(rows + 1) + " of " + count);
    experts.offsets = {0, 2, 1};
    expect(experts, "expert 1 has rows 2 to 1 of " + count);
  }
}

}  // namespace
}  // namespace aurora::kernel_test
