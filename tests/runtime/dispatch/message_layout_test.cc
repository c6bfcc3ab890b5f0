// Counts, messages and placement tables against direct counts over the plan.
#include "runtime/dispatch/message_layout.h"

#include <gtest/gtest.h>

#include <chrono>
#include <iostream>
#include <random>

#include "kernels/backend_registry.h"
#include "runtime/dispatch/dispatch_counts.h"
#include "runtime/dispatch/placement_table.h"
#include "scheduler/replica_shares.h"
#include "tests/support/random_placement.h"

namespace aurora {
namespace {

Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(60); }

class PlacementTableTest : public ::testing::TestWithParam<int> {
 protected:
  static constexpr int kNumExperts = 13;

  void SetUp() override {
    const auto seed = 77U + static_cast<std::uint32_t>(GetParam());
    std::cout << "seed " << seed << '\n';
    std::mt19937 random(seed);
    placement_ = test::random_placement(kNumExperts, GetParam(), 3, random);
    backend_ = create_backend("cpu", {});
    stream_ = backend_->create_stream();
  }

  PlacementTable table_of(int rank) {
    PlacementTable table(placement_, {rank, GetParam()}, *backend_, *stream_);
    stream_->synchronize(soon());
    return table;
  }

  LayerPlacement placement_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
};

TEST_P(PlacementTableTest, ListsReplicasByExpertAndSlotsByRank) {
  for (int rank = 0; rank < GetParam(); ++rank) {
    const PlacementTable table = table_of(rank);
    const ReplicaTable& replicas = table.replicas();
    std::vector<int> experts_by_slot(static_cast<std::size_t>(table.num_slots()), -1);
    int num_replicas = 0;
    for (int expert = 0; expert < kNumExperts; ++expert) {
      const auto& planned = placement_.experts[expert];
      EXPECT_EQ(replicas.offsets.i32()[expert], num_replicas);
      const std::vector<double> shares = shares_from(planned, GpuId{rank}, GetParam());
      double share = 0;
      for (std::size_t index = 0; index < planned.size(); ++index) {
        const ExpertReplica& replica = planned[index];
        share += shares[index];
        EXPECT_EQ(replicas.ranks.i32()[num_replicas], replica.gpu.value);
        EXPECT_NEAR(replicas.bounds.i32()[num_replicas] * 0x1p-31, share, 0x1p-31);
        experts_by_slot[replicas.slots.i32()[num_replicas]] = expert;
        ++num_replicas;
      }
    }
    EXPECT_EQ(table.num_slots(), num_replicas);
    for (int peer = 0; peer < GetParam(); ++peer) {
      const auto hosted = placement_.experts_on(GpuId{peer});
      const std::int32_t first = table.slot_offsets()[peer];
      ASSERT_EQ(table.slot_offsets()[peer + 1] - first, static_cast<int>(hosted.size()));
      for (std::size_t i = 0; i < hosted.size(); ++i) {
        EXPECT_EQ(experts_by_slot[first + static_cast<int>(i)], hosted[i].value);
        if (peer != rank) continue;
        EXPECT_EQ(table.local_index().i32()[hosted[i].value], static_cast<int>(i));
      }
    }
    for (int expert = 0; expert < kNumExperts; ++expert) {
      EXPECT_EQ(table.local_index().i32()[expert] >= 0, placement_.hosts(GpuId{rank}, ExpertId{expert}));
    }
  }
}

TEST_P(PlacementTableTest, CountsByRankAndSlotGiveTheMatrix) {
  const int num_ranks = GetParam();
  const PlacementTable table = table_of(0);
  DispatchCounts counts(*backend_);
  counts.reset(table);
  // Rank s announces 100 s + r rows for rank r and s + slot pairs for each slot.
  for (int source = 0; source < num_ranks; ++source) {
    const auto mine = counts.of_rank(source);
    for (int rank = 0; rank < num_ranks; ++rank) mine[rank] = 100 * source + rank;
    for (int slot = 0; slot < table.num_slots(); ++slot) mine[num_ranks + slot] = source + slot;
  }
  const CountMatrix matrix = counts.matrix();
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::int32_t first = table.slot_offsets()[rank];
    const auto num_experts = static_cast<int>(placement_.experts_on(GpuId{rank}).size());
    for (int source = 0; source < num_ranks; ++source) {
      EXPECT_EQ(matrix.at(source, rank).rows, 100 * source + rank);
      int pairs = 0;
      for (int local = 0; local < num_experts; ++local) pairs += source + first + local;
      EXPECT_EQ(matrix.at(source, rank).pairs, pairs);
    }
  }
}

