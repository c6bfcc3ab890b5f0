// The decoder with its MoE blocks against Hugging Face transformers, layer by layer: logits, router logits,
// inputs and outputs of MoE blocks, for every supported architecture, whole prompts and prompts cut into
// chunks. And what a float8_e4m3 wire makes of the logits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <thread>

#include "kernels/backend_registry.h"
#include "runtime/model/decoder.h"
#include "runtime/model/rope_table.h"
#include "runtime/moe/moe_block.h"
#include "runtime/transport/thread_transport.h"
#include "tests/support/engine_harness.h"

namespace aurora {
namespace {

namespace fs = std::filesystem;

struct ReferenceCase {
  fs::path folder;
  std::int64_t chunk_tokens;
  bool has_rounded_rope;
  DType wire_dtype = DType::kFloat32;
};

void PrintTo(const ReferenceCase& parameters, std::ostream* stream) {
  *stream << parameters.folder << " in chunks of " << parameters.chunk_tokens;
}

std::string case_name(const ::testing::TestParamInfo<ReferenceCase>& info) {
  std::string name = info.param.folder.filename().string() + "_by_" + std::to_string(info.param.chunk_tokens);
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

/// A named tensor of reference.safetensors as float32.
std::vector<float> read_reference_tensor(const Checkpoint& reference, const std::string& name) {
  const StoredTensor& stored = reference.find(name);
  std::vector<float> values(static_cast<std::size_t>(stored.shape[0] * stored.shape[1]));
  reference.read(name, Tensor(values.data(), DType::kFloat32, {stored.shape[0], stored.shape[1]}));
  return values;
}

/// The rotary table of a model that was converted as a whole to bfloat16 and back, as the one was that wrote
/// the references in launch/models: conversion rounds the frequencies too. A model that is loaded, here and
/// in transformers, has them in float32; the difference at position 100 is 1e-3 of a logit's norm.
RopeTable rounded_rope_table(const ModelConfig& config, std::int64_t num_positions) {
  RopeTable table = make_rope_table(config.rope, config.head_width, num_positions);
  const std::vector<float> frequencies = rope_inverse_frequencies(config.rope, config.head_width);
  for (std::int64_t position = 0; position < num_positions; ++position) {
    for (std::int64_t i = 0; i < table.half_width; ++i) {
      const float angle = static_cast<float>(position) * bfloat16_to_float(float_to_bfloat16(frequencies[i]));
      table.cosine[position * table.half_width + i] = std::cos(angle);
      table.sine[position * table.half_width + i] = std::sin(angle);
    }
  }
  return table;
}

MoeSettings moe_settings(DType wire_dtype) {
  MoeSettings settings;
  settings.policy.order = OrderPolicy::kGroup;
  settings.wire = wire_types(wire_dtype, DType::kFloat32);
  // One row per pair, so that one rank rounds as several do.
  if (wire_dtype != DType::kFloat32) settings.return_mode = ReturnMode::kPerPair;
  settings.first_tag = 16;
  return settings;
}

class ReferenceTest : public ::testing::TestWithParam<ReferenceCase> {
 protected:
  static constexpr std::int64_t kNumPositions = 512;
  static constexpr std::int64_t kBlockTokens = 16;

  ReferenceTest()
      : fabric_(1),
        transport_(fabric_.connect(0)),
        backend_(create_backend("cpu", {})),
        stream_(backend_->create_stream()),
        config_(read_model_config(GetParam().folder)),
        checkpoint_(Checkpoint::open(GetParam().folder)),
        weights_(config_, checkpoint_, DType::kFloat32, *backend_),
        experts_(static_cast<int>(config_.num_moe_layers()), static_cast<int>(config_.num_experts),
                 make_expert_loader(config_, checkpoint_, DType::kFloat32, *backend_), *backend_),
        cache_({config_.num_layers, 80, kBlockTokens, config_.num_kv_heads, config_.head_width}, *backend_),
        decoder_(config_, weights_, cache_,
                 GetParam().has_rounded_rope
                     ? rounded_rope_table(config_, kNumPositions)
                     : make_rope_table(config_.rope, config_.head_width, kNumPositions),
                 *backend_, *stream_),
        block_({config_.hidden, config_.num_experts, config_.top_k, config_.expert_inner,
                config_.shared_expert_inner, config_.normalize_top_k},
               moe_settings(GetParam().wire_dtype), *transport_, *backend_, *stream_),
        reference_(Checkpoint::open_file(GetParam().folder / "reference.safetensors")) {
    LayerPlacement all_here;
    all_here.experts.assign(static_cast<std::size_t>(config_.num_experts), {{GpuId{0}, 1.0}});
    experts_.prepare(
        {"m", std::vector<LayerPlacement>(static_cast<std::size_t>(config_.num_moe_layers()), all_here)}, {});
    experts_.commit();
  }

  bool is_exact() const { return GetParam().wire_dtype == DType::kFloat32; }

  /// A relative error in the norm of a row that float32 arithmetic may make: one rounding per term of the
  /// widest sum, in the root, for each of the eight dependent stages of each layer (two norms, projections,
  /// scores, mix, output, gate/up, down), in our arithmetic and again in the reference's.
  double tolerance() const {
    const auto widest =
        static_cast<double>(std::max({config_.hidden, config_.expert_inner, config_.dense_inner}));
    return 2 * 0x1p-23 * std::sqrt(widest) * 8 * static_cast<double>(config_.num_layers);
  }

  /// `minuend`: what a difference was taken from, whose rounding the difference inherits; or no data.
  void expect_rows(const std::string& name, const Tensor& computed, std::int64_t first_row,
                   const Tensor& minuend = {}) {
    if (!reference_.contains(name)) return;
    const std::vector<float> expected = read_reference_tensor(reference_, name);
    const std::int64_t width = computed.dim(1);
    for (std::int64_t row = 0; row < computed.dim(0); ++row) {
      double error = 0, norm = 0;
      for (std::int64_t j = 0; j < width; ++j) {
        const double want = expected[(first_row + row) * width + j];
        error += std::pow(computed.f32()[row * width + j] - want, 2);
        norm += want * want;
        if (minuend.has_data()) norm += std::pow(minuend.f32()[row * width + j], 2);
      }
      ASSERT_LE(std::sqrt(error), tolerance() * std::sqrt(norm)) << name << " row " << first_row + row;
    }
    ++num_compared_;
  }

  /// Of one position's logits: relative error in the norm, and whether the greedy token is the reference's.
  void measure_logits(const std::string& prefix, const Tensor& computed, std::int64_t first_row) {
    const std::vector<float> expected = read_reference_tensor(reference_, prefix + ".logits");
    const std::int64_t width = computed.dim(1);
    for (std::int64_t row = 0; row < computed.dim(0); ++row) {
      const std::span want(expected.data() + (first_row + row) * width, static_cast<std::size_t>(width));
      const std::span found(computed.f32() + row * width, static_cast<std::size_t>(width));
      double error = 0, norm = 0;
      for (std::size_t j = 0; j < want.size(); ++j) {
        error += std::pow(static_cast<double>(found[j]) - want[j], 2);
        norm += std::pow(static_cast<double>(want[j]), 2);
      }
      logit_errors_.push_back(std::sqrt(error / norm));
      num_same_tokens_ +=
          std::ranges::max_element(found) - found.begin() == std::ranges::max_element(want) - want.begin();
    }
  }

  /// One chunk of the prompt through all layers.
  void run_chunk(const std::string& prefix, const std::vector<TokenId>& ids, std::int64_t first,
                 BlockTable& table) {
    const std::int64_t end =
        std::min<std::int64_t>(first + GetParam().chunk_tokens, static_cast<std::int64_t>(ids.size()));
    StepBatch batch;
    batch.num_sequences = 1;
    batch.block_tables = table;
    batch.max_blocks = static_cast<std::int64_t>(table.size());
    for (std::int64_t position = first; position < end; ++position) {
      batch.token_ids.push_back(ids[position]);
      batch.positions.push_back(static_cast<std::int32_t>(position));
      batch.slots.push_back(
          static_cast<std::int32_t>(table[position / kBlockTokens] * kBlockTokens + position % kBlockTokens));
      batch.sequence_index.push_back(0);
      batch.output_rows.push_back(static_cast<std::int32_t>(position - first));
    }
    decoder_.begin(batch);
    int moe_layer = 0;
    for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
      decoder_.attend(layer);
      if (config_.is_moe_layer[layer]) {
        run_moe(prefix + ".layer" + std::to_string(layer), layer, moe_layer++, first);
      } else {
        decoder_.dense_ffn(layer);
      }
    }
    if (is_exact()) return expect_rows(prefix + ".logits", decoder_.head(), first);
    measure_logits(prefix, decoder_.head(), first);
  }

  void run_moe(const std::string& prefix, std::int64_t layer, int moe_layer, std::int64_t first_row) {
    if (is_exact()) expect_rows(prefix + ".moe_input", decoder_.normalized(), first_row);
    std::vector<float> before(decoder_.residual().f32(),
                              decoder_.residual().f32() + decoder_.residual().num_elements());
    SubmissionOrder order({MoeBlock::kNumExchanges});
    block_.begin({moe_layer,
                  &weights_.layers[layer].moe,
                  &experts_,
                  decoder_.normalized(),
                  decoder_.residual(),
                  {},
                  {}});
    block_.submit_first();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!block_.is_done()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      block_.advance(order);
    }
    if (!is_exact()) return;
    expect_rows(prefix + ".router_logits", block_.router_logits(), first_row);
    for (std::size_t i = 0; i < before.size(); ++i) before[i] = decoder_.residual().f32()[i] - before[i];
    const Tensor output(before.data(), DType::kFloat32,
                        {decoder_.residual().dim(0), decoder_.residual().dim(1)});
    expect_rows(prefix + ".moe_output", output, first_row, decoder_.residual());
  }

