#include <algorithm>
#include <map>
#include <numeric>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

std::vector<std::int32_t> sample(Device& device, std::vector<float> logits,
                                 const std::vector<SamplingRow>& rows) {
  const auto num_rows = static_cast<std::int64_t>(rows.size());
  const std::int64_t vocabulary = static_cast<std::int64_t>(logits.size()) / num_rows;
  std::vector<std::int32_t> ids(rows.size(), -1);
  device.run(&Ops::sample, SampleArgs{view(logits, {num_rows, vocabulary}), rows, view(ids, {num_rows})});
  return ids;
}

// The probabilities by the rules of Hugging Face generation, in double: temperature, then top-k (what equals
// the k-th stays), then softmax and top-p (drop the least likely while they sum to at most 1 - p).
std::vector<double> exact_probabilities(const std::vector<float>& logits, const SamplingRow& row) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  for (const float logit : logits) {
    p.push_back(std::exp((static_cast<double>(logit) - largest) / static_cast<double>(row.temperature)));
  }
  if (row.top_k > 0 && row.top_k < static_cast<std::int32_t>(p.size())) {
    std::vector<double> sorted = p;
    std::sort(sorted.rbegin(), sorted.rend());
    for (double& value : p) value = value < sorted[static_cast<std::size_t>(row.top_k - 1)] ? 0 : value;
  }
  const auto normalize = [&] {
    const double total = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& value : p) value /= total;
  };
  normalize();
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] != p[b] ? p[a] < p[b] : a > b; });
  double dropped = 0;
  for (std::size_t i = 0; i + 1 < order.size() && row.top_p < 1; ++i) {
    dropped += p[order[i]];
    if (dropped > 1 - static_cast<double>(row.top_p)) break;
    p[order[i]] = 0;
  }
  normalize();
  return p;
}

// Draws at `count` evenly spaced random numbers: each token must come up count * p times, give or take the
// ends.
void check_distribution(Device& device, const std::vector<float>& logits, SamplingRow row) {
  constexpr int kCount = 20000;
  const std::vector<double> expected = exact_probabilities(logits, row);
  std::vector<SamplingRow> rows;
  std::vector<float> repeated;
  for (int i = 0; i < kCount; ++i) {
    row.random = (static_cast<float>(i) + 0.5F) / kCount;
    rows.push_back(row);
    repeated.insert(repeated.end(), logits.begin(), logits.end());
  }
  std::map<std::int32_t, int> counts;
  for (const std::int32_t id : sample(device, repeated, rows)) ++counts[id];
  // A boundary between tokens moves by float32 roundings of the weights: well below one draw.
  for (std::size_t id = 0; id < expected.size(); ++id) {
    EXPECT_NEAR(counts[static_cast<std::int32_t>(id)], expected[id] * kCount, 2.0) << "token " << id;
  }
}

class Sample : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, Sample, testing::ValuesIn(every_backend()), variant_name);

TEST_P(Sample, GreedyTakesTheLargestLogitAndTheLowerOfTwo) {
  Random random(101);
  for_each_isa(device(), [&](cpu::Isa) {
    for (const std::int64_t vocabulary : {1, 15, 16, 17, 2048, 2051}) {
      std::vector<float> logits = random.normals(3 * vocabulary);
      for (float& logit : logits) logit = std::round(4 * logit);  // many ties
      const std::vector<std::int32_t> ids = sample(device(), logits, std::vector<SamplingRow>(3));
      for (std::ptrdiff_t row = 0; row < 3; ++row) {
        const auto begin = logits.begin() + row * vocabulary;
        EXPECT_EQ(ids[static_cast<std::size_t>(row)], std::max_element(begin, begin + vocabulary) - begin);
      }
    }
  });
}

