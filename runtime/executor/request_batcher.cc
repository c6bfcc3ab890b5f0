#include "runtime/executor/request_batcher.h"

#include <algorithm>

namespace aurora {
namespace {

/// A uniform number in [0, 1) for the `index`-th generated token under `seed`: counter-based, so that it does
/// not depend on what else is in the batch (SplitMix64, Steele et al., OOPSLA 2014).
float uniform_random(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t x = seed * 0x9e3779b97f4a7c15ULL + (index + 1) * 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  x ^= x >> 31;
  return static_cast<float>(x >> 40) * 0x1.0p-24F;
}

}  // namespace

struct RequestBatcher::Sequence {
  Sequence(AssignedRequest request, const Tokenizer* tokenizer)
      : id(request.id),
        ordinal(request.ordinal),
        sampling(std::move(request.sampling)),
        num_prompt_tokens(static_cast<std::int64_t>(request.prompt.size())),
        tokens(std::move(request.prompt)),
        text(tokenizer, sampling.stop) {}

  RequestId id;
  std::uint64_t ordinal;
  SamplingParams sampling;
  std::int64_t num_prompt_tokens;
  std::vector<TokenId> tokens;  // prompt, then answer
  AnswerText text;
  BlockTable blocks;
  std::int64_t num_computed = 0;   // tokens whose keys and values are in the cache
  std::int64_t num_scheduled = 0;  // tokens of this step
  bool has_started = false;

