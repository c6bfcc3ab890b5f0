// Which ranks serve which models. All ranks serve all models, unless the schedule gives each model ranks of
// its own.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "runtime/model_options.h"

namespace aurora {

/// Ranks that serve the same models; the first of them leads. Groups share no rank and no model.
struct RankGroup {
  std::vector<int> ranks;           // ascending
  std::vector<std::size_t> models;  // ascending
};

/// kExclusive: consecutive ranks for each model, in proportion to the models' weights, at least one for each;
/// with fewer ranks than models, every rank serves the models that fall to it in turn. Otherwise one group.
/// Rank 0 leads the first group. Every rank and every model is in exactly one.
std::vector<RankGroup> rank_groups(std::span<const ModelOptions> models, Schedule schedule, int num_ranks);

/// The group of `rank`.
const RankGroup& group_of(const std::vector<RankGroup>& groups, int rank);

}  // namespace aurora
