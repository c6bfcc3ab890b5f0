#include "runtime/model/tokenizer_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "kernels/error.h"
#include "runtime/model/strict_json.h"
#include "runtime/model/unicode_text.h"

namespace aurora {
namespace {

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

struct FreeCode {
  void operator()(pcre2_code* code) const noexcept { pcre2_code_free(code); }
};
struct FreeMatchData {
  void operator()(pcre2_match_data* data) const noexcept { pcre2_match_data_free(data); }
};
struct FreeMatchContext {
  void operator()(pcre2_match_context* context) const noexcept { pcre2_match_context_free(context); }
};
struct FreeCompileContext {
  void operator()(pcre2_compile_context* context) const noexcept { pcre2_compile_context_free(context); }
};

/// Steps that one search may take. The expressions of published tokenizers need a few per character that they
/// look at; 32 leaves room, and the constant lets short texts backtrack freely.
std::uint32_t match_limit(std::size_t text_bytes) {
  constexpr std::size_t kFreeSteps = 100'000;
  return static_cast<std::uint32_t>(std::min<std::size_t>(kFreeSteps + 32 * text_bytes, 1'000'000'000));
}

/// Memory for backtracking that one search may take, in KiB: PCRE2 stores about 200 bytes per pending choice,
/// and a run of n characters can leave n of them.
std::uint32_t heap_limit_kib(std::size_t text_bytes) {
  return static_cast<std::uint32_t>(std::min<std::size_t>(1024 + text_bytes, 4u << 20));
}

}  // namespace

struct TextPattern::Code {
  std::unique_ptr<pcre2_code, FreeCode> compiled;
};

TextPattern TextPattern::literal(std::string_view text) {
  if (text.empty()) throw Error(ErrorKind::kUnsupported, "an empty pattern is not supported");
  return TextPattern(std::string(text), nullptr);
}

TextPattern TextPattern::regex(std::string_view expression) {
  const std::string translated = translate_oniguruma(expression);
  const std::unique_ptr<pcre2_compile_context, FreeCompileContext> context(
      pcre2_compile_context_create(nullptr));
  if (!context) throw Error(ErrorKind::kOutOfMemory, "no memory to compile a regular expression");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Code>();
  // MULTILINE because ^ and $ stand for lines in Oniguruma; NEVER_BACKSLASH_C keeps matches on whole
  // characters.
  constexpr std::uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  compiled->compiled.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                         kOptions, &code, &offset, context.get()));
  if (!compiled->compiled) {
    throw Error(ErrorKind::kFormat, "regular expression " + quote_for_message(expression) +
                                        " does not compile: " + pcre2_message(code) + ", at byte " +
                                        std::to_string(offset) + " of its PCRE2 form " +
                                        quote_for_message(translated));
  }
  // An optimisation only: where PCRE2 has no just-in-time compiler, matching interprets.
  pcre2_jit_compile(compiled->compiled.get(), PCRE2_JIT_COMPLETE);
  return TextPattern(std::string(expression), std::move(compiled));
}

std::vector<PatternSpan> TextPattern::find_all_literal(std::string_view text) const {
  std::vector<PatternSpan> spans;
  std::size_t last = 0;
  for (std::size_t at = text.find(source_); at != std::string_view::npos; at = text.find(source_, last)) {
    if (at != last) spans.push_back({last, at, false});
    last = at + source_.size();
    spans.push_back({at, last, true});
  }
  if (last != text.size()) spans.push_back({last, text.size(), false});
  return spans;
}

std::vector<PatternSpan> TextPattern::find_all(std::string_view text) const {
  if (text.empty()) return {{0, 0, false}};
  if (!code_) return find_all_literal(text);
  const pcre2_code* code = code_->compiled.get();
  const std::unique_ptr<pcre2_match_data, FreeMatchData> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, FreeMatchContext> context(pcre2_match_context_create(nullptr));
  if (!data || !context) throw Error(ErrorKind::kOutOfMemory, "no memory to match a regular expression");
  pcre2_set_match_limit(context.get(), match_limit(text.size()));
  pcre2_set_heap_limit(context.get(), heap_limit_kib(text.size()));
  const auto search = [&](std::size_t from) {
    const auto run = [&](std::uint32_t options) {
      return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                         options | PCRE2_NO_UTF_CHECK, data.get(), context.get());
    };
    const int found = run(0);
    // Compiled code keeps its choices on a small stack; the interpreter has the heap.
    return found == PCRE2_ERROR_JIT_STACKLIMIT ? run(PCRE2_NO_JIT) : found;
  };

  std::vector<PatternSpan> spans;
  std::size_t from = 0;  // where the next search starts
  std::size_t last = 0;  // text[0, last) is in `spans`
  bool has_match = false;
  while (from <= text.size()) {
    const int found = search(from);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      throw Error(ErrorKind::kInvalidArgument,
                  "regular expression " + quote_for_message(source_) + " gave up on a text of " +
                      std::to_string(text.size()) + " bytes, at byte " + std::to_string(from) + ": " +
                      pcre2_message(found) + "; shorten the text or its longest word");
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data.get());
    const std::size_t begin = offsets[0];
    const std::size_t end = offsets[1];
    if (begin == end && has_match && end == last) {  // an empty match right behind a match does not count
      from += from < text.size() ? utf8_length(text[from]) : 1;
      continue;
    }
    if (begin != last) spans.push_back({last, begin, false});
    spans.push_back({begin, end, true});
    last = from = end;
    has_match = true;
  }
  if (last != text.size()) spans.push_back({last, text.size(), false});
  return spans;
}

}  // namespace aurora
