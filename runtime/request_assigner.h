// Rank 0's side of requests: takes them from the feed, tokenises and validates them, gives each to a rank,
// and turns the ranks' progress into answers.
//
// A request that cannot be served fails alone, with its reason, and never reaches a rank. Each goes to the
// rank with the fewest tokens outstanding for its model among those with a free place, the lowest on a tie.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "runtime/engine_protocol.h"
#include "runtime/executor/served_model.h"
#include "runtime/request.h"
#include "runtime/turn_planner.h"

namespace aurora {

/// What one model's requests came to, and how long their tokens took.
struct RequestCounts {
  std::int64_t requests = 0;
  std::int64_t failed_requests = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t generated_tokens = 0;
  std::vector<double> first_token_seconds = {};  // of each answered request, since it arrived
  std::vector<double> per_token_seconds =
      {};  // of each with more tokens: between the first and the last, mean
};

class RequestAssigner {
 public:
  /// References must outlive the assigner.
  RequestAssigner(const std::vector<std::unique_ptr<ServedModel>>& models, int num_ranks, RequestFeed& feed);

  /// Takes what has arrived and assigns what ranks have places for.
  std::vector<RoutedRequest> assign();
  /// [model]: what the requests on ranks ask of the next steps.
  std::vector<ModelDemand> demands() const;
  /// Applies one rank's progress on one model in the turn that began at `turn_start`.
  void absorb(int rank, std::vector<RequestProgress> progress,
              std::chrono::steady_clock::time_point turn_start);
  /// True once the feed is exhausted and every request is answered.
  bool is_finished();

  const std::vector<RequestCounts>& counts() const { return counts_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Outstanding {
    GenerationResult result;
    Clock::time_point arrival;
    std::int64_t reserved_tokens = 0;   // prompt + max_tokens
    std::int64_t remaining_tokens = 0;  // of the answer
    std::int32_t model_index = 0;
    bool is_assigned = false;
  };
  /// One rank's share of one model.
  struct Load {
    std::int64_t num_requests = 0;
    std::int64_t num_tokens = 0;
    std::int64_t num_decoding = 0;    // requests that have their first token
    std::int64_t prefill_tokens = 0;  // prompts of those that have not
  };

  void take_from_feed();
  void admit(GenerationRequest request, Clock::time_point arrival);
  AssignedRequest prepare(const GenerationRequest& request, std::int32_t model_index) const;
  void fail(const GenerationRequest& request, const std::string& reason);
  void take_tokens(Outstanding& outstanding, int rank, RequestProgress& progress, Clock::time_point now);
  void finish(Outstanding& outstanding, int rank);
  Load& load(std::int32_t model_index, int rank) { return loads_[model_index][rank]; }
  int choose_rank(std::int32_t model_index) const;

  const std::vector<std::unique_ptr<ServedModel>>* models_;
  RequestFeed* feed_;
  std::vector<std::vector<Load>> loads_;                    // [model][rank]
  std::vector<std::deque<AssignedRequest>> queues_;         // [model], validated, not yet assigned
  std::unordered_map<RequestId, Outstanding> outstanding_;  // queued or assigned
  std::vector<RequestCounts> counts_;                       // [model]
};

}  // namespace aurora