  /// All prompts of the reference, as far as it goes.
  void run_prompts() {
    const auto prompts = test::read_reference(GetParam().folder);
    for (std::size_t k = 0; k < prompts.size(); ++k) {
      const std::string prefix = "prompt" + std::to_string(k);
      const auto& ids = prompts[k].prompt_ids;
      const auto num_tokens = static_cast<std::size_t>(reference_.find(prefix + ".logits").shape[0]);
      // The reference covers the prompt, or the prompt and its continuation.
      std::vector<TokenId> tokens = ids;
      tokens.insert(tokens.end(), prompts[k].greedy_ids.begin(), prompts[k].greedy_ids.end());
      ASSERT_LE(num_tokens, tokens.size());
      tokens.resize(num_tokens);
      BlockTable table;
      for (std::size_t block = 0; block * 16 < num_tokens; ++block)
        table.push_back(static_cast<std::int32_t>(3 + 2 * block));
      for (std::int64_t first = 0; first < static_cast<std::int64_t>(num_tokens);
           first += GetParam().chunk_tokens) {
        run_chunk(prefix, tokens, first, table);
        if (HasFatalFailure()) return;
      }
    }
  }

  ThreadFabric fabric_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  ModelConfig config_;
  Checkpoint checkpoint_;
  ModelWeights weights_;
  ExpertStore experts_;
  KvCache cache_;
  Decoder decoder_;
  MoeBlock block_;
  Checkpoint reference_;
  int num_compared_ = 0;
  std::vector<double> logit_errors_;
  std::ptrdiff_t num_same_tokens_ = 0;
};

class Float8WireTest : public ReferenceTest {};

TEST_P(ReferenceTest, LogitsRouterLogitsAndMoeBlocksAgree) {
  run_prompts();
  EXPECT_GT(num_compared_, static_cast<int>(test::read_reference(GetParam().folder).size()) *
                               static_cast<int>(config_.num_moe_layers()));
}

// A number of the wire is off by 2^-4 of itself at most, and evenly spread errors by 2^-4 / sqrt(3) in the
// root of the mean square. An expert's output follows its input, its layers' outputs add up like independent
// ones (the root of the number of layers), and each is at most as large as the residual stream that it is
// added to.
TEST_P(Float8WireTest, LogitsAreOffByLittleAndMostGreedyTokensStay) {
  run_prompts();
  ASSERT_FALSE(logit_errors_.empty());
  const auto count = static_cast<double>(logit_errors_.size());
  const double mean = std::accumulate(logit_errors_.begin(), logit_errors_.end(), 0.0) / count;
  const double share = static_cast<double>(num_same_tokens_) / count;
  std::cout << "relative error of logits: mean " << mean << ", largest "
            << *std::ranges::max_element(logit_errors_) << "; greedy tokens that stay: " << share << " of "
            << count << '\n';
  EXPECT_GT(mean, tolerance()) << "eight bits must be felt";
  EXPECT_LE(mean, 0x1p-4 / std::sqrt(3) * std::sqrt(static_cast<double>(config_.num_moe_layers())));
  EXPECT_GE(share, 0.9);
}
INSTANTIATE_TEST_SUITE_P(
    Models, Float8WireTest,
    ::testing::Values(ReferenceCase{test::model_folder("tiny-mixtral"), 1000, true, DType::kFloat8E4M3},
                      ReferenceCase{test::model_folder("tiny-qwen3-moe"), 1000, true, DType::kFloat8E4M3}),
    case_name);

std::vector<ReferenceCase> all_cases() {
  std::vector<ReferenceCase> cases;
  const fs::path source = AURORA_SOURCE_DIR;
  for (const char* folder :
       {"launch/models/tiny-mixtral", "launch/models/tiny-qwen3-moe", "tests/fixtures/tiny-qwen2-moe",
        "tests/fixtures/tiny-olmoe", "tests/fixtures/tiny-mixtral-window"}) {
    for (const std::int64_t chunk : {1000, 5})
      cases.push_back({source / folder, chunk, std::string(folder).starts_with("launch/")});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Models, ReferenceTest, ::testing::ValuesIn(all_cases()), case_name);

}  // namespace
}  // namespace aurora