TEST_P(PlacementTableTest, AReplicaOutsideTheRanksIsNamed) {
  placement_.experts[4] = {{GpuId{GetParam()}, 1.0}};
  try {
    table_of(0);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    const std::string rank = std::to_string(GetParam());
    EXPECT_NE(std::string(error.what()).find("expert 4 is placed on rank " + rank + " of " + rank),
              std::string::npos)
        << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, PlacementTableTest, ::testing::Values(1, 2, 5));

TEST(MessageLayout, LaysMessagesSideBySideAndOwnRowsFirst) {
  CountMatrix counts(3);
  counts.row(0)[0] = {1, 2};
  counts.row(0)[1] = {3, 4};
  counts.row(0)[2] = {5, 7};
  counts.row(1)[0] = {2, 2};
  counts.row(1)[1] = {6, 9};
  counts.row(1)[2] = {4, 5};
  counts.row(2)[0] = {8, 8};
  counts.row(2)[1] = {1, 3};
  counts.row(2)[2] = {7, 7};
  const RowLayout layout(4, DType::kFloat32, 2);
  ASSERT_EQ(layout.row_bytes(), 32U);
  ASSERT_EQ(layout.return_row_bytes(), 16U);
  using Offsets = std::vector<std::size_t>;
  const MessageLayout rows = lay_out_messages(counts, 1, layout, ReturnMode::kPerRow);
  EXPECT_EQ(rows.sent.rows, 12);
  EXPECT_EQ(rows.sent.pairs, 16);
  EXPECT_EQ(rows.first_own_row, 2);
  EXPECT_EQ(rows.own.rows, 6);
  EXPECT_EQ(rows.received.rows, 10);
  EXPECT_EQ(rows.received.pairs, 16);
  EXPECT_EQ(rows.send_offsets, (Offsets{0, 2 * 32, 8 * 32}));
  EXPECT_EQ(rows.receive_offsets, (Offsets{6 * 32, 0, 9 * 32}));
  EXPECT_EQ(rows.return_send_offsets, (Offsets{6 * 16, 0, 9 * 16}));
  EXPECT_EQ(rows.returned_offsets, (Offsets{0, 2 * 16, 8 * 16}));
  const MessageLayout pairs = lay_out_messages(counts, 1, layout, ReturnMode::kPerPair);
  EXPECT_EQ(pairs.receive_offsets, rows.receive_offsets);
  EXPECT_EQ(pairs.return_send_offsets, (Offsets{9 * 16, 0, 13 * 16}));
  EXPECT_EQ(pairs.returned_offsets, (Offsets{0, 2 * 16, 11 * 16}));
}

TEST(RowLayout, KeepsHeadersAlignedForOddWidths) {
  for (const std::int64_t hidden : {1, 3, 127, 128, 2049}) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat8E4M3}) {
      const RowLayout layout(hidden, dtype, 3);
      EXPECT_GE(layout.header_offset(), static_cast<std::size_t>(hidden) * dtype_bytes(dtype));
      EXPECT_EQ(layout.header_offset() % 8, 0U);
      EXPECT_EQ(layout.row_bytes() % 16, 0U);
      EXPECT_GE(layout.row_bytes(), layout.header_offset() + 3 * sizeof(RowEntry));
    }
  }
}

TEST(RowLayout, Float8HasAScaleFor128ColumnsAndComesBackAsBFloat16) {
  const RowLayout layout(2049, DType::kFloat8E4M3, 3);
  // 2049 numbers, 3 bytes of padding, 17 scales: 2120 bytes; three entries of 8 make 2144.
  EXPECT_EQ(layout.header_offset(), 2120U);
  EXPECT_EQ(layout.row_bytes(), 2144U);
  EXPECT_EQ(layout.return_dtype(), DType::kBFloat16);
  EXPECT_EQ(layout.return_row_bytes(), 2U * 2049U);
}

}  // namespace
}  // namespace aurora
