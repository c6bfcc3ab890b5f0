#include "runtime/turn_planner.h"

#include <algorithm>
#include <cmath>

namespace aurora {
namespace {

/// After that many no request of the model can be left.
std::int64_t useful_steps(const ModelDemand& demand, std::int64_t most_prefill_tokens) {
  return std::max<std::int64_t>(1, demand.remaining_tokens + demand.prefill_tokens / most_prefill_tokens);
}

}  // namespace

double parameters_per_token(const ModelConfig& config) {
  const auto hidden = static_cast<double>(config.hidden);
  const auto head_width = static_cast<double>(config.head_width);
  const auto projected = static_cast<double>(config.num_heads + config.num_kv_heads) * head_width;
  const auto num_moe = static_cast<double>(config.num_moe_layers());
  const auto num_dense = static_cast<double>(config.num_layers) - num_moe;
  constexpr double kMatricesOfFfn = 3;
  const double moe_inner =
      static_cast<double>(config.top_k * config.expert_inner + config.shared_expert_inner);
  // Queries and outputs, keys and values: two matrices each.
  return static_cast<double>(config.num_layers) * 2 * hidden * projected +
         kMatricesOfFfn * hidden *
             (num_moe * moe_inner + num_dense * static_cast<double>(config.dense_inner)) +
         hidden * static_cast<double>(config.vocabulary);
}

TurnPlanner::TurnPlanner(std::vector<ModelTraits> models, Schedule schedule, std::int64_t decode_steps)
    : models_(std::move(models)),
      schedule_(schedule),
      decode_steps_(std::clamp<std::int64_t>(decode_steps, 1, kMostStepsOfTurn)),
      carried_(models_.size(), 0) {}

std::int64_t TurnPlanner::prefill_budget(std::size_t model, double most_weight) const {
  const double share = models_[model].weight / most_weight;
  const auto tokens = static_cast<double>(models_[model].max_batch_tokens);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::floor(tokens * share)));
}

std::int64_t TurnPlanner::take_steps(std::size_t model, double due, std::int64_t most) {
  carried_[model] += due;
  // Not a whole step below what is due for want of the last bit.
  constexpr double kRounding = 1e-9;
  const auto whole = static_cast<std::int64_t>(std::floor(carried_[model] + kRounding));
  const std::int64_t steps = std::clamp<std::int64_t>(whole, 1, most);
  carried_[model] = std::min(carried_[model] - static_cast<double>(steps), 1.0);
  return steps;
}

std::vector<TurnShare> TurnPlanner::plan(std::span<const ModelDemand> demands) {
  std::vector<TurnShare> shares;
  bool only_decodes = true;
  for (std::size_t model = 0; model < demands.size(); ++model) {
    if (demands[model].num_requests == 0) {
      carried_[model] = 0;
      continue;
    }
    only_decodes = only_decodes && demands[model].prefill_tokens == 0;
    const bool can_split = schedule_ == Schedule::kTwoBatch && demands[model].most_requests > 1;
    shares.push_back({.model_index = static_cast<std::int32_t>(model),
                      .num_parts = can_split ? 2 : 1,
                      .num_steps = 1,
                      .most_prefill_tokens = models_[model].max_batch_tokens});
  }
  const std::int64_t rounds = only_decodes ? decode_steps_ : 1;
  if (schedule_ == Schedule::kColocated && shares.size() > 1) {
    share_by_weight(demands, rounds, shares);
    return shares;
  }
  for (TurnShare& share : shares) {
    const ModelDemand& demand = demands[static_cast<std::size_t>(share.model_index)];
    share.num_steps = std::min(rounds, useful_steps(demand, share.most_prefill_tokens));
  }
  return shares;
}

/// `rounds` times the time in which each model takes one step, if all get what their weights ask for; fewer
/// where a model's steps in it would exceed the limit.
void TurnPlanner::share_by_weight(std::span<const ModelDemand> demands, std::int64_t rounds,
                                  std::vector<TurnShare>& shares) {
  double most_weight = 0;
  for (const TurnShare& share : shares) {
    most_weight = std::max(most_weight, models_[static_cast<std::size_t>(share.model_index)].weight);
  }
  std::vector<double> period;
  for (TurnShare& share : shares) {
    const auto model = static_cast<std::size_t>(share.model_index);
    share.most_prefill_tokens = prefill_budget(model, most_weight);
    const std::int64_t tokens =
        demands[model].decode_tokens + std::min(demands[model].prefill_tokens, share.most_prefill_tokens);
    const double work = models_[model].parameters_per_token * static_cast<double>(tokens + kFixedTokens);
    period.push_back(work / models_[model].weight);
  }
  const auto [shortest, longest] = std::ranges::minmax(period);
  const auto most_rounds =
      static_cast<std::int64_t>(static_cast<double>(kMostStepsOfTurn) * shortest / longest);
  const double turn = longest * static_cast<double>(std::max<std::int64_t>(1, std::min(rounds, most_rounds)));
  for (std::size_t index = 0; index < shares.size(); ++index) {
    TurnShare& share = shares[index];
    const auto model = static_cast<std::size_t>(share.model_index);
    const std::int64_t most =
        std::min(kMostStepsOfTurn, useful_steps(demands[model], share.most_prefill_tokens));
    share.num_steps = take_steps(model, turn / period[index], most);
  }
}

}  // namespace aurora
