#include <algorithm>
#include <numeric>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

struct Routed {
  std::vector<std::int32_t> ids;
  std::vector<float> weights;
};

struct Options {
  RouterScoring scoring = RouterScoring::kSoftmax;
  bool normalize = true;
};

Routed route(Device& device, std::vector<float> logits, std::int64_t num_experts, std::int64_t top_k,
             const Options& options, const std::vector<std::int32_t>* given = nullptr) {
  const auto num_tokens = static_cast<std::int64_t>(logits.size()) / num_experts;
  Routed routed;
  routed.ids.assign(static_cast<std::size_t>(num_tokens * top_k), -1);
  if (given != nullptr) routed.ids = *given;
  routed.weights.resize(routed.ids.size());
  device.run(&Ops::route, RouteArgs{.logits = view(logits, {num_tokens, num_experts}),
                                    .scoring = options.scoring,
                                    .normalize = options.normalize,
                                    .ids_are_given = given != nullptr,
                                    .expert_ids = view(routed.ids, {num_tokens, top_k}),
                                    .weights = view(routed.weights, {num_tokens, top_k})});
  return routed;
}

// Scores of one token in double.
std::vector<double> exact_scores(const float* logits, std::int64_t num_experts, RouterScoring scoring) {
  std::vector<double> scores(logits, logits + num_experts);
  if (scoring == RouterScoring::kSigmoid) {
    for (double& score : scores) score = 1 / (1 + std::exp(-score));
    return scores;
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - largest);
  for (double& score : scores) score /= total;
  return scores;
}

void check_weights(const std::vector<float>& logits, std::int64_t num_experts, std::int64_t top_k,
                   const Options& options, const Routed& routed) {
  // exp twice as wrong as 2 ulp allow, the subtraction of the largest logit (magnified by its size), the
  // sums.
  double largest = 0;
  for (const float logit : logits) largest = std::max(largest, std::fabs(static_cast<double>(logit)));
  const double relative = gamma(2 * num_experts + 20) + 4 * largest * kUnitRoundoff;
  for (std::size_t token = 0; token * static_cast<std::size_t>(num_experts) < logits.size(); ++token) {
    const auto scores = exact_scores(logits.data() + token * static_cast<std::size_t>(num_experts),
                                     num_experts, options.scoring);
    double sum = 0;
    for (std::int64_t k = 0; k < top_k; ++k) {
      sum += scores[static_cast<std::size_t>(
          routed.ids[token * static_cast<std::size_t>(top_k) + static_cast<std::size_t>(k)])];
    }
    for (std::int64_t k = 0; k < top_k; ++k) {
      const std::size_t at = token * static_cast<std::size_t>(top_k) + static_cast<std::size_t>(k);
      const double exact = scores[static_cast<std::size_t>(routed.ids[at])] / (options.normalize ? sum : 1.0);
      ASSERT_LE(std::fabs(static_cast<double>(routed.weights[at]) - exact), relative * exact)
          << "token " << token;
    }
  }
}

class Route : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Route, testing::ValuesIn(every_backend()), variant_name);

TEST_P(Route, ChoosesTheLargestScoresAndWeighsThem) {
  Random random(71);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const RouterScoring scoring : {RouterScoring::kSoftmax, RouterScoring::kSigmoid}) {
      for (const bool normalize : {false, true}) {
        for (const auto& [num_experts, top_k] : std::vector<std::pair<std::int64_t, std::int64_t>>{
                 {1, 1}, {2, 2}, {8, 2}, {15, 4}, {16, 4}, {17, 17}, {64, 6}, {160, 8}}) {
          const std::int64_t num_tokens = 9;
          const std::vector<float> logits = random.normals(num_tokens * num_experts);
          const Options options{scoring, normalize};
          const Routed routed = route(device(), logits, num_experts, top_k, options);
          check_weights(logits, num_experts, top_k, options, routed);
          for (std::int64_t token = 0; token < num_tokens; ++token) {
            const float* row = logits.data() + token * num_experts;
            std::vector<std::int32_t> order(static_cast<std::size_t>(num_experts));
            std::iota(order.begin(), order.end(), 0);
            std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return row[a] > row[b]; });
            EXPECT_TRUE(std::equal(order.begin(), order.begin() + top_k, routed.ids.begin() + token * top_k));
          }
        }
      }
    }
  });
}

