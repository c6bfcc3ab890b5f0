// assign_rows against a naive loop over ranks and tokens, to the bit: integers and copies have no tolerance.
#include <algorithm>
#include <cmath>

#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

struct Shape {
  std::int64_t num_tokens, num_experts, top_k;
  std::int32_t num_ranks, max_replicas;
  bool is_skewed = false;  // all tokens choose the same experts
};

using Indices = std::vector<std::int32_t>;

/// A placement as the operation reads it.
struct Replicas {
  Indices offsets{0}, ranks, bounds, slots;

  /// Every expert on one to `max_replicas` random ranks, with random shares.
  Replicas(const Shape& shape, Random& random) {
    for (std::int64_t expert = 0; expert < shape.num_experts; ++expert) {
      Indices hosts(static_cast<std::size_t>(shape.num_ranks));
      for (std::size_t rank = 0; rank < hosts.size(); ++rank) hosts[rank] = static_cast<std::int32_t>(rank);
      std::ranges::shuffle(hosts, random.generator());
      hosts.resize(static_cast<std::size_t>(1 + random.below(std::min(shape.max_replicas, shape.num_ranks))));
      std::ranges::sort(hosts);
      std::int64_t bound = 0;
      for (std::size_t i = 0; i < hosts.size(); ++i) {
        bound += 1 + random.below((std::int64_t{1} << 31) / static_cast<std::int64_t>(hosts.size()) - 1);
        ranks.push_back(hosts[i]);
        bounds.push_back(static_cast<std::int32_t>(bound));
      }
      offsets.push_back(static_cast<std::int32_t>(ranks.size()));
    }
    // Replicas lie in the order of experts, so a stable sort by rank orders them by rank, then expert.
    Indices by_slot(ranks.size());
    for (std::size_t i = 0; i < by_slot.size(); ++i) by_slot[i] = static_cast<std::int32_t>(i);
    std::ranges::stable_sort(by_slot, {}, [&](std::int32_t replica) { return ranks[replica]; });
    slots.resize(ranks.size());
    for (std::size_t slot = 0; slot < slots.size(); ++slot)
      slots[by_slot[slot]] = static_cast<std::int32_t>(slot);
  }

  ReplicaTable table() {
    const auto count = static_cast<std::int64_t>(ranks.size());
    return {view(offsets, {static_cast<std::int64_t>(offsets.size())}), view(ranks, {count}),
            view(bounds, {count}), view(slots, {count})};
  }

  /// The rule of ReplicaTable, by division with remainder in floating point (exact at these sizes).
  std::int32_t choose(std::int32_t expert, std::int64_t token) const {
    const double point =
        std::floor(std::fmod(static_cast<double>(token + 1) * 2654435769.0, 4294967296.0) / 2);
    for (std::int32_t replica = offsets[expert]; replica < offsets[expert + 1]; ++replica) {
      if (point < bounds[replica]) return replica;
    }
    return offsets[expert + 1] - 1;
  }
};

/// What assign_rows writes.
struct Assigned {
  Indices counts, row_offsets, row_tokens, headers, term_offsets, term_indices;
};

struct Problem {
  Shape shape;
  Indices expert_ids;  // [num_tokens, top_k], distinct in a row
  std::vector<float> weights;
  Replicas replicas;

  Problem(const Shape& given, Random& random)
      : shape(given), weights(random.normals(given.num_tokens * given.top_k)), replicas(given, random) {
    Indices experts(static_cast<std::size_t>(shape.num_experts));
    for (std::size_t i = 0; i < experts.size(); ++i) experts[i] = static_cast<std::int32_t>(i);
    for (std::int64_t token = 0; token < shape.num_tokens; ++token) {
      if (!shape.is_skewed) std::ranges::shuffle(experts, random.generator());
      expert_ids.insert(expert_ids.end(), experts.begin(), experts.begin() + shape.top_k);
    }
  }

  std::size_t pair(std::int64_t token, std::int64_t k) const {
    return static_cast<std::size_t>(token * shape.top_k + k);
  }
  std::int64_t max_rows() const {
    return shape.num_tokens * std::min<std::int64_t>(shape.top_k, shape.num_ranks);
  }

