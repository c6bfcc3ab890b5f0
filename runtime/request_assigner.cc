#include "runtime/request_assigner.h"

#include <algorithm>
#include <cmath>

namespace aurora {
namespace {

/// Validated requests kept ready beyond what ranks have places for: enough that a step never starts short.
constexpr std::size_t kMaxQueuedPerModel = 1024;

[[noreturn]] void refuse(const std::string& text) { throw Error(ErrorKind::kInvalidArgument, text); }

void check_sampling(const SamplingParams& sampling) {
  if (!(std::isfinite(sampling.temperature) && sampling.temperature >= 0)) {
    refuse("temperature is " + std::to_string(sampling.temperature) +
           "; it must be a finite number of at least 0");
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    refuse("top_p is " + std::to_string(sampling.top_p) + "; it must be above 0 and at most 1");
  }
  if (sampling.top_k < 0)
    refuse("top_k is " + std::to_string(sampling.top_k) + "; it must be at least 0 (0: all)");
  if (sampling.max_tokens < 1)
    refuse("max_tokens is " + std::to_string(sampling.max_tokens) + "; it must be at least 1");
}

std::vector<TokenId> tokenize(const GenerationRequest& request, const ServedModel& model) {
  if (request.prompt_token_ids) return *request.prompt_token_ids;
  if (model.tokenizer() == nullptr) {
    refuse("model " + request.model + " has no tokenizer.json; give prompt_token_ids instead of prompt");
  }
  return model.tokenizer()->encode(request.prompt);
}

}  // namespace

RequestAssigner::RequestAssigner(const std::vector<std::unique_ptr<ServedModel>>& models, int num_ranks,
                                 RequestFeed& feed)
    : models_(&models),
      feed_(&feed),
      loads_(models.size(), std::vector<Load>(static_cast<std::size_t>(num_ranks))),
      queues_(models.size()),
      counts_(models.size()) {}

std::vector<RoutedRequest> RequestAssigner::assign() {
  take_from_feed();
  std::vector<RoutedRequest> routed;
  for (std::int32_t model = 0; model < static_cast<std::int32_t>(queues_.size()); ++model) {
    while (!queues_[model].empty()) {
      const int rank = choose_rank(model);
      if (rank < 0) break;
      AssignedRequest request = std::move(queues_[model].front());
      queues_[model].pop_front();
      ++load(model, rank).num_requests;
      Outstanding& outstanding = outstanding_.at(request.id);
      outstanding.is_assigned = true;
      load(model, rank).num_tokens += outstanding.reserved_tokens;
      load(model, rank).prefill_tokens += outstanding.result.prompt_tokens;
      routed.push_back({rank, model, std::move(request)});
    }
  }
  return routed;
}

void RequestAssigner::take_from_feed() {
  std::size_t room = kMaxQueuedPerModel;
  for (const auto& queue : queues_)
    room = std::min(room, kMaxQueuedPerModel - std::min(kMaxQueuedPerModel, queue.size()));
  const Clock::time_point now = Clock::now();
  for (GenerationRequest& request : feed_->take(room)) admit(std::move(request), now);
}

void RequestAssigner::admit(GenerationRequest request, Clock::time_point arrival) {
  const auto found = std::ranges::find_if(
      *models_, [&](const auto& model) { return model->options().name == request.model; });
  if (found == models_->end()) {
    std::string known;
    for (const auto& model : *models_) known += (known.empty() ? "" : ", ") + model->options().name;
    fail(request, "unknown model \"" + request.model + "\"; loaded: " + known);
    return;
  }
  const auto model_index = static_cast<std::int32_t>(found - models_->begin());
  RequestCounts& counts = counts_[model_index];
  ++counts.requests;
  try {
    AssignedRequest assigned = prepare(request, model_index);
    assigned.ordinal = static_cast<std::uint64_t>(counts.requests - counts.failed_requests - 1);
    Outstanding outstanding;
    outstanding.arrival = arrival;
    outstanding.result.id = request.id;
    outstanding.result.model = request.model;
    outstanding.result.prompt_tokens = static_cast<std::int64_t>(assigned.prompt.size());
    outstanding.reserved_tokens = outstanding.result.prompt_tokens + assigned.sampling.max_tokens;
    outstanding.remaining_tokens = assigned.sampling.max_tokens;
    outstanding.model_index = model_index;
    counts.prompt_tokens += outstanding.result.prompt_tokens;
    outstanding_.emplace(request.id, std::move(outstanding));
    queues_[model_index].push_back(std::move(assigned));
  } catch (const Error& error) {
    ++counts.failed_requests;
    fail(request, error.what());
  }
}

/// Tokenises and validates; throws with the reason.
AssignedRequest RequestAssigner::prepare(const GenerationRequest& request, std::int32_t model_index) const {
  const ServedModel& model = *(*models_)[model_index];
  check_sampling(request.sampling);
  AssignedRequest assigned{request.id, 0, tokenize(request, model), request.sampling};
  if (assigned.prompt.empty()) refuse("the prompt is empty: there is no token to continue from");
  for (std::size_t i = 0; i < assigned.prompt.size(); ++i) {
    if (assigned.prompt[i] >= 0 && assigned.prompt[i] < model.config().vocabulary) continue;
    refuse("prompt_token_ids[" + std::to_string(i) + "] is " + std::to_string(assigned.prompt[i]) +
           "; the vocabulary of " + request.model + " is 0.." +
           std::to_string(model.config().vocabulary - 1));
  }
  const std::int64_t limit = model.max_sequence_tokens();
  const auto prompt_tokens = static_cast<std::int64_t>(assigned.prompt.size());
  if (prompt_tokens >= limit) {
    refuse("the prompt has " + std::to_string(prompt_tokens) + " tokens; model " + request.model +
           " allows " + std::to_string(limit) +
           " for prompt and answer together (least of the model's positions, " +
           "max_sequence_tokens and the key/value cache)");
  }
  // An answer that would outgrow the model ends there, with finish_reason "length".
  assigned.sampling.max_tokens =
      static_cast<std::int32_t>(std::min<std::int64_t>(assigned.sampling.max_tokens, limit - prompt_tokens));
  return assigned;
}

void RequestAssigner::fail(const GenerationRequest& request, const std::string& reason) {
  GenerationResult result;
  result.id = request.id;
  result.model = request.model;
  result.error = reason;
  feed_->on_finished(std::move(result));
}

int RequestAssigner::choose_rank(std::int32_t model_index) const {
  const auto& loads = loads_[model_index];
  const std::int64_t places = (*models_)[model_index]->options().max_batch_requests;
  int best = -1;
  for (int rank = 0; rank < static_cast<int>(loads.size()); ++rank) {
    if (loads[rank].num_requests >= places) continue;
    if (best < 0 || loads[rank].num_tokens < loads[best].num_tokens) best = rank;
  }
  return best;
}

std::vector<ModelDemand> RequestAssigner::demands() const {
  std::vector<ModelDemand> demands(loads_.size());
  for (std::size_t model = 0; model < loads_.size(); ++model) {
    ModelDemand& demand = demands[model];
    for (const Load& load : loads_[model]) {
      demand.num_requests += load.num_requests;
      demand.most_requests = std::max(demand.most_requests, load.num_requests);
      demand.decode_tokens = std::max(demand.decode_tokens, load.num_decoding);
      demand.prefill_tokens = std::max(demand.prefill_tokens, load.prefill_tokens);
    }
  }
  for (const auto& [id, outstanding] : outstanding_) {
    if (!outstanding.is_assigned) continue;
    std::int64_t& most = demands[static_cast<std::size_t>(outstanding.model_index)].remaining_tokens;
    most = std::max(most, outstanding.remaining_tokens);
  }
  return demands;
}

void RequestAssigner::take_tokens(Outstanding& outstanding, int rank, RequestProgress& progress,
                                  Clock::time_point now) {
  GenerationResult& result = outstanding.result;
  Load& on_rank = load(outstanding.model_index, rank);
  if (result.token_ids.empty()) {
    result.timing.first_token = std::chrono::duration<double>(now - outstanding.arrival).count();
    on_rank.prefill_tokens -= result.prompt_tokens;
    ++on_rank.num_decoding;
  }
  outstanding.remaining_tokens -= static_cast<std::int64_t>(progress.token_ids.size());
  result.token_ids.insert(result.token_ids.end(), progress.token_ids.begin(), progress.token_ids.end());
  result.text += progress.text;
  feed_->on_text(progress.id, progress.text, progress.token_ids);
}

void RequestAssigner::finish(Outstanding& outstanding, int rank) {
  GenerationResult& result = outstanding.result;
  Load& on_rank = load(outstanding.model_index, rank);
  --on_rank.num_requests;
  --on_rank.num_decoding;
  on_rank.num_tokens -= outstanding.reserved_tokens;
  RequestCounts& counts = counts_[static_cast<std::size_t>(outstanding.model_index)];
  const std::size_t num_tokens = result.token_ids.size();
  counts.generated_tokens += static_cast<std::int64_t>(num_tokens);
  counts.first_token_seconds.push_back(result.timing.first_token);
  if (num_tokens > 1) {
    counts.per_token_seconds.push_back((result.timing.total - result.timing.first_token) /
                                       static_cast<double>(num_tokens - 1));
  }
  feed_->on_finished(std::move(result));
}

void RequestAssigner::absorb(int rank, std::vector<RequestProgress> all_progress,
                             Clock::time_point turn_start) {
  const Clock::time_point now = Clock::now();
  for (RequestProgress& progress : all_progress) {
    const auto found = outstanding_.find(progress.id);
    check(found != outstanding_.end(), "a rank reports on a request that it was given");
    Outstanding& outstanding = found->second;
    RequestTiming& timing = outstanding.result.timing;
    if (progress.has_started) {
      timing.queued = std::chrono::duration<double>(turn_start - outstanding.arrival).count();
    }
    if (!progress.token_ids.empty()) take_tokens(outstanding, rank, progress, now);
    if (!progress.is_finished) continue;
    timing.total = std::chrono::duration<double>(now - outstanding.arrival).count();
    outstanding.result.finish_reason = progress.finish_reason;
    finish(outstanding, rank);
    outstanding_.erase(found);
  }
}

bool RequestAssigner::is_finished() { return outstanding_.empty() && feed_->is_exhausted(); }

}  // namespace aurora
