// What a tokenizer.json searches for: a literal string or a regular expression in the Oniguruma dialect.
//
// Hugging Face `tokenizers` runs its expressions with Oniguruma. We translate the dialect to PCRE2 (UTF and
// UCP modes) where the two read a construct differently (\s, \w, \d, \b, \h, (?m), \uHHHH, {,n}) and refuse
// by name what has no equivalent (nested classes, &&, \G, \R, conditionals, ...), so that a pattern never
// silently means something else.
//
// Properties are those of the installed PCRE2: Unicode 14 with its version 10.42 of Debian 12 and
// Ubuntu 24.04, where Oniguruma has Unicode 16. Case-insensitive matching is by single characters ("ss" does
// not match a sharp s).
//
// Matching is bounded: a search that needs more steps than a limit linear in the length of the text is an
// error, not a hang. Thread-safe: a pattern is immutable, the match state is per call.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace aurora {

/// A part of a text, in bytes, that matches or lies between matches.
struct PatternSpan {
  std::size_t begin;
  std::size_t end;
  bool is_match;
};

class TextPattern {
 public:
  /// Matches `text` itself. Throws kUnsupported when `text` is empty.
  static TextPattern literal(std::string_view text);
  /// `expression` in the Oniguruma dialect. Throws kFormat when it does not compile, kUnsupported naming the
  /// construct that has no equivalent.
  static TextPattern regex(std::string_view expression);

  /// Cuts `text` (valid UTF-8) into spans that cover it in order: leftmost matches and what lies between. An
  /// empty match that directly follows a match is dropped; an empty text is one span that does not match.
  /// Throws kInvalidArgument when the search exceeds its limit of steps or memory.
  std::vector<PatternSpan> find_all(std::string_view text) const;

  /// The searched string of a literal; null for an expression.
  const std::string* literal_text() const noexcept { return code_ ? nullptr : &source_; }

 private:
  struct Code;
  TextPattern(std::string source, std::shared_ptr<const Code> code)
      : source_(std::move(source)), code_(std::move(code)) {}

  std::vector<PatternSpan> find_all_literal(std::string_view text) const;

  std::string source_;
  std::shared_ptr<const Code> code_;  // null for a literal
};

/// The PCRE2 spelling of an expression in the Oniguruma dialect; throws kUnsupported as TextPattern::regex
/// does.
std::string translate_oniguruma(std::string_view expression);

}  // namespace aurora
