#include "runtime/model/tokenizer_normalizer.h"

#include <algorithm>

namespace aurora {

void apply_normalizer(const PrependNormalizer& step, std::string_view old_text, std::string& text,
                      Piece& piece) {
  if (old_text.empty()) return;
  // What is inserted counts as part of the character it stands before.
  if (piece.origin_bytes > 0) piece.origin_bytes += step.text.size();
  text += step.text;
  text += old_text;
}

void apply_normalizer(const ReplaceNormalizer& step, std::string_view old_text, std::string& text,
                      Piece& piece) {
  const std::size_t begin = text.size();
  const std::size_t old_origin = piece.origin_bytes;
  piece.origin_bytes = 0;
  for (const PatternSpan& span : step.pattern.find_all(old_text)) {
    if (span.is_match) {
      text += step.content;
      // The new content stems from the last replaced character.
      if (span.end <= old_origin) piece.origin_bytes = text.size() - begin;
    } else {
      text += old_text.substr(span.begin, span.end - span.begin);
      if (span.begin < old_origin) {
        const std::size_t beyond = span.end - std::min(span.end, old_origin);
        piece.origin_bytes = text.size() - begin - beyond;
      }
    }
  }
}

void apply_normalizer(const UnicodeNormalizer& step, std::string_view old_text, std::string& text,
                      Piece& piece) {
  const std::string normalized = normalize(old_text, step.form);
  if (piece.origin_bytes > 0) {
    const std::string first = normalize(old_text.substr(0, piece.origin_bytes), step.form);
    piece.origin_bytes = std::min(first.size(), normalized.size());
  }
  text += normalized;
}

void apply_normalizer(const StripNormalizer& step, std::string_view old_text, std::string& text,
                      Piece& piece) {
  std::size_t begin = 0;
  while (step.left && begin < old_text.size() && is_whitespace(character_at(old_text, begin))) {
    begin += utf8_length(old_text[begin]);
  }
  std::size_t end = old_text.size();
  while (step.right && end > begin) {
    const std::size_t last = previous_character(old_text, end);
    if (!is_whitespace(character_at(old_text, last))) break;
    end = last;
  }
  text += old_text.substr(begin, end - begin);
  piece.origin_bytes -= std::min(begin, piece.origin_bytes);
}

PieceList normalize_pieces(PieceList list, const std::vector<Normalizer>& steps) {
  for (const Normalizer& normalizer : steps) {
    list = std::visit(
        [&](const auto& step) {
          return rewrite_pieces(list, [&](std::string_view old_text, std::string& text, Piece& piece) {
            apply_normalizer(step, old_text, text, piece);
          });
        },
        normalizer);
  }
  return list;
}

}  // namespace aurora
