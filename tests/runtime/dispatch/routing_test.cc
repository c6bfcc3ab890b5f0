// Routing against a direct count: every (token, expert) pair reaches one rank that hosts the expert, each
// token travels once per rank, and what comes back is summed into the right token.
#include "runtime/dispatch/routing.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>

#include "kernels/error.h"
#include "runtime/dispatch/exchange_plan.h"
#include "tests/support/random_placement.h"

namespace aurora {
namespace {

struct RoutingCase {
  int num_tokens, num_experts, top_k, num_ranks, max_replicas;
};

/// Stands for the network and the experts: what `expert` makes of `token`, an integer so that sums are exact.
double expert_value(int token, int expert) { return token * 1000 + expert; }

class RoutingTest : public ::testing::TestWithParam<std::tuple<RoutingCase, ReturnMode>> {
 protected:
  void SetUp() override {
    const auto& [shape, mode] = GetParam();
    std::mt19937 random(20250 + shape.num_tokens * 7 + shape.num_ranks);
    placement_ = test::random_placement(shape.num_experts, shape.num_ranks, shape.max_replicas, random);
    ids_ = test::random_expert_ids(shape.num_tokens, shape.num_experts, shape.top_k, random);
    for (std::size_t pair = 0; pair < ids_.size(); ++pair)
      weights_.push_back(static_cast<float>(1 + pair % 8) / 8);
    route_tokens({ids_, weights_, shape.top_k, &placement_, shape.num_ranks, mode}, routing_);
  }

  /// The rows of one destination as they would arrive there.
  std::vector<std::byte> message(const RowLayout& layout, int rank) const {
    const auto first = static_cast<std::size_t>(routing_.row_offsets[rank]);
    const auto count = static_cast<std::size_t>(routing_.row_offsets[rank + 1]) - first;
    const auto top_k = static_cast<std::size_t>(layout.top_k());
    std::vector<std::byte> bytes(count * layout.row_bytes());
    for (std::size_t row = 0; row < count; ++row) {
      std::memcpy(bytes.data() + row * layout.row_bytes() + layout.header_offset(),
                  &routing_.entries[(first + row) * top_k], top_k * sizeof(RowEntry));
    }
    return bytes;
  }