TEST_P(Sample, FollowsTheDistributionOfEveryCombinationOfFilters) {
  Random random(102);
  const std::vector<float> logits = random.normals(23);
  for (const float temperature : {0.3F, 1.0F, 4.0F}) {
    for (const std::int32_t top_k : {0, 1, 5, 22, 23, 1000}) {
      for (const float top_p : {1.0F, 0.9F, 0.5F, 0.01F}) {
        SCOPED_TRACE(std::to_string(temperature) + " " + std::to_string(top_k) + " " + std::to_string(top_p));
        check_distribution(device(), logits, {temperature, top_k, top_p, 0});
      }
    }
  }
}

TEST_P(Sample, TopKKeepsAllThatEqualTheLast) {
  check_distribution(device(), {2, 1, 1, 1, 0, -1}, {1.0F, 2, 1.0F, 0});
}

TEST_P(Sample, TopPKeepsTheLowerOfEqualTokens) {
  // Four equal tokens; 1 - p = 0.3 lets exactly one go, the highest id.
  check_distribution(device(), {1, 1, 1, 1}, {1.0F, 0, 0.7F, 0});
  EXPECT_EQ(sample(device(), {1, 1, 1, 1}, {{1.0F, 0, 0.7F, 0.9999F}}).front(), 2);
}

TEST_P(Sample, RandomNumbersAtTheEndsStayInRange) {
  EXPECT_EQ(sample(device(), {0, 0, 0}, {{1.0F, 0, 1.0F, 0.0F}}).front(), 0);
  EXPECT_EQ(sample(device(), {0, 0, 0}, {{1.0F, 0, 1.0F, std::nextafter(1.0F, 0.0F)}}).front(), 2);
}

TEST_P(Sample, RowsAreDrawnEachByItsOwnRule) {
  Random random(103);
  const std::vector<float> logits = random.normals(4 * 50);
  const std::vector<SamplingRow> rows{{0, 0, 1, 0}, {1, 0, 1, 0.3F}, {0.5F, 3, 1, 0.9F}, {2, 0, 0.4F, 0.6F}};
  const std::vector<std::int32_t> together = sample(device(), logits, rows);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(i) * 50;
    EXPECT_EQ(sample(device(), {begin, begin + 50}, {rows[i]}).front(), together[i]);
  }
}

TEST_P(Sample, AVeryLowTemperatureIsGreedy) {
  Random random(104);
  const std::vector<float> logits = random.normals(100);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  for (const float random_number : {0.0F, 0.5F, 0.999F}) {
    EXPECT_EQ(sample(device(), logits, {{1e-30F, 0, 1.0F, random_number}}).front(), best);
  }
}

TEST_P(Sample, MinusInfinityAndNaNAreNeverChosen) {
  const float none = -std::numeric_limits<float>::infinity();
  for (const float random_number : {0.0F, 0.5F, 0.999F}) {
    EXPECT_EQ(sample(device(), {none, std::nanf(""), 1, none}, {{1.0F, 0, 1.0F, random_number}}).front(), 2);
  }
  EXPECT_EQ(sample(device(), {std::nanf(""), 1, 3, none}, {{}}).front(), 2);
}

TEST_P(Sample, ARowWithoutANumberIsRefusedByItsIndex) {
  expect_error(ErrorKind::kInvalidArgument, "row 1", [&] {
    sample(device(), {1, 2, std::nanf(""), -std::numeric_limits<float>::infinity()}, {{}, {}});
  });
}

TEST(SampleOnAWorkerStream, CopiesTheRowsAtSubmission) {
  Device device({.worker_streams = true});
  std::vector<float> logits{0, 1, 5, 5};
  std::vector<std::int32_t> ids(2, -1);
  {
    std::vector<SamplingRow> rows(2);
    device.ops().sample(device.stream(), {view(logits, {2, 2}), rows, view(ids, {2})});
    rows.assign(2, {1.0F, 0, 1.0F, 0.9F});
  }
  device.finish();
  EXPECT_EQ(ids, (std::vector<std::int32_t>{1, 0}));
}

}  // namespace
}  // namespace aurora::kernel_test
