// Continuous batching of one model on one rank: which tokens of which sequences the next step computes.
//
// Requests join and leave at every step. A step first takes one token of every sequence that is generating,
// then chunks of prompts, up to `max_batch_tokens`. A sequence that cannot get cache blocks preempts the
// youngest running one: its blocks are returned, it waits in front of the queue, and when it resumes, prompt
// and answer so far are computed again, which gives the same continuation.
//
// A batch is handed out in one part or several, for halves that are to overlap each other: every part is a
// batch of its own, of whole sequences, with about the same number of tokens.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "runtime/executor/answer_text.h"
#include "runtime/model/decoder.h"
#include "runtime/model/kv_cache.h"
#include "runtime/request.h"

namespace aurora {

struct BatchLimits {
  std::int64_t max_batch_tokens = 512;
  std::int64_t max_batch_requests = 64;
};

/// A request as a rank gets it: tokenised and validated by rank 0.
struct AssignedRequest {
  RequestId id = 0;
  std::uint64_t ordinal = 0;  // position among its model's served requests, from 0
  std::vector<TokenId> prompt;
  SamplingParams sampling;
};

/// What a step did for one request.
struct RequestProgress {
  RequestId id = 0;
  bool has_started = false;  // its first step was taken just now
  std::vector<TokenId> token_ids = {};
  std::string text = {};  // became final
  bool is_finished = false;
  FinishReason finish_reason = FinishReason::kLength;
};

/// Whose token a row of the batch is.
struct TokenOrigin {
  std::uint64_t request_ordinal = 0;  // AssignedRequest::ordinal
  std::int32_t position = 0;
};

/// One part of a step's batch. Rows, origins and wanted rows are in the order of the batch.
struct BatchPart {
  StepBatch batch;
  std::vector<SamplingRow> sampling_rows;  // how each wanted row is sampled, [num_outputs]
  std::vector<TokenOrigin> origins;        // [num_tokens]
};

/// What one step may take.
struct StepTerms {
  std::int64_t most_prefill_tokens = std::numeric_limits<std::int64_t>::max();  // of prompts, in all parts
  std::int64_t num_parts = 1;
};

class RequestBatcher {
 public:
  /// `tokenizer` may be null. References must outlive the batcher.
  RequestBatcher(const BatchLimits& limits, std::vector<TokenId> eos_token_ids, const Tokenizer* tokenizer,
                 KvCache& cache);
  ~RequestBatcher();

  /// Queues a request. The caller has checked that it fits the cache by itself.
  void add(AssignedRequest request);
  bool is_idle() const { return running_.empty() && waiting_.empty(); }
  std::int64_t num_requests() const { return static_cast<std::int64_t>(running_.size() + waiting_.size()); }
  std::int64_t num_preemptions() const { return num_preemptions_; }

  /// Chooses the next step's tokens. Parts may be empty. Valid until the next call.
  std::span<const BatchPart> form_batch(const StepTerms& terms);

  /// Takes the sampled tokens of all parts one after the other, [num_outputs], advances every sequence of the
  /// batch and says what happened.
  std::vector<RequestProgress> accept(std::span<const TokenId> sampled);

 private:
  struct Sequence;
  using SequencePtr = std::unique_ptr<Sequence>;

  void schedule_running(bool generating, std::int64_t& budget);
  void admit_waiting(std::int64_t& budget);
  bool reserve_blocks(Sequence& sequence, std::int64_t num_tokens);
  bool preempt_youngest(const Sequence& in_favour_of);
  void schedule(Sequence& sequence, std::int64_t num_tokens);
  void fill_part(std::span<Sequence* const> sequences, BatchPart& part) const;
  void append_rows(const Sequence& sequence, BatchPart& part) const;
  RequestProgress take_token(Sequence& sequence, TokenId token);

  BatchLimits limits_;
  std::vector<TokenId> eos_token_ids_;
  const Tokenizer* tokenizer_;
  KvCache* cache_;
  std::deque<SequencePtr> waiting_;
  std::vector<SequencePtr> running_;  // oldest first
  std::vector<Sequence*> scheduled_;  // this step's, in row order
  std::vector<BatchPart> parts_;
  std::int64_t num_preemptions_ = 0;
};

}  // namespace aurora