  Assigned expected(bool terms_are_pairs) const {
    Assigned result;
    result.counts.assign(static_cast<std::size_t>(shape.num_ranks) + replicas.ranks.size(), 0);
    Indices row_ranks, pairs;  // rank of each row; (token, k) of each pair, in their order
    for (std::int32_t rank = 0; rank < shape.num_ranks; ++rank) {
      result.row_offsets.push_back(static_cast<std::int32_t>(row_ranks.size()));
      for (std::int64_t token = 0; token < shape.num_tokens; ++token) {
        Indices header;
        for (std::int64_t k = 0; k < shape.top_k; ++k) {
          const std::int32_t replica = replicas.choose(expert_ids[pair(token, k)], token);
          if (replicas.ranks[replica] != rank) continue;
          ++result.counts[static_cast<std::size_t>(shape.num_ranks + replicas.slots[replica])];
          header.push_back(expert_ids[pair(token, k)]);
          header.push_back(std::bit_cast<std::int32_t>(weights[pair(token, k)]));
          pairs.push_back(static_cast<std::int32_t>(pair(token, k)));
        }
        if (header.empty()) continue;
        while (header.size() < 2 * static_cast<std::size_t>(shape.top_k)) {
          header.push_back(-1);
          header.push_back(0);
        }
        ++result.counts[rank];
        row_ranks.push_back(rank);
        result.row_tokens.push_back(static_cast<std::int32_t>(token));
        result.headers.insert(result.headers.end(), header.begin(), header.end());
      }
    }
    result.row_offsets.push_back(static_cast<std::int32_t>(row_ranks.size()));
    fill_terms(terms_are_pairs, pairs, result);
    return result;
  }

  void fill_terms(bool terms_are_pairs, const Indices& pairs, Assigned& result) const {
    for (std::int64_t token = 0; token < shape.num_tokens; ++token) {
      result.term_offsets.push_back(static_cast<std::int32_t>(result.term_indices.size()));
      for (std::int64_t k = 0; terms_are_pairs && k < shape.top_k; ++k) {
        const auto found = std::ranges::find(pairs, static_cast<std::int32_t>(pair(token, k)));
        result.term_indices.push_back(static_cast<std::int32_t>(found - pairs.begin()));
      }
      for (std::size_t row = 0; !terms_are_pairs && row < result.row_tokens.size(); ++row) {
        if (result.row_tokens[row] == token) result.term_indices.push_back(static_cast<std::int32_t>(row));
      }
    }
    result.term_offsets.push_back(static_cast<std::int32_t>(result.term_indices.size()));
  }

  Assigned run(Device& device, bool terms_are_pairs) {
    Assigned result;
    const auto num_counts = static_cast<std::int64_t>(shape.num_ranks + replicas.ranks.size());
    const std::int64_t num_pairs = shape.num_tokens * shape.top_k;
    result.counts.assign(static_cast<std::size_t>(num_counts), 77);
    result.row_offsets.assign(static_cast<std::size_t>(shape.num_ranks) + 1, 77);
    result.row_tokens.resize(static_cast<std::size_t>(max_rows()));
    result.headers.resize(static_cast<std::size_t>(max_rows() * 2 * shape.top_k));
    result.term_offsets.resize(static_cast<std::size_t>(shape.num_tokens) + 1);
    result.term_indices.resize(static_cast<std::size_t>(num_pairs));
    std::vector<std::int32_t> scratch(
        device.ops().assign_rows_scratch_bytes(shape.num_tokens, shape.top_k, shape.num_ranks) / 4);
    device.run(&Ops::assign_rows,
               AssignRowsArgs{.expert_ids = view(expert_ids, {shape.num_tokens, shape.top_k}),
                              .weights = view(weights, {shape.num_tokens, shape.top_k}),
                              .replicas = replicas.table(),
                              .num_ranks = shape.num_ranks,
                              .terms_are_pairs = terms_are_pairs,
                              .scratch = view(scratch, {static_cast<std::int64_t>(scratch.size())}),
                              .counts = view(result.counts, {num_counts}),
                              .row_offsets = view(result.row_offsets, {shape.num_ranks + 1}),
                              .row_tokens = view(result.row_tokens, {max_rows()}),
                              .headers = view(result.headers, {max_rows(), 2 * shape.top_k}),
                              .term_offsets = view(result.term_offsets, {shape.num_tokens + 1}),
                              .term_indices = view(result.term_indices, {num_pairs})});
    const auto num_rows = static_cast<std::size_t>(result.row_offsets.back());
    result.row_tokens.resize(num_rows);
    result.headers.resize(num_rows * 2 * static_cast<std::size_t>(shape.top_k));
    result.term_indices.resize(static_cast<std::size_t>(result.term_offsets.back()));
    return result;
  }
};

