#include "runtime/model/tokenizer_pre_tokenizer.h"

#include <algorithm>

#include "runtime/model/tokenizer_normalizer.h"
#include "runtime/model/unicode_text.h"

namespace aurora {

const std::string_view kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

constexpr bool is_its_own_character(unsigned byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr char32_t kFirstSubstitute = 0x100;
constexpr std::size_t kNumByteLevelCharacters = 0x144;  // 68 bytes are not their own character

struct ByteLevelAlphabet {
  std::array<char32_t, 256> character_of{};
  std::array<std::int16_t, kNumByteLevelCharacters> byte_of{};
  std::array<std::array<char, 2>, 256> utf8_of{};
  std::array<std::uint8_t, 256> utf8_length_of{};
};

constexpr ByteLevelAlphabet make_byte_level_alphabet() {
  ByteLevelAlphabet alphabet;
  for (auto& byte : alphabet.byte_of) byte = -1;
  char32_t substitute = kFirstSubstitute;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char32_t character = is_its_own_character(byte) ? byte : substitute++;
    alphabet.character_of[byte] = character;
    alphabet.byte_of[character] = static_cast<std::int16_t>(byte);
    const bool ascii = character < 0x80;
    alphabet.utf8_length_of[byte] = ascii ? 1 : 2;
    alphabet.utf8_of[byte][0] = static_cast<char>(ascii ? character : 0xC0 | character >> 6);
    alphabet.utf8_of[byte][1] = static_cast<char>(0x80 | (character & 0x3F));
  }
  return alphabet;
}

constexpr ByteLevelAlphabet kAlphabet = make_byte_level_alphabet();

void append_byte_level(std::string_view bytes, std::string& text) {
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text.append(kAlphabet.utf8_of[byte].data(), kAlphabet.utf8_length_of[byte]);
  }
}

/// Joins neighbouring spans as `behavior` says. With kRemoved, what still is a match is to be dropped.
std::vector<PatternSpan> join_spans(std::vector<PatternSpan> spans, SplitBehavior behavior) {
  if (behavior == SplitBehavior::kRemoved || behavior == SplitBehavior::kIsolated) return spans;
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::reverse(spans.begin(), spans.end());
  std::vector<PatternSpan> joined;
  bool previous_matches = false;
  for (const PatternSpan& span : spans) {
    const bool joins = behavior == SplitBehavior::kContiguous ? span.is_match == previous_matches
                                                              : span.is_match && !previous_matches;
    previous_matches = span.is_match;
    if (!joins || joined.empty()) {
      joined.push_back(span);
    } else if (backwards) {
      joined.back().begin = span.begin;
    } else {
      joined.back().end = span.end;
    }
  }
  if (backwards) std::reverse(joined.begin(), joined.end());
  return joined;
}

void split_piece(const Piece& piece, std::vector<PatternSpan> spans, SplitBehavior behavior,
                 std::vector<Piece>& pieces) {
  for (const PatternSpan& span : join_spans(std::move(spans), behavior)) {
    const bool removed = behavior == SplitBehavior::kRemoved && span.is_match;
    if (!removed && span.begin != span.end) pieces.push_back(cut(piece, span.begin, span.end));
  }
}

/// A copy of `list` in which each piece that is no token is replaced by those that `split` appends.
template <typename Split>
PieceList split_pieces(PieceList list, Split&& split) {
  std::vector<Piece> pieces;
  pieces.reserve(list.pieces.size());
  for (const Piece& piece : list.pieces) {
    if (piece.token != kNoToken) {
      pieces.push_back(piece);
    } else {
      split(list.view(piece), piece, pieces);
    }
  }
  list.pieces = std::move(pieces);
  return list;
}

PieceList apply(PieceList list, const SplitPreTokenizer& step) {
  return split_pieces(std::move(list),
                      [&](std::string_view text, const Piece& piece, std::vector<Piece>& pieces) {
                        std::vector<PatternSpan> spans = step.pattern.find_all(text);
                        if (step.invert) {
                          for (PatternSpan& span : spans) span.is_match = !span.is_match;
                        }
                        split_piece(piece, std::move(spans), step.behavior, pieces);
                      });
}

PieceList apply(PieceList list, const ByteLevelPreTokenizer& step) {
  if (step.add_prefix_space) {
    list = rewrite_pieces(list, [&](std::string_view old_text, std::string& text, Piece& piece) {
      const bool has_space = old_text.starts_with(' ');
      apply_normalizer(PrependNormalizer{has_space ? "" : " "}, old_text, text, piece);
    });
  }
  if (step.split) {
    list = split_pieces(std::move(list),
                        [&](std::string_view text, const Piece& piece, std::vector<Piece>& pieces) {
                          split_piece(piece, step.words.find_all(text), SplitBehavior::kIsolated, pieces);
                        });
  }
  return rewrite_pieces(list, [](std::string_view old_text, std::string& text, Piece& piece) {
    const std::size_t begin = text.size();
    append_byte_level(old_text.substr(0, piece.origin_bytes), text);
    const std::size_t origin_bytes = text.size() - begin;
    append_byte_level(old_text.substr(piece.origin_bytes), text);
    piece.origin_bytes = origin_bytes;
  });
}

PieceList apply(PieceList list, const DigitsPreTokenizer& step) {
  const SplitBehavior behavior = step.individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
  return split_pieces(std::move(list),
                      [&](std::string_view text, const Piece& piece, std::vector<Piece>& pieces) {
                        std::vector<PatternSpan> spans;
                        std::size_t last = 0;
                        for (std::size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
                          if (!is_numeric(character_at(text, at))) continue;
                          if (last != at) spans.push_back({last, at, false});
                          last = at + utf8_length(text[at]);
                          spans.push_back({at, last, true});
                        }
                        if (last != text.size()) spans.push_back({last, text.size(), false});
                        split_piece(piece, std::move(spans), behavior, pieces);
                      });
}

PieceList apply(PieceList list, const MetaspacePreTokenizer& step) {
  const std::string& mark = *step.mark.literal_text();
  list = rewrite_pieces(list, [&](std::string_view old_text, std::string& text, Piece& piece) {
    std::string marked;
    apply_normalizer(ReplaceNormalizer{step.space, mark}, old_text, marked, piece);
    const bool prepends =
        !marked.starts_with(mark) && (step.prepend_scheme == PrependScheme::kAlways ||
                                      (step.prepend_scheme == PrependScheme::kFirst && piece.at_origin));
    apply_normalizer(PrependNormalizer{prepends ? mark : ""}, marked, text, piece);
  });
  if (!step.split) return list;
  return split_pieces(std::move(list),
                      [&](std::string_view text, const Piece& piece, std::vector<Piece>& pieces) {
                        split_piece(piece, step.mark.find_all(text), SplitBehavior::kMergedWithNext, pieces);
                      });
}

}  // namespace

char32_t byte_level_character(unsigned char byte) noexcept { return kAlphabet.character_of[byte]; }

int byte_level_byte(char32_t character) noexcept {
  return character < kNumByteLevelCharacters ? kAlphabet.byte_of[character] : -1;
}

PieceList pre_tokenize_pieces(PieceList list, const std::vector<PreTokenizer>& steps) {
  for (const PreTokenizer& pre_tokenizer : steps) {
    list = std::visit([&](const auto& step) { return apply(std::move(list), step); }, pre_tokenizer);
  }
  return list;
}

}  // namespace aurora
