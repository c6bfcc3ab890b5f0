// The distributed MoE block against a dense one in float64 on one rank: every order policy, wire dtype and
// return mode, uneven and empty ranks, replicas, shared experts, replayed routing; over transports that the
// host drives and over one that the device does. And what a rank that is alone does without.
#include "runtime/moe/moe_block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <future>
#include <random>

#include "kernels/backend_registry.h"
#include "runtime/rank_memory.h"
#include "runtime/transport/wait.h"
#include "tests/support/device_thread_transport.h"
#include "tests/support/faulty_backend.h"
#include "tests/support/random_placement.h"
#include "tests/support/rank_threads.h"

namespace aurora {
namespace {

constexpr MoeShape kShape{.hidden = 24,
                          .num_experts = 6,
                          .top_k = 2,
                          .expert_inner = 20,
                          .shared_inner = 12,
                          .normalize_top_k = true};

std::vector<float> random_values(std::size_t count, std::uint32_t seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

/// A SwiGLU network's matrices, host memory.
struct HostFfn {
  std::vector<float> gate, up, down;
  HostFfn(std::int64_t inner, std::uint32_t seed)
      : gate(random_values(static_cast<std::size_t>(inner * kShape.hidden), seed, 0.3F)),
        up(random_values(gate.size(), seed + 1, 0.3F)),
        down(random_values(gate.size(), seed + 2, 0.3F)) {}

  ExpertWeights view(std::int64_t inner) {
    return {Tensor(gate.data(), DType::kFloat32, {inner, kShape.hidden}),
            Tensor(up.data(), DType::kFloat32, {inner, kShape.hidden}),
            Tensor(down.data(), DType::kFloat32, {kShape.hidden, inner})};
  }

  std::vector<double> apply(std::span<const float> x, std::int64_t inner) const {
    std::vector<double> activated(static_cast<std::size_t>(inner)), result(x.size());
    for (std::int64_t i = 0; i < inner; ++i) {
      double g = 0, u = 0;
      for (std::size_t j = 0; j < x.size(); ++j) {
        g += static_cast<double>(gate[i * x.size() + j]) * x[j];
        u += static_cast<double>(up[i * x.size() + j]) * x[j];
      }
      activated[i] = g / (1 + std::exp(-g)) * u;
    }
    for (std::size_t j = 0; j < x.size(); ++j) {
      for (std::int64_t i = 0; i < inner; ++i) result[j] += down[j * inner + i] * activated[i];
    }
    return result;
  }
};

/// A row of at most one group, as tests/kernels/float8_test.cc proves that the kernels do it.
void pass_through_float8(std::vector<float>& row) {
  check(float8_groups(static_cast<std::int64_t>(row.size())) == 1, "the row is one group");
  float largest = 0;
  for (const float value : row) largest = std::max(largest, std::abs(value));
  const float scale = float8_scale(largest);
  for (float& value : row) value = e4m3_to_float(float_to_e4m3(value / scale)) * scale;
}

/// Everything random that all ranks share.
struct World {
  std::vector<float> router =
      random_values(static_cast<std::size_t>(kShape.num_experts * kShape.hidden), 1, 0.5F);
  std::vector<float> shared_gate = random_values(static_cast<std::size_t>(kShape.hidden), 2, 0.5F);
  std::vector<HostFfn> experts;
  HostFfn shared{kShape.shared_inner, 3};
  World() {
    for (std::uint32_t expert = 0; expert < kShape.num_experts; ++expert)
      experts.emplace_back(kShape.expert_inner, 100 + 10 * expert);
  }

  MoeLayerWeights weights() {
    return {Tensor(router.data(), DType::kFloat32, {kShape.num_experts, kShape.hidden}),
            shared.view(kShape.shared_inner),
            Tensor(shared_gate.data(), DType::kFloat32, {1, kShape.hidden})};
  }

  /// Dense float64 MoE of one token, whose routed experts read `routed_x`; `given` may be empty.
  std::vector<double> expected(std::span<const float> x, std::span<const float> routed_x,
                               std::span<const float> residual, std::span<const std::int32_t> given) const {
    std::vector<double> logits(static_cast<std::size_t>(kShape.num_experts));
    double total = 0;
    for (std::size_t e = 0; e < logits.size(); ++e) {
      for (std::size_t j = 0; j < x.size(); ++j)
        logits[e] += static_cast<double>(router[e * x.size() + j]) * x[j];
      total += std::exp(logits[e]);
    }
    std::vector<std::int32_t> chosen(given.begin(), given.end());
    for (std::int32_t e = 0; given.empty() && e < kShape.num_experts; ++e) chosen.push_back(e);
    std::ranges::stable_sort(chosen, [&](auto a, auto b) { return given.empty() && logits[a] > logits[b]; });
    chosen.resize(kShape.top_k);
    double chosen_total = 0;
    for (const std::int32_t e : chosen) chosen_total += std::exp(logits[e]) / total;
    std::vector<double> result(residual.begin(), residual.end());
    for (const std::int32_t e : chosen) {
      const auto output = experts[e].apply(routed_x, kShape.expert_inner);
      for (std::size_t j = 0; j < x.size(); ++j)
        result[j] += std::exp(logits[e]) / total / chosen_total * output[j];
    }
    double gate = 0;
    for (std::size_t j = 0; j < x.size(); ++j) gate += static_cast<double>(shared_gate[j]) * x[j];
    const auto output = shared.apply(x, kShape.shared_inner);
    for (std::size_t j = 0; j < x.size(); ++j) result[j] += output[j] / (1 + std::exp(-gate));
    return result;
  }
};

struct BlockCase {
  int num_ranks;
  OrderPolicy order;
  DType wire_dtype;
  ReturnMode return_mode;
  bool worker_streams;
  bool replayed;
  bool stream_ordered = false;
  bool timed = false;
};

class MoeBlockTest : public ::testing::TestWithParam<BlockCase> {
 public:
  using TestWithParam::GetParam;
};

/// One rank's share of a test.
struct RankTokens {
  std::vector<float> input;     // [num_tokens, hidden]
  std::vector<float> residual;  // the same
  std::vector<std::int32_t> given_ids = {};
};

/// What one rank has after its block.
struct RankResult {
  std::vector<float> residual;
  std::vector<std::int32_t> expert_ids;
  ExchangeStatistics statistics;
  std::vector<PhaseSpan> spans;  // when timed; block i is layer i
};

/// Advances `block` until `is_there`.
void drive(MoeBlock& block, SubmissionOrder& order, Transport& transport,
           const std::function<bool()>& is_there) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  IdleBackoff backoff;
  while (!is_there()) {
    check(std::chrono::steady_clock::now() < deadline, "the block gets on");
    if (block.advance(order)) continue;
    transport.progress();
    backoff.pause();
  }
}

/// Drives `block` until it is done and nothing of it is under way.
void finish_in_order(MoeBlock& block, SubmissionOrder& order, Stream& stream, Transport& transport) {
  drive(block, order, transport, [&] { return block.is_done() && block.is_settled(); });
  stream.synchronize(std::chrono::steady_clock::now() + std::chrono::seconds(60));
}

void finish(MoeBlock& block, Stream& stream, Transport& transport) {
  SubmissionOrder order({MoeBlock::kNumExchanges});
  finish_in_order(block, order, stream, transport);
}
using Finish = std::function<void(MoeBlock&, Stream&, Transport&)>;

/// Runs `num_blocks` blocks one after the other on one rank, each on the residual stream before any of them.
RankResult run_blocks(const BlockCase& parameters, Transport& transport, World& world,
                      const LayerPlacement& placement, RankTokens tokens, int num_blocks = 1,
                      const Finish& finish_block = finish) {
  const bool is_deterministic = parameters.return_mode == ReturnMode::kPerPair;
  const auto backend =
      create_backend("cpu", {.deterministic = is_deterministic, .worker_streams = parameters.worker_streams});
  const auto num_tokens = static_cast<std::int64_t>(tokens.input.size()) / kShape.hidden;
  const auto stream = backend->create_stream();
  MoeSettings settings{.policy = {parameters.order, {}},
                       .wire = wire_types(parameters.wire_dtype, DType::kFloat32),
                       .return_mode = parameters.return_mode,
                       .first_tag = 16,
                       .model_index = 0};
  MoeBlock block(kShape, settings, transport, *backend, *stream);
  ExpertStore store(
      1, kShape.num_experts,
      [&](int, ExpertId expert, Buffer&) { return world.experts[expert.value].view(kShape.expert_inner); },
      *backend);
  store.prepare({"m", {placement}}, {transport.rank(), transport.num_ranks()});
  store.commit();
  const MoeLayerWeights weights = world.weights();
  RankResult result;
  result.expert_ids.resize(static_cast<std::size_t>(num_tokens * kShape.top_k));
  if (parameters.timed) block.phases().time_on_device();
  if (parameters.timed) block.start_clock(std::chrono::steady_clock::now() + std::chrono::seconds(60));
  for (int i = 0; i < num_blocks; ++i) {
    result.residual = tokens.residual;
    block.phases().enter_layer(i);
    block.begin(
        {0, &weights, &store, Tensor(tokens.input.data(), DType::kFloat32, {num_tokens, kShape.hidden}),
         Tensor(result.residual.data(), DType::kFloat32, {num_tokens, kShape.hidden}), tokens.given_ids,
         Tensor(result.expert_ids.data(), DType::kInt32, {num_tokens, kShape.top_k})});
    block.submit_first();
    finish_block(block, *stream, transport);
  }
  if (parameters.timed) result.spans = block.take_spans();
  result.statistics = block.take_statistics();
  return result;
}

/// One thread per rank; the transport is stream-ordered when asked for.
void run_ranks(int num_ranks, bool stream_ordered, const std::function<void(Transport&)>& work) {
  ThreadFabric device_fabric(num_ranks);
  test::run_ranks(num_ranks, [&](Transport& host) {
    if (!stream_ordered) return work(host);
    test::DeviceThreadTransport transport(host, device_fabric);
    try {
      work(transport);
    } catch (const std::exception& error) {
      transport.abort(error.what());
      throw;
    }
  });
}

TEST_P(MoeBlockTest, EqualsTheDenseBlock) {
  const BlockCase& parameters = GetParam();
  World world;
  std::mt19937 random(99);
  const LayerPlacement placement =
      test::random_placement(kShape.num_experts, parameters.num_ranks, 2, random);
  run_ranks(parameters.num_ranks, parameters.stream_ordered, [&](Transport& transport) {
    const int num_tokens = std::array{7, 0, 1, 12, 3, 0, 5, 9}[transport.rank()];
    const auto seed = 500U + static_cast<std::uint32_t>(transport.rank());
    std::vector<float> input =
        random_values(static_cast<std::size_t>(num_tokens * kShape.hidden), seed, 1.0F);
    std::mt19937 own(seed);
    std::vector<std::int32_t> given;
    if (parameters.replayed)
      given = test::random_expert_ids(num_tokens, kShape.num_experts, kShape.top_k, own);
    const std::vector<float> before =
        random_values(input.size(), 77U + static_cast<std::uint32_t>(transport.rank()), 1.0F);
    const RankResult result = run_blocks(parameters, transport, world, placement, {input, before, given}, 2);
    const std::vector<float>& after = result.residual;
    if (parameters.replayed) {
      EXPECT_EQ(result.expert_ids, given);
    }
    // Rounding: each value passes the wire twice, if there is one, and each product sums at most hidden +
    // inner terms of order one. What float8_e4m3 makes of the inputs is expected, and results come back as
    // bfloat16.
    const bool has_wire = parameters.num_ranks > 1 || parameters.return_mode == ReturnMode::kPerPair;
    const double unit = parameters.wire_dtype == DType::kFloat32 || !has_wire ? 0x1p-23 : 0x1p-8;
    for (int token = 0; token < num_tokens; ++token) {
      const auto row = [&](const auto& values) {
        return std::span(values).subspan(static_cast<std::size_t>(token * kShape.hidden), kShape.hidden);
      };
      const auto ids = parameters.replayed ? std::span<const std::int32_t>(given).subspan(
                                                 static_cast<std::size_t>(token * kShape.top_k), kShape.top_k)
                                           : std::span<const std::int32_t>{};
      std::vector<float> routed(row(input).begin(), row(input).end());
      if (parameters.wire_dtype == DType::kFloat8E4M3 && has_wire) pass_through_float8(routed);
      const auto expected = world.expected(row(input), routed, row(before), ids);
      double norm = 0;
      for (const double value : expected) norm += value * value;
      const double tolerance =
          unit * std::sqrt(norm) * std::sqrt(static_cast<double>(kShape.hidden + kShape.expert_inner));
      for (std::size_t j = 0; j < expected.size(); ++j)
        ASSERT_NEAR(row(after)[j], expected[j], tolerance)
            << "rank " << transport.rank() << " token " << token;
    }
  });
}

std::vector<BlockCase> all_cases() {
  std::vector<BlockCase> cases;
  for (const int num_ranks : {1, 2, 3, 8}) {
    for (const ReturnMode mode : {ReturnMode::kPerRow, ReturnMode::kPerPair}) {
      for (const DType wire : {DType::kFloat32, DType::kBFloat16, DType::kFloat8E4M3}) {
        cases.push_back({num_ranks, OrderPolicy::kAurora, wire, mode, num_ranks == 3, num_ranks == 2});
        cases.push_back({num_ranks, OrderPolicy::kAurora, wire, mode, num_ranks != 3, num_ranks == 2, true});
      }
    }
  }
  for (const OrderPolicy order : all_order_policies()) {
    for (const bool stream_ordered : {false, true})
      cases.push_back({5, order, DType::kFloat32, ReturnMode::kPerRow, true, false, stream_ordered});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, MoeBlockTest, ::testing::ValuesIn(all_cases()));

class MoeBlockDeterministic : public ::testing::TestWithParam<std::tuple<DType, bool>> {};

TEST_P(MoeBlockDeterministic, GivesTheSameBitsWhateverRanksPlacementAndBatch) {
  const auto [wire_dtype, stream_ordered] = GetParam();
  constexpr int kNumTokens = 29;
  World world;
  const auto width = static_cast<std::size_t>(kShape.hidden);
  const std::vector<float> input = random_values(kNumTokens * width, 31, 1.0F);
  const std::vector<float> residual = random_values(input.size(), 32, 1.0F);
  std::vector<float> baseline;
  for (const int num_ranks : {1, 2, 3, 5, 8}) {
    std::mt19937 random(1000 + num_ranks);
    const LayerPlacement placement = test::random_placement(kShape.num_experts, num_ranks, 2, random);
    std::vector<float> joined(input.size());
    run_ranks(num_ranks, stream_ordered, [&](Transport& transport) {
      // This rank's run of consecutive tokens.
      const std::size_t first =
          kNumTokens * static_cast<std::size_t>(transport.rank()) / static_cast<std::size_t>(num_ranks);
      const std::size_t end =
          kNumTokens * static_cast<std::size_t>(transport.rank() + 1) / static_cast<std::size_t>(num_ranks);
      const auto part = [&](const std::vector<float>& values) {
        return std::vector<float>(values.begin() + static_cast<std::ptrdiff_t>(first * width),
                                  values.begin() + static_cast<std::ptrdiff_t>(end * width));
      };
      const BlockCase parameters{
          num_ranks, OrderPolicy::kAurora, wire_dtype, ReturnMode::kPerPair, stream_ordered, false};
      const std::vector<float> after =
          run_blocks(parameters, transport, world, placement, {part(input), part(residual)}).residual;
      std::ranges::copy(after, joined.begin() + static_cast<std::ptrdiff_t>(first * width));
    });
    if (num_ranks == 1) baseline = joined;
    EXPECT_EQ(std::memcmp(joined.data(), baseline.data(), joined.size() * sizeof(float)), 0)
        << num_ranks << " ranks";
  }
}

INSTANTIATE_TEST_SUITE_P(Transports, MoeBlockDeterministic,
                         ::testing::Combine(::testing::Values(DType::kFloat32, DType::kFloat8E4M3),
                                            ::testing::Bool()));

/// All tokens of two ranks to two experts of the other rank: every number can be worked out by hand.
class MoeBlockStatistics : public ::testing::TestWithParam<std::tuple<DType, bool>> {};

TEST_P(MoeBlockStatistics, CountBytesAndTime) {
  const auto [wire_dtype, stream_ordered] = GetParam();
  World world;
  LayerPlacement placement;
  for (int expert = 0; expert < kShape.num_experts; ++expert)
    placement.experts.push_back({{GpuId{expert / 3}, 1.0}});
  // 24 numbers (and a scale), and two entries of 8 bytes; 24 numbers come back.
  const bool is_float8 = wire_dtype == DType::kFloat8E4M3;
  const std::int64_t bytes = is_float8 ? 48 + 48 : 112 + 96;
  const std::int64_t saved_bytes = is_float8 ? 64 - 48 : 0;
  run_ranks(2, stream_ordered, [&](Transport& transport) {
    constexpr int kNumTokens = 4;
    constexpr int kNumBlocks = 3;
    RankTokens tokens;
    tokens.input = random_values(kNumTokens * static_cast<std::size_t>(kShape.hidden), 9, 1.0F);
    tokens.residual = tokens.input;
    const int first_foreign = transport.rank() == 0 ? 3 : 0;
    for (int token = 0; token < kNumTokens; ++token) {
      tokens.given_ids.insert(tokens.given_ids.end(), {first_foreign, first_foreign + 2});
    }
    const BlockCase parameters{2, OrderPolicy::kGroup, wire_dtype, ReturnMode::kPerRow, stream_ordered, true};
    const ExchangeStatistics statistics =
        run_blocks(parameters, transport, world, placement, tokens, kNumBlocks).statistics;
    EXPECT_EQ(statistics.sent_bytes, kNumBlocks * kNumTokens * bytes);
    EXPECT_EQ(statistics.undeduplicated_bytes, 2 * kNumBlocks * kNumTokens * bytes);
    EXPECT_EQ(statistics.float8_saved_bytes, kNumBlocks * kNumTokens * saved_bytes);
    EXPECT_GT(statistics.seconds, 0);
    EXPECT_GT(statistics.bound_seconds, 0);
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, MoeBlockStatistics,
                         ::testing::Combine(::testing::Values(DType::kFloat32, DType::kFloat8E4M3),
                                            ::testing::Bool()));

/// Start of the first and end of the last span of one phase and layer; how many there are, and their bytes.
struct PhaseExtent {
  double start = INFINITY, end = -INFINITY;
  int num_spans = 0;
  std::int64_t bytes = 0;
};

PhaseExtent extent_of(const std::vector<PhaseSpan>& spans, Phase phase, std::int32_t layer) {
  PhaseExtent extent;
  for (const PhaseSpan& span : spans) {
    if (span.phase != phase || span.layer != layer) continue;
    EXPECT_LE(span.start_seconds, span.end_seconds);
    extent.start = std::min(extent.start, span.start_seconds);
    extent.end = std::max(extent.end, span.end_seconds);
    extent.bytes += span.sent_bytes;
    ++extent.num_spans;
  }
  return extent;
}

/// What the device does later because of something must lie later, on whichever stream it is.
void expect_causal_spans(const std::vector<PhaseSpan>& spans, std::int32_t layer) {
  SCOPED_TRACE("layer " + std::to_string(layer));
  const PhaseExtent gate = extent_of(spans, Phase::kGate, layer);
  const PhaseExtent dispatch = extent_of(spans, Phase::kDispatch, layer);
  const PhaseExtent experts = extent_of(spans, Phase::kExperts, layer);
  const PhaseExtent combine = extent_of(spans, Phase::kCombine, layer);
  const PhaseExtent aggregation = extent_of(spans, Phase::kAggregation, layer);
  EXPECT_EQ(gate.num_spans, 2) << "routing and packing";
  EXPECT_EQ(dispatch.num_spans, 1);
  EXPECT_EQ(experts.num_spans, 2) << "own rows with the shared expert, and the experts";
  EXPECT_EQ(combine.num_spans, 1);
  EXPECT_EQ(aggregation.num_spans, 1);
  EXPECT_GE(gate.start, 0);
  EXPECT_LE(gate.end, dispatch.start) << "packed before it is sent";
  EXPECT_LE(dispatch.end, experts.end) << "received before it is computed";
  EXPECT_LE(experts.end, combine.start) << "computed before it is returned";
  EXPECT_LE(combine.end, aggregation.end) << "returned before it is summed";
}

TEST(MoeBlockSpans, LieInTheOrderOfCauseAndEffectAndCarryTheBytes) {
  World world;
  std::mt19937 random(77);
  const LayerPlacement placement = test::random_placement(kShape.num_experts, 3, 2, random);
  constexpr int kNumBlocks = 4;
  run_ranks(3, /*stream_ordered=*/true, [&](Transport& transport) {
    RankTokens tokens;
    const auto seed = 30U + static_cast<std::uint32_t>(transport.rank());
    tokens.input = random_values(16 * static_cast<std::size_t>(kShape.hidden), seed, 1.0F);
    tokens.residual = tokens.input;
    const BlockCase parameters{.num_ranks = 3,
                               .order = OrderPolicy::kAurora,
                               .wire_dtype = DType::kFloat32,
                               .return_mode = ReturnMode::kPerRow,
                               .worker_streams = true,
                               .replayed = false,
                               .stream_ordered = true,
                               .timed = true};
    const RankResult result = run_blocks(parameters, transport, world, placement, tokens, kNumBlocks);
    std::int64_t bytes = 0;
    double previous_end = 0;
    for (std::int32_t layer = 0; layer < kNumBlocks; ++layer) {
      expect_causal_spans(result.spans, layer);
      for (const Phase phase : {Phase::kDispatch, Phase::kCombine}) {
        bytes += extent_of(result.spans, phase, layer).bytes;
      }
      EXPECT_LE(previous_end, extent_of(result.spans, Phase::kGate, layer).start) << "one block at a time";
      previous_end = extent_of(result.spans, Phase::kAggregation, layer).end;
    }
    EXPECT_EQ(bytes, result.statistics.sent_bytes);
  });
}

/// A rank that is alone, with a world of its own: blocks that follow each other on one residual stream.
class LocalBlocks {
 public:
  static constexpr std::int64_t kNumTokens = 9;

  explicit LocalBlocks(const BackendOptions& options, ReturnMode mode = ReturnMode::kPerRow,
                       DType wire_dtype = DType::kFloat32)
      : LocalBlocks(create_backend("cpu", options), mode, wire_dtype) {}
  explicit LocalBlocks(std::unique_ptr<Backend> backend, ReturnMode mode = ReturnMode::kPerRow,
                       DType wire_dtype = DType::kFloat32)
      : backend_(std::move(backend)),
        stream_(backend_->create_stream()),
        block_(kShape,
               {.policy = {OrderPolicy::kAurora, {}},
                .wire = wire_types(wire_dtype, kShape.dtype),
                .return_mode = mode,
                .first_tag = 16},
               *transport_, *backend_, *stream_) {
    LayerPlacement all_here;
    all_here.experts.assign(kShape.num_experts, {{GpuId{0}, 1.0}});
    store_.emplace(
        1, kShape.num_experts,
        [&](int, ExpertId expert, Buffer&) { return world_.experts[expert.value].view(kShape.expert_inner); },
        *backend_);
    store_->prepare({"m", {all_here}}, {});
    store_->commit();
  }

  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }
  MoeBlock& block() { return block_; }

  void begin() {
    const Tensor input(input_.data(), DType::kFloat32, {kNumTokens, kShape.hidden});
    const Tensor residual(residual_.data(), DType::kFloat32, {kNumTokens, kShape.hidden});
    block_.begin({0, &weights_, &*store_, input, residual, {}, {}});
  }
  std::vector<float> finished() {
    stream_->synchronize(std::chrono::steady_clock::now() + std::chrono::seconds(60));
    return residual_;
  }

 private:
  World world_;
  MoeLayerWeights weights_ = world_.weights();
  std::vector<float> input_ = random_values(kNumTokens * kShape.hidden, 41, 1.0F);
  std::vector<float> residual_ = random_values(input_.size(), 42, 1.0F);
  ThreadFabric fabric_{1};
  std::unique_ptr<Transport> transport_ = fabric_.connect(0);
  std::unique_ptr<Backend> backend_;
  std::optional<ExpertStore> store_;
  std::unique_ptr<Stream> stream_;
  MoeBlock block_;
};

TEST(MoeBlockStall, SaysWhatItWaitsFor) {
  World world;
  std::mt19937 random(5);
  const LayerPlacement placement = test::random_placement(kShape.num_experts, 2, 1, random);
  const BlockCase parameters{2, OrderPolicy::kGroup, DType::kFloat32, ReturnMode::kPerRow, false, false};
  const Finish with_stops = [](MoeBlock& block, Stream& stream, Transport& transport) {
    // Rank 1 begins when rank 0 has seen that its counts are missing.
    SubmissionOrder order({MoeBlock::kNumExchanges, MoeBlock::kNumExchanges});
    const auto meet = [&] {
      all_gather(transport, {}, 3, std::chrono::steady_clock::now() + std::chrono::seconds(60),
                 "the other rank");
    };
    if (transport.rank() == 0) {
      drive(block, order, transport, [&] { return block.phase() == Phase::kCounts; });
      while (block.advance(order)) {
      }
      EXPECT_EQ(block.awaits(order), "counts of other ranks");
    }
    meet();
    // Its dispatch goes out though the other model has no counts yet; its combine comes after that one's
    // dispatch.
    drive(block, order, transport, [&] { return block.awaits(order) == "its turn to send"; });
    EXPECT_EQ(block.phase(), Phase::kExperts);
    EXPECT_TRUE(order.is_turn_of(1));
    order.advance();
    finish_in_order(block, order, stream, transport);
    EXPECT_EQ(block.awaits(order), "nothing");
  };
  run_ranks(2, false, [&](Transport& transport) {
    const std::vector<float> input = random_values(static_cast<std::size_t>(4 * kShape.hidden), 9, 1.0F);
    run_blocks(parameters, transport, world, placement, {input, input}, 1, with_stops);
  });
}

TEST(LocalBlock, IsThatOfOneRankUnlessTheWireHasToRoundForTheSameBits) {
  const auto is_local = [](ReturnMode mode, DType wire) {
    return LocalBlocks(BackendOptions{}, mode, wire).block().is_local();
  };
  for (const DType wire : {DType::kFloat32, DType::kBFloat16, DType::kFloat8E4M3}) {
    EXPECT_TRUE(is_local(ReturnMode::kPerRow, wire));
    EXPECT_EQ(is_local(ReturnMode::kPerPair, wire), wire == DType::kFloat32);
  }
  const auto stays = [](int num_ranks, ReturnMode mode, std::optional<DType> wire, DType compute) {
    return stays_on_rank(num_ranks, mode, wire_types(wire, compute), compute);
  };
  EXPECT_TRUE(stays(1, ReturnMode::kPerPair, std::nullopt, DType::kBFloat16));
  EXPECT_TRUE(stays(1, ReturnMode::kPerPair, DType::kFloat32, DType::kBFloat16));
  EXPECT_FALSE(stays(1, ReturnMode::kPerPair, DType::kFloat8E4M3, DType::kBFloat16));
  EXPECT_FALSE(stays(2, ReturnMode::kPerRow, DType::kFloat32, DType::kFloat32));
}

TEST(LocalBlock, IsSubmittedAsAWholeWhileTheDeviceIsBusy) {
  constexpr int kNumBlocks = 3;
  LocalBlocks inline_blocks(BackendOptions{});
  LocalBlocks blocks(BackendOptions{.worker_streams = true});
  std::promise<void> release;
  dynamic_cast<cpu::CpuStream&>(blocks.stream()).submit([released = release.get_future().share()] {
    check(released.wait_for(std::chrono::seconds(60)) == std::future_status::ready, "the test goes on");
  });
  for (int i = 0; i < kNumBlocks; ++i) {
    for (LocalBlocks* each : {&inline_blocks, &blocks}) {
      each->begin();
      each->block().submit_first();
      EXPECT_TRUE(each->block().is_done() && each->block().is_settled());
    }
  }
  release.set_value();
  EXPECT_EQ(blocks.finished(), inline_blocks.finished());
  const ExchangeStatistics statistics = blocks.block().take_statistics();
  EXPECT_EQ(statistics.num_exchanges, 0);
  EXPECT_EQ(statistics.sent_bytes + statistics.undeduplicated_bytes, 0);
  EXPECT_EQ(statistics.seconds + statistics.planning_seconds, 0);
  EXPECT_EQ(blocks.block().num_exchanges(), 0);
}

TEST(LocalBlock, IsOneGraphFromTheGateToTheAggregation) {
  constexpr int kNumLaunches = 3;
  LocalBlocks direct(BackendOptions{});
  for (int i = 0; i < kNumLaunches; ++i) {
    direct.begin();
    direct.block().submit_first();
  }
  LocalBlocks recorded(BackendOptions{.graphs = true});
  recorded.begin();
  const std::unique_ptr<Graph> graph =
      recorded.backend().capture(recorded.stream(), [&] { recorded.block().submit_first(); });
  ASSERT_TRUE(graph->is_current());
  for (int i = 0; i < kNumLaunches; ++i) graph->launch(recorded.stream());
  EXPECT_EQ(recorded.finished(), direct.finished());
}

TEST(LocalBlock, TakesNoMoreMemoryThanIsPlannedForIt) {
  auto owned = std::make_unique<test::FaultyBackend>(create_backend("cpu", {}));
  test::FaultyBackend& backend = *owned;
  LocalBlocks blocks(std::move(owned));
  std::int64_t taken = 0;
  backend.before_allocate = [&](std::size_t size_bytes) { taken += static_cast<std::int64_t>(size_bytes); };
  blocks.begin();
  blocks.block().submit_first();
  ModelOptions options;
  options.max_batch_tokens = LocalBlocks::kNumTokens;
  options.max_batch_requests = 0;
  options.max_sequence_tokens = 1;
  ModelConfig config;
  config.num_layers = 1;
  config.is_moe_layer = {true};
  config.hidden = kShape.hidden;
  config.num_heads = 1;
  config.num_kv_heads = 1;
  config.head_width = 4;
  config.num_experts = kShape.num_experts;
  config.top_k = kShape.top_k;
  config.expert_inner = kShape.expert_inner;
  config.shared_expert_inner = kShape.shared_inner;
  const std::int64_t planned = model_memory(options, config, {"m", {}}, GpuId{0}, {}).workspace_bytes;
  // The decoder's: residual and normalized row, query, key, value and attended heads of each token, one
  // position of the rotary tables.
  const std::int64_t decoder = (LocalBlocks::kNumTokens * (2 * kShape.hidden + 4 * 4) + 4) * 4;
  EXPECT_LE(taken, planned - decoder * 5 / 4);
  EXPECT_GT(2 * taken, planned - decoder * 5 / 4) << "nor much less";
}

TEST(LocalBlock, HasASpanOfEachComputingPhaseAndOfNoExchange) {
  LocalBlocks blocks(BackendOptions{.worker_streams = true});
  blocks.block().phases().time_on_device();
  blocks.block().start_clock(std::chrono::steady_clock::now() + std::chrono::seconds(60));
  blocks.block().phases().enter_layer(5);
  blocks.begin();
  blocks.block().submit_first();
  blocks.finished();
  std::vector<Phase> phases;
  for (const PhaseSpan& span : blocks.block().take_spans()) {
    EXPECT_EQ(span.layer, 5);
    EXPECT_LE(span.start_seconds, span.end_seconds);
    phases.push_back(span.phase);
  }
  EXPECT_EQ(phases, (std::vector<Phase>{Phase::kGate, Phase::kExperts, Phase::kAggregation}));
}

TEST(ExpertStore, KeepsServingTheOldSetWhenLoadingTheNewOneFails) {
  World world;
  int num_loads = 0;
  bool fails = false;
  const auto backend = create_backend("cpu", {});
  ExpertStore store(
      1, kShape.num_experts,
      [&](int, ExpertId expert, Buffer&) {
        ++num_loads;
        if (fails) throw Error(ErrorKind::kOutOfMemory, "no room");
        return world.experts[expert.value].view(kShape.expert_inner);
      },
      *backend);
  const RankOf self{0, 2};
  LayerPlacement on_zero;
  on_zero.experts.assign(kShape.num_experts, {{GpuId{1}, 1.0}});
  on_zero.experts[2] = {{GpuId{0}, 1.0}};
  store.prepare({"m", {on_zero}}, self);
  store.commit();
  EXPECT_EQ(store.placement(0).local_index().i32()[2], 0);
  LayerPlacement more = on_zero;
  more.experts[4] = {{GpuId{0}, 1.0}};
  fails = true;
  EXPECT_THROW(store.prepare({"m", {more}}, self), Error);
  EXPECT_EQ(store.bank(0).experts().size(), 1U);
  fails = false;
  store.prepare({"m", {more}}, self);
  EXPECT_EQ(store.bank(0).experts().size(), 1U) << "prepare leaves the current set alone";
  store.commit();
  EXPECT_EQ(store.bank(0).experts().size(), 2U);
  EXPECT_EQ(store.placement(0).local_index().i32()[4], 1);
  EXPECT_EQ(num_loads, 3) << "an expert that stays is not loaded again";
}

}  // namespace
}  // namespace aurora
