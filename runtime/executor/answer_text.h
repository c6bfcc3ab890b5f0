// The text of one answer as its tokens arrive: incremental decoding and stop strings.
//
// The text is what `Tokenizer::decode` makes of the answer's ids alone, as in Hugging Face: a tokenizer that
// strips the first space (Mixtral's) strips the answer's too.
//
// Text is handed out only when it is final: half a character is held back, and so is anything that may still
// turn out to be the beginning of a stop string.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "runtime/model/tokenizer.h"

namespace aurora {

class AnswerText {
 public:
  /// `tokenizer` may be null for a model that has none: the text stays empty.
  AnswerText(const Tokenizer* tokenizer, std::vector<std::string> stops);

  /// Text that became final with `token`.
  std::string push(TokenId token);
  /// The rest, once no token follows.
  std::string finish();
  /// True once a stop string was found; the text ends before it.
  bool is_stopped() const { return is_stopped_; }

 private:
  std::string absorb(const std::string& piece);
  std::string emit_up_to(std::size_t end);

  std::optional<IncrementalDecoder> decoder_;
  std::vector<std::string> stops_;
  std::string pending_;  // decoded, not handed out
  bool is_stopped_ = false;
};

}  // namespace aurora