void expect_the_loop(Device& device, const Shape& shape, Random& random) {
  Problem problem(shape, random);
  for (const bool terms_are_pairs : {false, true}) {
    SCOPED_TRACE(std::to_string(shape.num_tokens) + " tokens, " + std::to_string(shape.num_ranks) + " ranks" +
                 (terms_are_pairs ? ", pairs" : ""));
    const Assigned expected = problem.expected(terms_are_pairs);
    const Assigned found = problem.run(device, terms_are_pairs);
    EXPECT_EQ(found.counts, expected.counts);
    EXPECT_EQ(found.row_offsets, expected.row_offsets);
    EXPECT_EQ(found.row_tokens, expected.row_tokens);
    EXPECT_EQ(found.headers, expected.headers);
    EXPECT_EQ(found.term_offsets, expected.term_offsets);
    EXPECT_EQ(found.term_indices, expected.term_indices);
  }
}

class AssignRows : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, AssignRows, testing::ValuesIn(every_way()), variant_name);

TEST_P(AssignRows, EqualsTheLoopOverRanksAndTokens) {
  Random random(51);
  const std::vector<Shape> shapes{{1, 8, 2, 1, 1},    {1, 8, 8, 8, 3},          {31, 8, 2, 4, 2},
                                  {32, 16, 4, 5, 3},  {33, 5, 5, 3, 3},         {40, 3, 1, 8, 1},
                                  {64, 64, 8, 64, 2}, {256, 8, 2, 2, 1},        {257, 128, 8, 8, 2},
                                  {300, 64, 6, 8, 8}, {500, 16, 4, 4, 2, true}, {3000, 60, 4, 7, 2}};
  for (const Shape& shape : shapes) expect_the_loop(device(), shape, random);
}

// On a GPU one block assigns up to 2048 pairs, when its shared memory holds what it counts: by far not with
// 120 ranks.
TEST_P(AssignRows, EqualsTheLoopWhereOneBlockNoLongerTakesThemAll) {
  Random random(55);
  const std::vector<Shape> shapes{{255, 24, 8, 8, 2},        {256, 24, 8, 8, 2},   {257, 24, 8, 8, 2},
                                  {511, 32, 4, 1, 1},        {512, 32, 4, 1, 1},   {513, 32, 4, 1, 1},
                                  {256, 128, 8, 120, 2},     {1023, 32, 4, 1, 1},  {1024, 32, 4, 1, 1},
                                  {1025, 32, 4, 1, 1},       {1023, 24, 8, 8, 2},  {1024, 24, 8, 8, 2},
                                  {1025, 24, 8, 8, 2},       {1024, 80, 8, 15, 1}, {1024, 128, 8, 120, 2},
                                  {1024, 16, 4, 4, 2, true}, {5, 40, 32, 120, 3},  {2049, 33, 32, 3, 2}};
  for (const Shape& shape : shapes) expect_the_loop(device(), shape, random);
}

TEST_P(AssignRows, WithoutTokensAllCountsAreZero) {
  Random random(52);
  Problem problem({0, 8, 2, 3, 2}, random);
  const Assigned found = problem.run(device(), false);
  EXPECT_EQ(found.counts, Indices(found.counts.size(), 0));
  EXPECT_EQ(found.row_offsets, Indices(4, 0));
}

TEST_P(AssignRows, MeetsTheSharesWithinOnePercentOverTenThousandTokens) {
  Random random(53);
  Problem problem({10000, 1, 1, 3, 3}, random);
  const double unit = 0x1p31;
  problem.replicas.offsets = {0, 3};
  problem.replicas.ranks = {0, 1, 2};
  problem.replicas.bounds = {static_cast<std::int32_t>(0.5 * unit), static_cast<std::int32_t>(0.8 * unit), 0};
  problem.replicas.slots = {0, 1, 2};
  const Assigned found = problem.run(device(), false);
  EXPECT_NEAR(found.counts[0], 5000, 50);
  EXPECT_NEAR(found.counts[1], 3000, 30);
  EXPECT_EQ(found.counts[0] + found.counts[1] + found.counts[2], 10000);
}

TEST_P(AssignRows, AnExpertOutOfRangeIsNamed) {
  Random random(54);
  Problem problem({40, 8, 2, 3, 2}, random);
  for (const std::int32_t bad : {-1, 8}) {
    problem.expert_ids[67] = bad;
    expect_error(ErrorKind::kInternal,
                 "assign_rows: expert_ids[67] is " + std::to_string(bad) + ", must be in [0, 8)",
                 [&] { problem.run(*std::make_unique<Device>(make_device()), false); });
  }
}

}  // namespace
}  // namespace aurora::kernel_test
