#include "runtime/model/tokenizer_decoder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "runtime/model/tokenizer_pre_tokenizer.h"
#include "runtime/model/unicode_text.h"

namespace aurora {
namespace {

/// Text (or bytes) that waits, with how much of its front stems from the context.
struct HeldText {
  std::string text;
  std::size_t context_bytes = 0;

  void append(std::string_view more, bool generated) {
    text += more;
    if (!generated) context_bytes = text.size();
  }
  void erase_front(std::size_t count) {
    text.erase(0, count);
    context_bytes -= std::min(count, context_bytes);
  }
  void clear() {
    text.clear();
    context_bytes = 0;
  }
  /// Whether something that ends at `end` stems from a generated token.
  bool is_generated(std::size_t end) const { return end > context_bytes; }
  /// Passes [begin, end) on; context_bytes must be a character boundary.
  void pass_on(std::size_t begin, std::size_t end, DecoderStage& next) const {
    const std::size_t middle = std::clamp(context_bytes, begin, end);
    const std::string_view view = text;
    if (begin < middle) next.append(view.substr(begin, middle - begin), false);
    if (middle < end) next.append(view.substr(middle, end - middle), true);
  }
};

/// The end of the chain.
class TextSink : public DecoderStage {
 public:
  explicit TextSink(std::string& text) : text_(text) {}
  void append(std::string_view text, bool generated) override {
    if (generated) text_ += text;
  }
  void end_string() override {}
  void finish() override {}

 private:
  std::string& text_;
};

/// A stage that can only work on whole strings.
class WholeStringStage : public DecoderStage {
 public:
  void append(std::string_view text, bool generated) override {
    string_.append(text, generated);
    generated_ = generated;
  }
  void end_string() override {
    take_string(string_, generated_);
    string_.clear();
  }

 protected:
  /// `generated`: whether the string ended with a generated token.
  virtual void take_string(const HeldText& string, bool generated) = 0;

 private:
  HeldText string_;
  bool generated_ = false;
};

class ByteLevelStage : public WholeStringStage {
 public:
  explicit ByteLevelStage(DecoderStage& next) : next_(next) {}

  void finish() override {
    if (!bytes_.text.empty()) {  // one incomplete character
      next_.append(kReplacementCharacter, bytes_.is_generated(bytes_.text.size()));
    }
    bytes_.clear();
    next_.end_string();
    next_.finish();
  }

 protected:
  void take_string(const HeldText& string, bool generated) override {
    bytes_.append(to_bytes(string.text), generated);
    const std::string_view bytes = bytes_.text;
    std::size_t at = 0;
    while (at < bytes.size()) {
      const Utf8Front front = classify_utf8_front(bytes.substr(at));
      if (front.kind == Utf8Prefix::kIncomplete) break;
      const bool valid = front.kind == Utf8Prefix::kCharacter;
      const std::size_t end = at + front.length;
      next_.append(valid ? bytes.substr(at, front.length) : kReplacementCharacter, bytes_.is_generated(end));
      at = end;
    }
    bytes_.erase_front(at);
  }

 private:
  /// The bytes that a token spells; a token with other characters than those of bytes is text itself.
  static std::string to_bytes(const std::string& token) {
    std::string bytes;
    for (std::size_t at = 0; at < token.size(); at += utf8_length(token[at])) {
      const int byte = byte_level_byte(character_at(token, at));
      if (byte < 0) return token;
      bytes += static_cast<char>(static_cast<unsigned char>(byte));
    }
    return bytes;
  }

  DecoderStage& next_;
  HeldText bytes_;  // the beginning of a character
};

class ByteFallbackStage : public WholeStringStage {
 public:
  explicit ByteFallbackStage(DecoderStage& next) : next_(next) {}

  void finish() override {
    end_run();
    next_.finish();
  }

 protected:
  void take_string(const HeldText& string, bool generated) override {
    if (const auto byte = parse_byte_token(string.text)) {
      extend_run(*byte, generated);
    } else {
      end_run();
      string.pass_on(0, string.text.size(), next_);
      next_.end_string();
    }
  }