TEST_P(Route, TiesGoToTheLowerExpert) {
  const Routed routed = route(device(), {1, 3, 3, 0, 3, 1, 5, 5, 5, 5, 5, 5}, 6, 4, {});
  EXPECT_EQ(routed.ids, (std::vector<std::int32_t>{1, 2, 4, 0, 0, 1, 2, 3}));
  EXPECT_EQ(routed.weights[0], routed.weights[1]);
  EXPECT_EQ(routed.weights[4], 0.25F);
}

TEST_P(Route, LogitsWhoseScoresRoundAlikeKeepTheirOrder) {
  // Both sigmoids are 1 in float32.
  EXPECT_EQ(route(device(), {30, 40, 35, -1}, 4, 3, {RouterScoring::kSigmoid, true}).ids,
            (std::vector<std::int32_t>{1, 2, 0}));
}

TEST_P(Route, GivenIdsAreKeptAndWeighed) {
  Random random(72);
  const std::vector<float> logits = random.normals(5 * 12);
  std::vector<std::int32_t> given;
  for (int token = 0; token < 5; ++token) {
    for (const std::int32_t id : {11, token, 6 + token % 3}) given.push_back(id);
  }
  for (const RouterScoring scoring : {RouterScoring::kSoftmax, RouterScoring::kSigmoid}) {
    for (const bool normalize : {false, true}) {
      const Routed routed = route(device(), logits, 12, 3, {scoring, normalize}, &given);
      EXPECT_EQ(routed.ids, given);
      check_weights(logits, 12, 3, {scoring, normalize}, routed);
    }
  }
  given[4] = 12;
  expect_error(ErrorKind::kInternal, "expert_ids[4] is 12",
               [&] { route(device(), logits, 12, 3, {}, &given); });
}

TEST_P(Route, TheWeightsOfATokenDoNotDependOnItsNeighbours) {
  Random random(73);
  const std::vector<float> logits = random.normals(64 * 16);
  const Routed all = route(device(), logits, 16, 4, {});
  for (std::ptrdiff_t token = 0; token < 64; ++token) {
    const Routed alone =
        route(device(), {logits.begin() + token * 16, logits.begin() + (token + 1) * 16}, 16, 4, {});
    EXPECT_TRUE(std::equal(alone.ids.begin(), alone.ids.end(), all.ids.begin() + token * 4));
    EXPECT_TRUE(std::equal(alone.weights.begin(), alone.weights.end(), all.weights.begin() + token * 4));
  }
}

TEST_P(Route, AllScoresZeroGivesFiniteWeights) {
  const std::vector<float> logits(4, -1000.0F);
  const Routed sigmoid = route(device(), logits, 4, 2, {RouterScoring::kSigmoid, true});
  for (const float weight : sigmoid.weights) EXPECT_TRUE(std::isfinite(weight));
  EXPECT_EQ(sigmoid.ids, (std::vector<std::int32_t>{0, 1}));
}

TEST_P(Route, NaNRanksLowestAndIdsStayValid) {
  const float nan = std::nanf("");
  EXPECT_EQ(route(device(), {nan, 1, nan, 2}, 4, 3, {}).ids, (std::vector<std::int32_t>{3, 1, 0}));
  EXPECT_EQ(route(device(), {nan, nan, nan, nan}, 4, 2, {}).ids, (std::vector<std::int32_t>{0, 1}));
}

TEST_P(Route, MoreChoicesThanExpertsAreRefused) {
  expect_error(ErrorKind::kInternal, "top_k exceeds", [&] { route(device(), {1, 2}, 2, 3, {}); });
}

}  // namespace
}  // namespace aurora::kernel_test
