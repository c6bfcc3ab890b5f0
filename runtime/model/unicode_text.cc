#include "runtime/model/unicode_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <vector>

#include "kernels/error.h"

namespace aurora {
namespace {

/// The second byte of a character says more than "continuation": these bounds exclude overlong forms,
/// surrogates and values beyond U+10FFFF (Unicode 15, table 3-7).
struct SecondByteRange {
  unsigned char low;
  unsigned char high;
};

SecondByteRange second_byte_range(unsigned char lead) noexcept {
  switch (lead) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {0x80, 0xBF};
  }
}

/// Whether `character` is its own normal form and takes no part in what precedes it, so that a text may be
/// cut in front of it. Not complete: only the blocks that make up most text are listed; the others take the
/// long way.
bool is_inert(char32_t character, NormalForm form) noexcept {
  if (character < 0x80) return true;
  if (character >= 0x4E00 && character <= 0x9FFF) return true;  // CJK unified ideographs
  if (character >= 0xAC00 && character <= 0xD7A3) return true;  // Hangul syllables
  if (character >= 0x0400 && character <= 0x0482) return true;  // Cyrillic
  if (form == NormalForm::kNfkc) return false;
  return character < 0x0300 || (character >= 0x3001 && character <= 0x3029) ||  // Latin, CJK punctuation
         (character >= 0x3041 && character <= 0x3096) ||
         (character >= 0x30A1 && character <= 0x30FA);  // kana
}

struct CharacterRange {
  char32_t first;
  char32_t last;
};

/// Characters with a decomposition or a combining class that entered Unicode after version 9, which is the
/// version that the normalizers of `tokenizers` 0.23.3 know: there they are plain characters, and so they are
/// here. Found by comparing every code point, alone and between marks.
constexpr CharacterRange kNewerCharacters[] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},
    {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},
    {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x10785},
    {0x10787, 0x107B0}, {0x107B2, 0x107BA}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
    {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938}, {0x1193D, 0x1193E},
    {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

bool is_newer(char32_t character) noexcept {
  const auto* range = std::lower_bound(std::begin(kNewerCharacters), std::end(kNewerCharacters), character,
                                       [](const CharacterRange& r, char32_t c) { return r.last < c; });
  return range != std::end(kNewerCharacters) && range->first <= character;
}

/// Canonical ordering: stable sort by combining class between starters. utf8proc sorts by swapping
/// neighbours, which a hostile run of marks turns quadratic.
void order_marks(std::vector<utf8proc_int32_t>& characters) {
  const auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  auto run = characters.begin();
  while (run != characters.end()) {
    run = std::find_if(run, characters.end(), [&](auto c) { return combining_class(c) != 0; });
    const auto end = std::find_if(run, characters.end(), [&](auto c) { return combining_class(c) == 0; });
    std::stable_sort(run, end, [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
}

void append_normalized(std::string_view text, NormalForm form, std::string& normalized) {
  // UTF8PROC_STABLE keeps to the Unicode stability policy: no composition that a later version would undo.
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE |
                                                      (form == NormalForm::kNfkc ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  constexpr utf8proc_ssize_t kLongestDecomposition = 32;  // 18 in Unicode 15 (U+FDFA)
  for (std::size_t offset = 0; offset < text.size(); offset += utf8_length(text[offset])) {
    std::array<utf8proc_int32_t, kLongestDecomposition> parts;
    int boundary_class = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(character_at(text, offset)), parts.data(),
                                kLongestDecomposition, options, &boundary_class);
    check(count >= 0 && count <= kLongestDecomposition, "utf8proc decomposes every character of valid UTF-8");
    characters.insert(characters.end(), parts.begin(), parts.begin() + count);
  }
  order_marks(characters);
  const utf8proc_ssize_t composed =
      utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()), options);
  check(composed >= 0, "utf8proc composes what it decomposed");
  for (utf8proc_ssize_t i = 0; i < composed; ++i) {
    append_utf8(static_cast<char32_t>(characters[static_cast<std::size_t>(i)]), normalized);
  }
}

}  // namespace

Utf8Front classify_utf8_front(std::string_view bytes) noexcept {
  const auto lead = static_cast<unsigned char>(bytes[0]);
  if (lead < 0x80) return {Utf8Prefix::kCharacter, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Prefix::kInvalid, 1};
  const std::size_t length = utf8_length(bytes[0]);
  SecondByteRange range = second_byte_range(lead);
  for (std::size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Utf8Prefix::kIncomplete, i};
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (byte < range.low || byte > range.high) return {Utf8Prefix::kInvalid, i};
    range = {0x80, 0xBF};
  }
  return {Utf8Prefix::kCharacter, length};
}

