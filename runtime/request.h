// What a client asks for and what it gets: the vocabulary between the doors (launch/, later the C and Python
// APIs) and the engine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/model/tokenizer.h"

namespace aurora {

using RequestId = std::uint64_t;

struct SamplingParams {
  float temperature = 0;          // 0: greedy
  std::int32_t top_k = 0;         // 0: all
  float top_p = 1;                // in (0, 1]
  std::uint64_t seed = 0;         // the same seed, prompt and parameters give the same tokens
  std::int32_t max_tokens = 16;   // at least 1
  std::vector<std::string> stop;  // generation ends before the first of these; not part of the text
  bool ignore_eos = false;
};

/// One request. Exactly one of `prompt` and `prompt_token_ids` is used: the ids when present.
struct GenerationRequest {
  RequestId id = 0;   // chosen by the feed, unique in the engine's life
  std::string model;  // name of a loaded model
  std::string prompt;
  std::optional<std::vector<TokenId>> prompt_token_ids;
  SamplingParams sampling;
};

enum class FinishReason : std::uint8_t { kStop, kLength };

/// "stop" or "length".
constexpr const char* finish_reason_name(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

/// Seconds since the request reached the engine.
struct RequestTiming {
  double queued = 0;       // until a rank began to process it
  double first_token = 0;  // until its first token was sampled
  double total = 0;        // until it finished
};

struct GenerationResult {
  RequestId id = 0;
  std::string model;
  std::string text;
  std::vector<TokenId> token_ids;
  FinishReason finish_reason = FinishReason::kLength;
  std::int64_t prompt_tokens = 0;
  RequestTiming timing;
  std::optional<std::string>
      error;  // set: the request failed alone and everything above but id and model is empty
};

/// Where rank 0's engine gets requests and leaves answers. Called from the engine's thread only.
class RequestFeed {
 public:
  virtual ~RequestFeed() = default;
  /// Requests that have arrived, at most `limit`; never blocks.
  virtual std::vector<GenerationRequest> take(std::size_t limit) = 0;
  /// True once no request will ever come again.
  virtual bool is_exhausted() = 0;
  /// Text that became final; the concatenation over a request is its result's text.
  virtual void on_text(RequestId id, const std::string& text, const std::vector<TokenId>& token_ids) = 0;
  virtual void on_finished(GenerationResult result) = 0;
};

}  // namespace aurora
