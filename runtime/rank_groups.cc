#include "runtime/rank_groups.h"

#include <algorithm>
#include <numeric>

#include "kernels/error.h"

namespace aurora {
namespace {

/// Ranks of each model: one, and those that are left one by one to the model with the fewest for its weight.
std::vector<int> rank_counts(std::span<const ModelOptions> models, int num_ranks) {
  std::vector<int> counts(models.size(), 1);
  for (int left = num_ranks - static_cast<int>(models.size()); left > 0; --left) {
    std::size_t neediest = 0;
    for (std::size_t model = 1; model < models.size(); ++model) {
      const bool needs_more =
          counts[model] / models[model].weight < counts[neediest] / models[neediest].weight;
      if (needs_more) neediest = model;
    }
    ++counts[neediest];
  }
  return counts;
}

std::vector<int> complete_sequence(std::span<const int> given, int num_ranks) {
  std::vector<int> ascending(static_cast<std::size_t>(num_ranks));
  std::iota(ascending.begin(), ascending.end(), 0);
  if (given.empty()) return ascending;
  if (!std::ranges::is_permutation(given, ascending)) {
    throw Error(ErrorKind::kInvalidArgument,
                "the ranks that models take must be a permutation of 0 to " + std::to_string(num_ranks - 1));
  }
  return {given.begin(), given.end()};
}

}  // namespace

std::vector<RankGroup> rank_groups(std::span<const ModelOptions> models, Schedule schedule, int num_ranks,
                                   std::span<const int> rank_sequence) {
  const std::vector<int> sequence = complete_sequence(rank_sequence, num_ranks);
  std::vector<RankGroup> groups;
  if (schedule != Schedule::kExclusive) {
    RankGroup& all = groups.emplace_back();
    all.ranks.resize(static_cast<std::size_t>(num_ranks));
    std::iota(all.ranks.begin(), all.ranks.end(), 0);
    all.models.resize(models.size());
    std::iota(all.models.begin(), all.models.end(), 0U);
    return groups;
  }
  if (static_cast<std::size_t>(num_ranks) < models.size()) {
    groups.resize(static_cast<std::size_t>(num_ranks));
    for (int rank = 0; rank < num_ranks; ++rank) groups[static_cast<std::size_t>(rank)].ranks = {rank};
    for (std::size_t model = 0; model < models.size(); ++model) {
      groups[model % groups.size()].models.push_back(model);
    }
    return groups;
  }
  auto next = sequence.begin();
  const std::vector<int> counts = rank_counts(models, num_ranks);
  for (std::size_t model = 0; model < models.size(); ++model) {
    RankGroup& group = groups.emplace_back();
    group.models = {model};
    group.ranks.assign(next, next + counts[model]);
    std::ranges::sort(group.ranks);
    next += counts[model];
  }
  std::ranges::sort(groups, {}, [](const RankGroup& group) { return group.ranks.front(); });
  return groups;
}

const RankGroup& group_of(const std::vector<RankGroup>& groups, int rank) {
  const auto found = std::ranges::find_if(
      groups, [&](const RankGroup& group) { return std::ranges::binary_search(group.ranks, rank); });
  check(found != groups.end(), "every rank is in a group");
  return *found;
}

}  // namespace aurora
