// The decoders of a tokenizer.json: how tokens become text again, one token at a time.
//
// Hugging Face describes decoding as a chain of functions from a list of strings to a list of strings. Here
// every link is a stage that receives the pieces of those strings as they come and passes on what can no
// longer change, so that decoding a whole sequence and decoding it token by token are the same computation. A
// stage that must look ahead holds text back:
//   ByteLevel     the beginning of a character (at most 3 bytes)
//   ByteFallback  a run of byte tokens: it is text if all of it is UTF-8, else one U+FFFD per token, so that
//   one
//                 bad byte changes the whole run; what is certain to be bad is passed on at once
//   Replace       what may be the beginning of a match; for a regular expression everything up to the end of
//   the string Strip         what it may have to cut from the end
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/model/tokenizer_pattern.h"

namespace aurora {

struct ByteLevelDecoder {};
struct ByteFallbackDecoder {};
struct FuseDecoder {};

/// Cuts up to `start` leading and `stop` trailing `character`s off each string.
struct StripDecoder {
  char32_t character;
  std::size_t start;
  std::size_t stop;
};

struct ReplaceDecoder {
  TextPattern pattern;
  std::string content;
};

/// Writes `replacement` as a space, or as nothing in the first string if the pre-tokenizer prepended it.
struct MetaspaceDecoder {
  char32_t replacement;
  bool drops_first;
};

/// A file without decoder: the tokens, with spaces between.
struct SpacedDecoder {};

using Decoder = std::variant<ByteLevelDecoder, ByteFallbackDecoder, FuseDecoder, StripDecoder, ReplaceDecoder,
                             MetaspaceDecoder, SpacedDecoder>;

/// One link of the chain at work. Calls come as (append* end_string)* finish.
class DecoderStage {
 public:
  DecoderStage() = default;
  DecoderStage(const DecoderStage&) = delete;
  DecoderStage& operator=(const DecoderStage&) = delete;
  virtual ~DecoderStage() = default;

  /// More of the current string: whole characters. `generated` says whether the text stems from a generated
  /// token rather than from the context, which comes first. A character that context and generated tokens
  /// share is generated.
  virtual void append(std::string_view text, bool generated) = 0;
  virtual void end_string() = 0;
  virtual void finish() = 0;
};

/// A chain at work on one sequence of tokens. Keeps references into `decoders`.
class DecoderStream {
 public:
  explicit DecoderStream(const std::vector<Decoder>& decoders);
  DecoderStream(DecoderStream&&) noexcept;
  DecoderStream& operator=(DecoderStream&&) noexcept;
  ~DecoderStream();

  void push(std::string_view token, bool generated);
  /// Says that no token follows: everything held back becomes text.
  void finish();
  /// The text of generated tokens that became certain since the last call.
  std::string take_text();

 private:
  std::unique_ptr<std::string> text_;
  std::vector<std::unique_ptr<DecoderStage>> stages_;  // the first receives tokens; each knows the next
};

}  // namespace aurora
