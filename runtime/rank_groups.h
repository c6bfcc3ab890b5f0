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

/// kExclusive: each model takes the next ranks of `rank_sequence`, a permutation of all (empty: ascending),
/// in proportion to the models' weights, at least one for each; with fewer ranks than models, every rank
/// serves the models that fall to it in turn. Otherwise one group. Rank 0 leads the first group, and groups
/// are sorted by their leaders. Every rank and every model is in exactly one. Throws kInvalidArgument for a
/// sequence that is none.
std::vector<RankGroup> rank_groups(std::span<const ModelOptions> models, Schedule schedule, int num_ranks,
                                   std::span<const int> rank_sequence = {});

/// The group of `rank`.
const RankGroup& group_of(const std::vector<RankGroup>& groups, int rank);

}  // namespace aurora