  std::int64_t num_pending() const { return static_cast<std::int64_t>(tokens.size()) - num_computed; }
  std::int64_t num_generated() const { return static_cast<std::int64_t>(tokens.size()) - num_prompt_tokens; }
  bool reaches_end() const { return num_scheduled > 0 && num_scheduled == num_pending(); }
};

RequestBatcher::RequestBatcher(const BatchLimits& limits, std::vector<TokenId> eos_token_ids,
                               const Tokenizer* tokenizer, KvCache& cache)
    : limits_(limits), eos_token_ids_(std::move(eos_token_ids)), tokenizer_(tokenizer), cache_(&cache) {}

RequestBatcher::~RequestBatcher() = default;

void RequestBatcher::add(AssignedRequest request) {
  waiting_.push_back(std::make_unique<Sequence>(std::move(request), tokenizer_));
}

std::span<const BatchPart> RequestBatcher::form_batch(const StepTerms& terms) {
  scheduled_.clear();
  for (const SequencePtr& sequence : running_) sequence->num_scheduled = 0;
  std::int64_t budget = limits_.max_batch_tokens;
  schedule_running(/*generating=*/true, budget);
  budget = std::min(budget, terms.most_prefill_tokens);
  schedule_running(/*generating=*/false, budget);
  admit_waiting(budget);

  parts_.assign(static_cast<std::size_t>(terms.num_parts), {});
  std::int64_t num_left = 0;
  for (const Sequence* sequence : scheduled_) num_left += sequence->num_scheduled;
  std::span<Sequence* const> rest(scheduled_);
  for (std::size_t part = 0; part < parts_.size(); ++part) {
    // Sequences as long as the part comes closer to its share of what is left, all of them in the last part.
    const std::int64_t num_parts_left = static_cast<std::int64_t>(parts_.size() - part);
    std::size_t count = 0;
    std::int64_t num_tokens = 0;
    while (count < rest.size()) {
      const std::int64_t more = rest[count]->num_scheduled;
      if (num_parts_left > 1 && (2 * num_tokens + more) * num_parts_left > 2 * num_left) break;
      num_tokens += more;
      ++count;
    }
    fill_part(rest.first(count), parts_[part]);
    rest = rest.subspan(count);
    num_left -= num_tokens;
  }
  return parts_;
}

void RequestBatcher::fill_part(std::span<Sequence* const> sequences, BatchPart& part) const {
  StepBatch& batch = part.batch;
  for (const Sequence* sequence : sequences) {
    batch.max_blocks = std::max(batch.max_blocks, static_cast<std::int64_t>(sequence->blocks.size()));
  }
  // Rounded up, so that the shape of decode steps changes seldom (layer_graphs.h).
  constexpr std::int64_t kBlocksStep = 8;
  batch.max_blocks = (batch.max_blocks + kBlocksStep - 1) / kBlocksStep * kBlocksStep;
  batch.num_sequences = static_cast<std::int64_t>(sequences.size());
  for (const Sequence* sequence : sequences) append_rows(*sequence, part);
}

void RequestBatcher::schedule_running(bool generating, std::int64_t& budget) {
  // Preemption may remove the youngest entries while we walk from the oldest: index, not iterator.
  for (std::size_t index = 0; index < running_.size() && budget > 0; ++index) {
    Sequence& sequence = *running_[index];
    if (sequence.num_scheduled > 0 || (sequence.num_pending() == 1) != generating) continue;
    const std::int64_t num_tokens = std::min(sequence.num_pending(), budget);
    if (!reserve_blocks(sequence, sequence.num_computed + num_tokens)) continue;
    schedule(sequence, num_tokens);
    budget -= num_tokens;
  }
}

void RequestBatcher::admit_waiting(std::int64_t& budget) {
  while (!waiting_.empty() && budget > 0 &&
         static_cast<std::int64_t>(running_.size()) < limits_.max_batch_requests) {
    Sequence& sequence = *waiting_.front();
    // Admitted only when all it has now fits: a newcomer never preempts.
    if (cache_->blocks_for(sequence.num_pending()) > cache_->num_free_blocks()) return;
    const std::int64_t num_tokens = std::min(sequence.num_pending(), budget);
    check(cache_->grow(sequence.blocks, num_tokens), "blocks were counted as free");
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    schedule(sequence, num_tokens);
    budget -= num_tokens;
  }
}

bool RequestBatcher::reserve_blocks(Sequence& sequence, std::int64_t num_tokens) {
  while (!cache_->grow(sequence.blocks, num_tokens)) {
    if (!preempt_youngest(sequence)) return false;
  }
  return true;
}

/// Gives up the youngest running sequence that is younger than `in_favour_of` and not part of this step.
bool RequestBatcher::preempt_youngest(const Sequence& in_favour_of) {
  for (auto victim = running_.end(); victim != running_.begin();) {
    --victim;
    if (victim->get() == &in_favour_of) return false;
    if ((*victim)->num_scheduled > 0) continue;
    cache_->release((*victim)->blocks);
    (*victim)->num_computed = 0;
    ++num_preemptions_;
    waiting_.push_front(std::move(*victim));
    running_.erase(victim);
    return true;
  }
  return false;
}

void RequestBatcher::schedule(Sequence& sequence, std::int64_t num_tokens) {
  sequence.num_scheduled = num_tokens;
  scheduled_.push_back(&sequence);
}

void RequestBatcher::append_rows(const Sequence& sequence, BatchPart& part) const {
  StepBatch& batch = part.batch;
  const auto row =
      static_cast<std::int32_t>(batch.block_tables.size() / static_cast<std::size_t>(batch.max_blocks));
  batch.block_tables.insert(batch.block_tables.end(), sequence.blocks.begin(), sequence.blocks.end());
  batch.block_tables.resize(static_cast<std::size_t>((row + 1) * batch.max_blocks), 0);
  for (std::int64_t i = 0; i < sequence.num_scheduled; ++i) {
    const std::int64_t position = sequence.num_computed + i;
    batch.token_ids.push_back(sequence.tokens[position]);
    batch.positions.push_back(static_cast<std::int32_t>(position));
    batch.slots.push_back(cache_->slot(sequence.blocks, position));
    batch.sequence_index.push_back(row);
    part.origins.push_back({sequence.ordinal, static_cast<std::int32_t>(position)});
  }
  if (!sequence.reaches_end()) return;
  batch.output_rows.push_back(static_cast<std::int32_t>(batch.token_ids.size() - 1));
  part.sampling_rows.push_back(
      {.temperature = sequence.sampling.temperature,
       .top_k = sequence.sampling.top_k,
       .top_p = sequence.sampling.top_p,
       .random =
           uniform_random(sequence.sampling.seed, static_cast<std::uint64_t>(sequence.num_generated()))});
}

std::vector<RequestProgress> RequestBatcher::accept(std::span<const TokenId> sampled) {
  std::vector<RequestProgress> all_progress;
  std::size_t next_output = 0;
  for (Sequence* sequence : scheduled_) {
    RequestProgress progress{.id = sequence->id};
    const bool has_output = sequence->reaches_end();
    sequence->num_computed += sequence->num_scheduled;
    if (has_output) progress = take_token(*sequence, sampled[next_output++]);
    progress.has_started = !sequence->has_started;
    sequence->has_started = true;
    if (progress.is_finished) cache_->release(sequence->blocks);
    if (progress.has_started || has_output) all_progress.push_back(std::move(progress));
  }
  check(next_output == sampled.size(), "one token was sampled per wanted row");
  std::erase_if(running_, [](const SequencePtr& sequence) {
    return sequence->num_scheduled > 0 && sequence->blocks.empty();
  });
  scheduled_.clear();
  return all_progress;
}

RequestProgress RequestBatcher::take_token(Sequence& sequence, TokenId token) {
  RequestProgress progress{.id = sequence.id};
  sequence.tokens.push_back(token);
  progress.token_ids.push_back(token);
  progress.text = sequence.text.push(token);
  const bool is_eos =
      !sequence.sampling.ignore_eos && std::ranges::find(eos_token_ids_, token) != eos_token_ids_.end();
  const bool is_full = sequence.num_generated() >= sequence.sampling.max_tokens;
  if (!sequence.text.is_stopped() && (is_eos || is_full)) progress.text += sequence.text.finish();
  const bool is_stop = is_eos || sequence.text.is_stopped();
  progress.is_finished = is_stop || is_full;
  progress.finish_reason = is_stop ? FinishReason::kStop : FinishReason::kLength;
  return progress;
}

}  // namespace aurora
