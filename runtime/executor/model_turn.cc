#include "runtime/executor/model_turn.h"

#include <algorithm>
#include <iterator>

namespace aurora {

ModelTurn::ModelTurn(ServedModel& model, std::size_t model_index, TraceRecorder& trace) : model_(&model) {
  share_.model_index = static_cast<std::int32_t>(model_index);
  for (std::size_t lane = 0; lane < model.num_lanes(); ++lane) {
    steps_.push_back(std::make_unique<ModelStep>(
        ModelStep::Args{.model = &model, .lane_index = lane, .model_index = model_index, .trace = &trace}));
  }
}

void ModelTurn::begin(const TurnShare& share) {
  check(is_done(), "a turn begins when the one before it is done");
  check(share.model_index == share_.model_index && share.num_steps > 0 && share.num_parts > 0 &&
            static_cast<std::size_t>(share.num_parts) <= steps_.size(),
        "a turn's share is this model's, and of steps that its lanes can take");
  share_ = share;
  num_steps_left_ = share.num_steps;
  progress_.clear();
  exchanges_ = {};
  begin_step();
}

void ModelTurn::begin_step() {
  const std::span<const BatchPart> batch = model_->batcher().form_batch(
      {.most_prefill_tokens = share_.most_prefill_tokens, .num_parts = share_.num_parts});
  for (std::size_t part = 0; part < batch.size(); ++part) steps_[part]->begin(batch[part]);
}

bool ModelTurn::finish_step() {
  if (is_done()) return false;
  std::vector<TokenId> sampled;
  for (const auto& part : parts()) {
    if (!part->is_done()) return false;
    sampled.insert(sampled.end(), part->sampled().begin(), part->sampled().end());
  }
  for (const auto& part : parts()) exchanges_ += part->exchanges();
  std::ranges::move(model_->batcher().accept(sampled), std::back_inserter(progress_));
  if (--num_steps_left_ > 0) begin_step();
  return true;
}

double ModelTurn::progress_of(const ModelStep& part) const {
  const std::int64_t steps_behind = is_done() ? share_.num_steps : share_.num_steps - num_steps_left_;
  const std::int64_t all = share_.num_steps * part.num_positions();
  const std::int64_t behind = steps_behind * part.num_positions() + (is_done() ? 0 : part.position());
  return static_cast<double>(behind) / static_cast<double>(all);
}

}  // namespace aurora