 private:
  /// "<0x0A>": 10. Like Rust's from_str_radix, takes a plus sign for a digit's place.
  static std::optional<char> parse_byte_token(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    const auto digit = [](char c) {
      if (c >= '0' && c <= '9') return c - '0';
      if (c >= 'a' && c <= 'f') return c - 'a' + 10;
      return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    };
    const int high = token[3] == '+' ? 0 : digit(token[3]);
    const int low = digit(token[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<char>(high << 4 | low);
  }

  void extend_run(char byte, bool generated) {
    if (broken_) {
      replace_byte(generated);
      return;
    }
    run_.append(std::string_view(&byte, 1), generated);
    const std::string_view tail = std::string_view(run_.text).substr(num_valid_bytes_);
    const Utf8Front front = classify_utf8_front(tail);
    if (front.kind == Utf8Prefix::kCharacter) num_valid_bytes_ += front.length;
    if (front.kind == Utf8Prefix::kInvalid) break_run();
  }

  void break_run() {
    for (std::size_t i = 0; i < run_.text.size(); ++i) replace_byte(run_.is_generated(i + 1));
    broken_ = true;
  }

  void replace_byte(bool generated) {
    next_.append(kReplacementCharacter, generated);
    next_.end_string();
  }

  void end_run() {
    if (!broken_ && !run_.text.empty()) {
      if (num_valid_bytes_ == run_.text.size()) {
        pass_on_run();
      } else {
        break_run();
      }
    }
    run_.clear();
    num_valid_bytes_ = 0;
    broken_ = false;
  }

  void pass_on_run() {
    std::size_t boundary = run_.context_bytes;  // of characters: one that is shared counts as generated
    while (boundary > 0 && boundary < run_.text.size() &&
           (static_cast<unsigned char>(run_.text[boundary]) & 0xC0) == 0x80) {
      --boundary;
    }
    run_.context_bytes = boundary;
    run_.pass_on(0, run_.text.size(), next_);
    next_.end_string();
  }

  DecoderStage& next_;
  HeldText run_;                     // the bytes of the current run of byte tokens
  std::size_t num_valid_bytes_ = 0;  // whole characters at its front
  bool broken_ = false;              // the run is not UTF-8; its bytes so far are passed on
};

class FuseStage : public DecoderStage {
 public:
  explicit FuseStage(DecoderStage& next) : next_(next) {}
  void append(std::string_view text, bool generated) override { next_.append(text, generated); }
  void end_string() override {}
  void finish() override {
    next_.end_string();
    next_.finish();
  }

 private:
  DecoderStage& next_;
};

class StripStage : public DecoderStage {
 public:
  StripStage(const StripDecoder& step, DecoderStage& next)
      : step_(step), leading_left_(step.start), next_(next) {
    append_utf8(step.character, character_);
  }

  void append(std::string_view text, bool generated) override {
    while (leading_left_ > 0 && text.starts_with(character_)) {
      text.remove_prefix(character_.size());
      --leading_left_;
    }
    if (text.empty()) return;
    leading_left_ = 0;
    std::size_t num_trailing = 0;
    while (step_.stop > 0 && text.ends_with(character_)) {
      text.remove_suffix(character_.size());
      ++num_trailing;
    }
    if (!text.empty()) {
      pass_on_held(0);
      next_.append(text, generated);
    }
    num_held_ += num_trailing;
    if (!generated) num_held_context_ = num_held_;
    pass_on_held(step_.stop);
  }

  void end_string() override {
    num_held_ = num_held_context_ = 0;
    leading_left_ = step_.start;
    next_.end_string();
  }

  void finish() override { next_.finish(); }

 private:
  void pass_on_held(std::size_t num_kept) {
    for (; num_held_ > num_kept; --num_held_) {
      next_.append(character_, num_held_context_ == 0);
      if (num_held_context_ > 0) --num_held_context_;
    }
  }

  StripDecoder step_;
  std::string character_;
  std::size_t leading_left_;          // how many more leading characters to cut; 0 behind the first other one
  std::size_t num_held_ = 0;          // trailing characters that are cut if the string ends here
  std::size_t num_held_context_ = 0;  // how many of them stem from the context
  DecoderStage& next_;
};

class ReplaceLiteralStage : public DecoderStage {
 public:
  ReplaceLiteralStage(const ReplaceDecoder& step, DecoderStage& next)
      : pattern_(*step.pattern.literal_text()), content_(step.content), next_(next) {}

  void append(std::string_view text, bool generated) override {
    held_.append(text, generated);
    std::size_t last = 0;
    for (std::size_t at = held_.text.find(pattern_); at != std::string::npos;
         at = held_.text.find(pattern_, last)) {
      held_.pass_on(last, at, next_);
      last = at + pattern_.size();
      next_.append(content_, held_.is_generated(last));
    }
    const std::size_t certain =
        held_.text.size() - possible_beginning(std::string_view(held_.text).substr(last));
    held_.pass_on(last, certain, next_);
    held_.erase_front(certain);
  }

  void end_string() override {
    held_.pass_on(0, held_.text.size(), next_);
    held_.clear();
    next_.end_string();
  }

  void finish() override { next_.finish(); }

 private:
  /// Length of the longest end of `text` that begins the pattern without completing it.
  std::size_t possible_beginning(std::string_view text) const {
    std::size_t length = std::min(pattern_.size() - 1, text.size());
    while (length > 0 && !pattern_.starts_with(text.substr(text.size() - length))) --length;
    return length;
  }

  const std::string& pattern_;
  const std::string& content_;
  HeldText held_;
  DecoderStage& next_;
};

class ReplaceRegexStage : public WholeStringStage {
 public:
  ReplaceRegexStage(const ReplaceDecoder& step, DecoderStage& next) : step_(step), next_(next) {}
  void finish() override { next_.finish(); }

 protected:
  void take_string(const HeldText& string, bool /*generated*/) override {
    for (const PatternSpan& span : step_.pattern.find_all(string.text)) {
      if (span.is_match) {
        next_.append(step_.content, string.is_generated(span.end));
      } else {
        string.pass_on(span.begin, span.end, next_);
      }
    }
    next_.end_string();
  }

 private:
  const ReplaceDecoder& step_;
  DecoderStage& next_;
};

class MetaspaceStage : public DecoderStage {
 public:
  MetaspaceStage(const MetaspaceDecoder& step, DecoderStage& next) : drops_(step.drops_first), next_(next) {
    append_utf8(step.replacement, replacement_);
  }

  void append(std::string_view text, bool generated) override {
    std::size_t at = 0;
    while (at < text.size()) {
      const std::size_t found = std::min(text.find(replacement_, at), text.size());
      if (at < found) next_.append(text.substr(at, found - at), generated);
      if (found < text.size() && !drops_) next_.append(" ", generated);
      at = found + replacement_.size();
    }
  }

  void end_string() override {
    drops_ = false;
    next_.end_string();
  }

  void finish() override { next_.finish(); }

 private:
  std::string replacement_;
  bool drops_;  // only in the first string
  DecoderStage& next_;
};

class SpacedStage : public DecoderStage {
 public:
  explicit SpacedStage(DecoderStage& next) : next_(next) {}
  void append(std::string_view text, bool generated) override {
    if (std::exchange(needs_space_, false)) next_.append(" ", generated);
    next_.append(text, generated);
  }
  void end_string() override { needs_space_ = true; }
  void finish() override {
    next_.end_string();
    next_.finish();
  }

 private:
  bool needs_space_ = false;
  DecoderStage& next_;
};

std::unique_ptr<DecoderStage> make_stage(const ByteLevelDecoder&, DecoderStage& next) {
  return std::make_unique<ByteLevelStage>(next);
}
std::unique_ptr<DecoderStage> make_stage(const ByteFallbackDecoder&, DecoderStage& next) {
  return std::make_unique<ByteFallbackStage>(next);
}
std::unique_ptr<DecoderStage> make_stage(const FuseDecoder&, DecoderStage& next) {
  return std::make_unique<FuseStage>(next);
}
std::unique_ptr<DecoderStage> make_stage(const StripDecoder& step, DecoderStage& next) {
  return std::make_unique<StripStage>(step, next);
}
std::unique_ptr<DecoderStage> make_stage(const ReplaceDecoder& step, DecoderStage& next) {
  if (step.pattern.literal_text() != nullptr) return std::make_unique<ReplaceLiteralStage>(step, next);
  return std::make_unique<ReplaceRegexStage>(step, next);
}
std::unique_ptr<DecoderStage> make_stage(const MetaspaceDecoder& step, DecoderStage& next) {
  return std::make_unique<MetaspaceStage>(step, next);
}
std::unique_ptr<DecoderStage> make_stage(const SpacedDecoder&, DecoderStage& next) {
  return std::make_unique<SpacedStage>(next);
}

}  // namespace

DecoderStream::DecoderStream(const std::vector<Decoder>& decoders) : text_(std::make_unique<std::string>()) {
  stages_.push_back(std::make_unique<TextSink>(*text_));
  for (auto decoder = decoders.rbegin(); decoder != decoders.rend(); ++decoder) {
    stages_.push_back(
        std::visit([&](const auto& step) { return make_stage(step, *stages_.back()); }, *decoder));
  }
  std::reverse(stages_.begin(), stages_.end());
}

DecoderStream::DecoderStream(DecoderStream&&) noexcept = default;
DecoderStream& DecoderStream::operator=(DecoderStream&&) noexcept = default;
DecoderStream::~DecoderStream() = default;

void DecoderStream::push(std::string_view token, bool generated) {
  stages_.front()->append(token, generated);
  stages_.front()->end_string();
}

void DecoderStream::finish() { stages_.front()->finish(); }

std::string DecoderStream::take_text() { return std::exchange(*text_, {}); }

}  // namespace aurora
