// The little of Unicode that a tokenizer needs: UTF-8 in and out, three character classes, two normal forms.
//
// Text is UTF-8 in std::string, a character is a code point (char32_t). Everything from outside passes
// `first_invalid_utf8` once; all other functions rely on valid UTF-8.
//
// Classes follow the Rust standard library and the `regex` crate, because Hugging Face `tokenizers` does:
// White_Space, Numeric (Nd, Nl, No) and the \w of UTS #18. Normal forms come from utf8proc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace aurora {

/// U+FFFD in UTF-8: what stands for bytes that are no character.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// What the bytes at the front of a buffer are.
enum class Utf8Prefix : std::uint8_t {
  kCharacter,   // one whole character
  kIncomplete,  // the beginning of a character, and the buffer ends
  kInvalid,     // neither
};

/// The front of `bytes` (not empty): its kind and length. For kInvalid the length is that of the longest
/// beginning of a character, at least 1: what a decoder replaces by one U+FFFD (Unicode 15, section 3.9,
/// "maximal subpart", as String::from_utf8_lossy of Rust does).
struct Utf8Front {
  Utf8Prefix kind;
  std::size_t length;
};
Utf8Front classify_utf8_front(std::string_view bytes) noexcept;

/// The offset of the first byte that is not part of a character, or nothing if all of `bytes` is UTF-8.
/// Surrogates, overlong forms and values beyond U+10FFFF are not UTF-8.
std::optional<std::size_t> first_invalid_utf8(std::string_view bytes) noexcept;

/// Length in bytes of the character that starts with `lead`, the first byte of a character.
std::size_t utf8_length(char lead) noexcept;

/// The character at `offset` of valid UTF-8.
char32_t character_at(std::string_view text, std::size_t offset) noexcept;

/// The start of the character that ends at `end` (> 0) of valid UTF-8.
std::size_t previous_character(std::string_view text, std::size_t end) noexcept;

void append_utf8(char32_t character, std::string& text);

/// The only character of `text`, or nothing if it has none or several.
std::optional<char32_t> single_character(std::string_view text) noexcept;

/// White_Space (char::is_whitespace of Rust, \s of its regex crate).
bool is_whitespace(char32_t character) noexcept;
/// Nd, Nl or No (char::is_numeric of Rust).
bool is_numeric(char32_t character) noexcept;
/// \w of UTS #18: Alphabetic, marks, decimal numbers, connector punctuation, join controls.
bool is_word_character(char32_t character) noexcept;

enum class NormalForm : std::uint8_t { kNfc, kNfkc };

/// `text` (valid UTF-8) in the normal form; O(n log n), linear but for runs of combining marks.
std::string normalize(std::string_view text, NormalForm form);

}  // namespace aurora
