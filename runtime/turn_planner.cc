#include "runtime/turn_planner.h"

#include <algorithm>
#include <cmath>

namespace aurora {

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

TurnPlanner::TurnPlanner(std::vector<ModelTraits> models, Schedule schedule)
    : models_(std::move(models)), schedule_(schedule), carried_(models_.size(), 0) {}

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
  double most_weight = 0;
  for (std::size_t model = 0; model < demands.size(); ++model) {
    if (demands[model].num_requests == 0) {
      carried_[model] = 0;
      continue;
    }
    const bool can_split = schedule_ == Schedule::kTwoBatch && demands[model].most_requests > 1;
    shares.push_back({.model_index = static_cast<std::int32_t>(model),
                      .num_parts = can_split ? 2 : 1,
                      .num_steps = 1,
                      .most_prefill_tokens = models_[model].max_batch_tokens});
    most_weight = std::max(most_weight, models_[model].weight);
  }
  if (schedule_ != Schedule::kColocated || shares.size() < 2) return shares;

  // Time in which each model takes one step, if all got what their weights ask for.
  std::vector<double> period;
  for (TurnShare& share : shares) {
    const auto model = static_cast<std::size_t>(share.model_index);
    share.most_prefill_tokens = prefill_budget(model, most_weight);
    const std::int64_t tokens =
        demands[model].decode_tokens + std::min(demands[model].prefill_tokens, share.most_prefill_tokens);
    const double work = models_[model].parameters_per_token * static_cast<double>(tokens + kFixedTokens);
    period.push_back(work / models_[model].weight);
  }
  const double turn = *std::ranges::max_element(period);
  for (std::size_t index = 0; index < shares.size(); ++index) {
    const auto model = static_cast<std::size_t>(shares[index].model_index);
    // After that many no request can be left.
    const std::int64_t useful =
        demands[model].remaining_tokens + demands[model].prefill_tokens / shares[index].most_prefill_tokens;
    const std::int64_t most = std::clamp<std::int64_t>(useful, 1, kMostSteps);
    shares[index].num_steps = take_steps(model, turn / period[index], most);
  }
  return shares;
}

}  // namespace aurora
