// A text on its way to the model: cut into pieces, some of which already are tokens.
//
// The steps of encoding hand this structure on: added tokens are cut out, the rest is normalized, cut again
// and finally split into words. All pieces lie in one buffer, so that a step that only cuts copies nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/tokenizer.h"

namespace aurora {

inline constexpr TokenId kNoToken = -1;

struct Piece {
  /// Bytes [begin, end) of PieceList::text; whole characters.
  std::size_t begin = 0;
  std::size_t end = 0;
  /// Not kNoToken: an added token, which later steps leave alone.
  TokenId token = kNoToken;
  /// Whether the piece starts where the caller's text starts: Metaspace with prepend_scheme "first" asks.
  bool at_origin = false;
  /// How many of its first bytes stem from the first character of the caller's text; 0 unless at_origin.
  /// Hugging Face's offsets decide at_origin of a cut piece; they are monotone, so this count is all that is
  /// left of them.
  std::size_t origin_bytes = 0;
};

struct PieceList {
  std::string text;
  std::vector<Piece> pieces;

  std::string_view view(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
};

/// The part [begin, end) of `piece`, relative to its start.
inline Piece cut(const Piece& piece, std::size_t begin, std::size_t end) {
  Piece part;
  part.begin = piece.begin + begin;
  part.end = piece.begin + end;
  part.at_origin = piece.at_origin && begin < piece.origin_bytes;
  part.origin_bytes = part.at_origin ? (piece.origin_bytes < end ? piece.origin_bytes : end) - begin : 0;
  return part;
}

/// A copy of `list` in which each piece that is no token is replaced by what `rewrite` makes of it:
/// `void rewrite(std::string_view old_text, std::string& text, Piece& piece)` appends the new text to `text`
/// and corrects piece.origin_bytes (bounds are set here).
template <typename Rewrite>
PieceList rewrite_pieces(const PieceList& list, Rewrite&& rewrite) {
  PieceList rewritten;
  rewritten.text.reserve(list.text.size() + list.text.size() / 8 + 16);
  rewritten.pieces.reserve(list.pieces.size());
  for (const Piece& piece : list.pieces) {
    Piece copy = piece;
    copy.begin = rewritten.text.size();
    if (piece.token == kNoToken) rewrite(list.view(piece), rewritten.text, copy);
    copy.end = rewritten.text.size();
    rewritten.pieces.push_back(copy);
  }
  return rewritten;
}

}  // namespace aurora