std::optional<std::size_t> first_invalid_utf8(std::string_view bytes) noexcept {
  std::size_t offset = 0;
  while (offset < bytes.size()) {
    const Utf8Front front = classify_utf8_front(bytes.substr(offset));
    if (front.kind != Utf8Prefix::kCharacter) return offset;
    offset += front.length;
  }
  return std::nullopt;
}

std::size_t utf8_length(char lead) noexcept {
  const auto byte = static_cast<unsigned char>(lead);
  if (byte < 0x80) return 1;
  if (byte < 0xE0) return 2;
  return byte < 0xF0 ? 3 : 4;
}

char32_t character_at(std::string_view text, std::size_t offset) noexcept {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[offset + i]));
  };
  switch (utf8_length(text[offset])) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

std::size_t previous_character(std::string_view text, std::size_t end) noexcept {
  std::size_t start = end - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
  return start;
}

void append_utf8(char32_t character, std::string& text) {
  const auto put = [&](char32_t bits) {
    text.push_back(static_cast<char>(static_cast<unsigned char>(bits)));
  };
  if (character < 0x80) {
    put(character);
  } else if (character < 0x800) {
    put(0xC0 | character >> 6);
    put(0x80 | (character & 0x3F));
  } else if (character < 0x10000) {
    put(0xE0 | character >> 12);
    put(0x80 | (character >> 6 & 0x3F));
    put(0x80 | (character & 0x3F));
  } else {
    put(0xF0 | character >> 18);
    put(0x80 | (character >> 12 & 0x3F));
    put(0x80 | (character >> 6 & 0x3F));
    put(0x80 | (character & 0x3F));
  }
}

std::optional<char32_t> single_character(std::string_view text) noexcept {
  if (text.empty() || text.size() != utf8_length(text[0])) return std::nullopt;
  return character_at(text, 0);
}

bool is_whitespace(char32_t character) noexcept {
  if (character < 0x80) return character == ' ' || (character >= '\t' && character <= '\r');
  return character == 0x85 || character == 0xA0 || character == 0x1680 ||
         (character >= 0x2000 && character <= 0x200A) || character == 0x2028 || character == 0x2029 ||
         character == 0x202F || character == 0x205F || character == 0x3000;
}

bool is_numeric(char32_t character) noexcept {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(character))) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return true;
    default:
      return false;
  }
}

bool is_word_character(char32_t character) noexcept {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(character))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      break;
  }
  // Join controls, and the symbols (So) with the property Other_Alphabetic: circled and squared Latin
  // letters.
  return character == 0x200C || character == 0x200D || (character >= 0x24B6 && character <= 0x24E9) ||
         (character >= 0x1F130 && character <= 0x1F149) || (character >= 0x1F150 && character <= 0x1F169) ||
         (character >= 0x1F170 && character <= 0x1F189);
}

std::string normalize(std::string_view text, NormalForm form) {
  std::string normalized;
  normalized.reserve(text.size());
  std::size_t copied_until = 0;  // text[0, copied_until) is in `normalized`
  std::size_t boundary = 0;      // where a text before `offset` may be cut last
  for (std::size_t offset = 0; offset < text.size();) {
    const char32_t character = character_at(text, offset);
    const std::size_t next = offset + utf8_length(text[offset]);
    if (is_inert(character, form) || is_newer(character)) {
      boundary = is_newer(character) ? next : offset;  // nothing combines with a newer character
      offset = next;
      continue;
    }
    const auto takes_part = [&](char32_t c) { return !is_inert(c, form) && !is_newer(c); };
    while (offset < text.size() && takes_part(character_at(text, offset)))
      offset += utf8_length(text[offset]);
    const std::size_t segment = std::max(boundary, copied_until);
    normalized.append(text, copied_until, segment - copied_until);
    append_normalized(text.substr(segment, offset - segment), form, normalized);
    copied_until = offset;
  }
  normalized.append(text, copied_until);
  return normalized;
}

}  // namespace aurora
