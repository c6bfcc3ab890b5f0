#include "runtime/rank_groups.h"

#include <gtest/gtest.h>

#include <random>

#include "kernels/error.h"

namespace aurora {
namespace {

std::vector<ModelOptions> weighing(const std::vector<double>& weights) {
  std::vector<ModelOptions> models(weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) models[i].weight = weights[i];
  return models;
}

std::vector<std::size_t> sizes(const std::vector<RankGroup>& groups) {
  std::vector<std::size_t> sizes;
  for (const RankGroup& group : groups) sizes.push_back(group.ranks.size());
  return sizes;
}

TEST(RankGroups, AreOneUnlessModelsHaveRanksOfTheirOwn) {
  for (const Schedule schedule : {Schedule::kSerial, Schedule::kColocated, Schedule::kTwoBatch}) {
    const auto groups = rank_groups(weighing({1, 2}), schedule, 3);
    ASSERT_EQ(groups.size(), 1U);
    EXPECT_EQ(groups[0].ranks, (std::vector<int>{0, 1, 2}));
    EXPECT_EQ(groups[0].models, (std::vector<std::size_t>{0, 1}));
  }
}

TEST(RankGroups, SplitRanksEvenlyOrByWeight) {
  EXPECT_EQ(sizes(rank_groups(weighing({1, 1}), Schedule::kExclusive, 8)), (std::vector<std::size_t>{4, 4}));
  EXPECT_EQ(sizes(rank_groups(weighing({1, 1}), Schedule::kExclusive, 5)), (std::vector<std::size_t>{3, 2}));
  EXPECT_EQ(sizes(rank_groups(weighing({1, 3}), Schedule::kExclusive, 8)), (std::vector<std::size_t>{2, 6}));
  EXPECT_EQ(sizes(rank_groups(weighing({1, 100}), Schedule::kExclusive, 3)),
            (std::vector<std::size_t>{1, 2}));
}

TEST(RankGroups, ModelsTakeRanksInTheSequenceGiven) {
  const std::vector<int> sequence{3, 1, 4, 0, 2};
  const auto groups = rank_groups(weighing({1, 1}), Schedule::kExclusive, 5, sequence);
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0].ranks, (std::vector<int>{0, 2})) << "that which rank 0 leads comes first";
  EXPECT_EQ(groups[0].models, (std::vector<std::size_t>{1}));
  EXPECT_EQ(groups[1].ranks, (std::vector<int>{1, 3, 4}));
  EXPECT_EQ(groups[1].models, (std::vector<std::size_t>{0}));
  for (const std::vector<int>& bad : {std::vector<int>{0, 1}, {0, 1, 2, 3, 3}, {1, 2, 3, 4, 5}}) {
    EXPECT_THROW(rank_groups(weighing({1, 1}), Schedule::kExclusive, 5, bad), Error);
  }
}

TEST(RankGroups, HoldEveryRankAndEveryModelOnce) {
  std::mt19937 random(11);
  for (int trial = 0; trial < 500; ++trial) {
    SCOPED_TRACE("seed 11, trial " + std::to_string(trial));
    const int num_ranks = 1 + static_cast<int>(random() % 9);
    std::vector<double> weights(1 + random() % 5);
    for (double& weight : weights) weight = 0.1 + static_cast<double>(random() % 50);
    const auto groups = rank_groups(weighing(weights), Schedule::kExclusive, num_ranks);
    std::vector<int> ranks;
    std::vector<int> models(weights.size(), 0);
    for (const RankGroup& group : groups) {
      EXPECT_FALSE(group.ranks.empty());
      EXPECT_FALSE(group.models.empty());
      ranks.insert(ranks.end(), group.ranks.begin(), group.ranks.end());
      for (const std::size_t model : group.models) ++models[model];
      for (const int rank : group.ranks) EXPECT_EQ(&group_of(groups, rank), &group);
    }
    for (int rank = 0; rank < num_ranks; ++rank) EXPECT_EQ(ranks.at(static_cast<std::size_t>(rank)), rank);
    EXPECT_EQ(ranks.size(), static_cast<std::size_t>(num_ranks));
    EXPECT_EQ(models, std::vector<int>(weights.size(), 1));
  }
}

}  // namespace
}  // namespace aurora
