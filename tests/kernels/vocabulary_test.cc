// Sampling and routing at the sizes of real models: vocabularies beyond 150,000 tokens, hundreds of experts.
#include <algorithm>
#include <numeric>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

constexpr std::int64_t kVocabulary = 151936;

class Vocabulary : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Vocabulary, testing::ValuesIn(every_backend()), variant_name);

/// Probabilities of one row after temperature, top-k and top-p, each kept token with its own, in double; and
/// how much the limits of top-k and top-p and float32 weights may move any sum of them.
struct Kept {
  std::vector<double> probabilities;
  double tolerance = 0;
};

Kept keep(const float* logits, const SamplingRow& row) {
  std::vector<std::size_t> order(kVocabulary);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  const auto weight = [&](std::size_t id) {
    return std::exp((static_cast<double>(logits[id]) - static_cast<double>(logits[order.front()])) /
                    static_cast<double>(row.temperature));
  };
  std::size_t num_kept = row.top_k > 0 ? static_cast<std::size_t>(row.top_k) : order.size();
  double total = 0;
  for (std::size_t i = 0; i < num_kept; ++i) total += weight(order[i]);
  if (row.top_p < 1) {
    double dropped = 0;
    const double most = (1 - static_cast<double>(row.top_p)) * total;
    while (num_kept > 1 && dropped + weight(order[num_kept - 1]) <= most)
      dropped += weight(order[--num_kept]);
    total -= dropped;
  }
  Kept kept{std::vector<double>(kVocabulary), 0};
  for (std::size_t i = 0; i < num_kept; ++i) kept.probabilities[order[i]] = weight(order[i]) / total;
  // Float32 weights are off by 4 roundings and by the rounding of the exponent; the last kept token may fall.
  const double span =
      (static_cast<double>(logits[order.front()]) - static_cast<double>(logits[order.back()])) /
      static_cast<double>(row.temperature);
  kept.tolerance = (4 + 2 * span) * kUnitRoundoff + 2 * kept.probabilities[order[num_kept - 1]];
  return kept;
}

TEST_P(Vocabulary, ADrawLiesWhereItsRandomNumberPoints) {
  Random random(141);
  std::vector<SamplingRow> rows;
  for (const std::int32_t top_k : {0, 50}) {
    for (const float top_p : {1.0F, 0.9F}) {
      for (const float temperature : {0.7F, 1.0F}) {
        rows.push_back({temperature, top_k, top_p, static_cast<float>(random.below(1 << 20)) / (1 << 20)});
      }
    }
  }
  const auto num_rows = static_cast<std::int64_t>(rows.size());
  std::vector<float> logits = random.normals(num_rows * kVocabulary);
  for (float& logit : logits) logit *= 3;
  std::vector<std::int32_t> ids(rows.size(), -1);
  device().run(&Ops::sample, SampleArgs{view(logits, {num_rows, kVocabulary}), rows, view(ids, {num_rows})});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Kept kept = keep(logits.data() + static_cast<std::int64_t>(i) * kVocabulary, rows[i]);
    ASSERT_TRUE(ids[i] >= 0 && ids[i] < kVocabulary);
    const double before =
        std::accumulate(kept.probabilities.begin(), kept.probabilities.begin() + ids[i], 0.0);
    const double own = kept.probabilities[static_cast<std::size_t>(ids[i])];
    EXPECT_GE(static_cast<double>(rows[i].random), before - kept.tolerance) << "row " << i;
    EXPECT_LE(static_cast<double>(rows[i].random), before + own + kept.tolerance) << "row " << i;
  }
}

TEST_P(Vocabulary, GreedyTakesTheFirstOfEqualLargestLogits) {
  std::vector<float> logits(2 * kVocabulary, -1.0F);
  logits[kVocabulary - 1] = 2;
  for (const std::int64_t id : {kVocabulary - 1, std::int64_t{100000}, std::int64_t{131072}}) {
    logits[static_cast<std::size_t>(kVocabulary + id)] = 0.5F;
  }
  const std::vector<SamplingRow> rows(2);
  std::vector<std::int32_t> ids(2, -1);
  device().run(&Ops::sample, SampleArgs{view(logits, {2, kVocabulary}), rows, view(ids, {2})});
  EXPECT_EQ(ids, (std::vector<std::int32_t>{kVocabulary - 1, 100000}));
}

TEST_P(Vocabulary, TheRouterChoosesAmongHundredsOfExpertsForAnyNumberOfTokens) {
  Random random(142);
  const std::int64_t num_experts = 512, top_k = 22;
  for (const std::int64_t num_tokens : {0, 1, 3, 4, 5, 257}) {
    std::vector<float> logits = random.normals(num_tokens * num_experts);
    for (float& logit : logits) logit = std::round(8 * logit) / 8;  // many ties
    std::vector<std::int32_t> ids(static_cast<std::size_t>(num_tokens * top_k));
    std::vector<float> weights(ids.size());
    device().run(&Ops::route, RouteArgs{.logits = view(logits, {num_tokens, num_experts}),
                                        .expert_ids = view(ids, {num_tokens, top_k}),
                                        .weights = view(weights, {num_tokens, top_k})});
    for (std::int64_t token = 0; token < num_tokens; ++token) {
      const float* row = logits.data() + token * num_experts;
      std::vector<std::int32_t> order(static_cast<std::size_t>(num_experts));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return row[a] > row[b]; });
      ASSERT_TRUE(std::equal(order.begin(), order.begin() + top_k, ids.begin() + token * top_k));
      const double sum =
          std::accumulate(weights.begin() + token * top_k, weights.begin() + (token + 1) * top_k, 0.0);
      ASSERT_NEAR(sum, 1.0, gamma(2 * top_k));
    }
  }
}

}  // namespace
}  // namespace aurora::kernel_test