  LayerPlacement placement_;
  std::vector<std::int32_t> ids_;
  std::vector<float> weights_;
  SourceRouting routing_;
};

TEST_P(RoutingTest, EveryPairReachesOneHostAndEachTokenTravelsOncePerRank) {
  const auto& [shape, mode] = GetParam();
  std::multiset<std::pair<int, int>> arrived;
  for (int rank = 0; rank < shape.num_ranks; ++rank) {
    std::set<int> tokens;
    int num_pairs = 0;
    for (int row = routing_.row_offsets[rank]; row < routing_.row_offsets[rank + 1]; ++row) {
      const int token = routing_.row_tokens[row];
      EXPECT_TRUE(tokens.insert(token).second)
          << "token " << token << " travels to rank " << rank << " twice";
      for (int k = 0; k < shape.top_k; ++k) {
        const RowEntry& entry = routing_.entries[row * shape.top_k + k];
        if (entry.expert < 0) continue;
        EXPECT_TRUE(placement_.hosts(GpuId{rank}, ExpertId{entry.expert}));
        arrived.insert({token, entry.expert});
        ++num_pairs;
      }
    }
    EXPECT_EQ(num_pairs, routing_.pair_offsets[rank + 1] - routing_.pair_offsets[rank]);
  }
  std::multiset<std::pair<int, int>> sent;
  for (std::size_t pair = 0; pair < ids_.size(); ++pair)
    sent.insert({static_cast<int>(pair) / shape.top_k, ids_[pair]});
  EXPECT_EQ(arrived, sent);
}

TEST_P(RoutingTest, TheRoundTripSumsEachTokensExperts) {
  const auto& [shape, mode] = GetParam();
  const RowLayout layout(4, DType::kFloat32, shape.top_k);
  std::vector<double> returned;
  for (int rank = 0; rank < shape.num_ranks; ++rank) {
    std::vector<std::int32_t> local_index(static_cast<std::size_t>(shape.num_experts), -1);
    const auto hosted = placement_.experts_on(GpuId{rank});
    for (std::size_t i = 0; i < hosted.size(); ++i)
      local_index[hosted[i].value] = static_cast<std::int32_t>(i);
    ReceivedRouting received;
    group_received_rows(message(layout, rank), layout, local_index, static_cast<int>(hosted.size()),
                        received);
    std::vector<double> outputs(received.row_indices.size());
    for (std::size_t expert = 0; expert < hosted.size(); ++expert) {
      for (int p = received.expert_offsets[expert]; p < received.expert_offsets[expert + 1]; ++p) {
        const int token = routing_.row_tokens[routing_.row_offsets[rank] + received.row_indices[p]];
        outputs[p] = expert_value(token, hosted[expert].value);
      }
    }
    for (std::size_t row = 0; row + 1 < received.term_offsets.size(); ++row) {
      double sum = 0;
      for (int term = received.term_offsets[row]; term < received.term_offsets[row + 1]; ++term) {
        const double value = outputs[received.term_indices[term]];
        if (mode == ReturnMode::kPerPair) returned.push_back(value);
        sum += value * received.term_weights[term];
      }
      if (mode == ReturnMode::kPerRow) returned.push_back(sum);
    }
  }
  for (int token = 0; token < shape.num_tokens; ++token) {
    double expected = 0;
    for (int k = 0; k < shape.top_k; ++k) {
      const std::size_t pair = static_cast<std::size_t>(token * shape.top_k + k);
      expected += weights_[pair] * expert_value(token, ids_[pair]);
    }
    double sum = 0;
    for (int term = routing_.term_offsets[token]; term < routing_.term_offsets[token + 1]; ++term) {
      const double weight = mode == ReturnMode::kPerPair ? routing_.term_weights[term] : 1;
      sum += weight * returned[routing_.term_indices[term]];
    }
    EXPECT_EQ(sum, expected) << "token " << token;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, RoutingTest,
    ::testing::Combine(::testing::Values(RoutingCase{0, 8, 2, 4, 1}, RoutingCase{1, 8, 2, 1, 1},
                                         RoutingCase{64, 8, 2, 8, 1}, RoutingCase{65, 16, 4, 5, 3},
                                         RoutingCase{300, 64, 6, 8, 2}, RoutingCase{33, 5, 5, 3, 3},
                                         RoutingCase{40, 3, 1, 8, 1}),
                       ::testing::Values(ReturnMode::kPerRow, ReturnMode::kPerPair)));

TEST(ReplicaShares, AreMetWithinOnePercentOverTenThousandTokens) {
  LayerPlacement placement;
  placement.experts = {{{GpuId{0}, 0.5}, {GpuId{1}, 0.3}, {GpuId{2}, 0.2}}};
  const std::vector<std::int32_t> ids(10000, 0);
  const std::vector<float> weights(10000, 1.0F);
  SourceRouting routing;
  route_tokens({ids, weights, 1, &placement, 3, ReturnMode::kPerRow}, routing);
  EXPECT_NEAR(routing.row_offsets[1], 5000, 50);
  EXPECT_NEAR(routing.row_offsets[2] - routing.row_offsets[1], 3000, 30);
}

TEST(ReceivedRows, ThatNameAForeignExpertAreRefused) {
  const RowLayout layout(1, DType::kFloat32, 1);
  std::vector<std::byte> row(layout.row_bytes());
  const RowEntry entry{7, 1.0F};
  std::memcpy(row.data() + layout.header_offset(), &entry, sizeof(entry));
  ReceivedRouting routing;
  const std::vector<std::int32_t> local_index(8, -1);
  EXPECT_THROW(group_received_rows(row, layout, local_index, 0, routing), Error);
}

TEST(RowLayout, KeepsHeadersAlignedForOddWidths) {
  for (const std::int64_t hidden : {1, 3, 127, 128, 2049}) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      const RowLayout layout(hidden, dtype, 3);
      EXPECT_GE(layout.header_offset(), static_cast<std::size_t>(hidden) * dtype_bytes(dtype));
      EXPECT_EQ(layout.header_offset() % 8, 0U);
      EXPECT_EQ(layout.row_bytes() % 16, 0U);
      EXPECT_GE(layout.row_bytes(), layout.header_offset() + 3 * sizeof(RowEntry));
    }
  }
}

}  // namespace
}  // namespace aurora
