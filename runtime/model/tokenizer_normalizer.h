// The normalizers of a tokenizer.json: what happens to a text before it is cut into words.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "runtime/model/tokenizer_pattern.h"
#include "runtime/model/tokenizer_pieces.h"
#include "runtime/model/unicode_text.h"

namespace aurora {

/// Puts `text` in front of a piece that is not empty.
struct PrependNormalizer {
  std::string text;
};

/// Puts `content` in the place of every match.
struct ReplaceNormalizer {
  TextPattern pattern;
  std::string content;
};

struct UnicodeNormalizer {
  NormalForm form;
};

/// Removes whitespace at the ends.
struct StripNormalizer {
  bool left;
  bool right;
};

using Normalizer = std::variant<PrependNormalizer, ReplaceNormalizer, UnicodeNormalizer, StripNormalizer>;

/// Applies `steps` in order to the pieces that are no tokens.
PieceList normalize_pieces(PieceList list, const std::vector<Normalizer>& steps);

/// Appends the normalized form of `old_text` to `text`; `piece` says where `old_text` comes from and is
/// updated.
void apply_normalizer(const PrependNormalizer& step, std::string_view old_text, std::string& text,
                      Piece& piece);
void apply_normalizer(const ReplaceNormalizer& step, std::string_view old_text, std::string& text,
                      Piece& piece);
void apply_normalizer(const UnicodeNormalizer& step, std::string_view old_text, std::string& text,
                      Piece& piece);
void apply_normalizer(const StripNormalizer& step, std::string_view old_text, std::string& text,
                      Piece& piece);

}  // namespace aurora
