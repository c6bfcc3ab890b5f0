#include "runtime/model/tokenizer_added_tokens.h"

#include <algorithm>

#include "runtime/model/unicode_text.h"

namespace aurora {
namespace {

bool is_single_word(std::string_view text, std::size_t begin, std::size_t end) {
  const bool word_before =
      begin > 0 && is_word_character(character_at(text, previous_character(text, begin)));
  const bool word_after = end < text.size() && is_word_character(character_at(text, end));
  return !word_before && !word_after;
}

std::size_t skip_spaces_left(std::string_view text, std::size_t begin) {
  while (begin > 0) {
    const std::size_t previous = previous_character(text, begin);
    if (!is_whitespace(character_at(text, previous))) break;
    begin = previous;
  }
  return begin;
}

std::size_t skip_spaces_right(std::string_view text, std::size_t end) {
  while (end < text.size() && is_whitespace(character_at(text, end))) end += utf8_length(text[end]);
  return end;
}

}  // namespace

bool AddedTokenMatcher::add(std::string_view pattern, const AddedToken& token) {
  std::uint32_t node = 0;
  for (const char c : pattern) {
    const std::uint64_t edge = std::uint64_t{node} << 8 | static_cast<unsigned char>(c);
    const auto [entry, is_new] = edges_.try_emplace(edge, num_nodes_);
    if (is_new) ++num_nodes_;
    node = entry->second;
  }
  starts_[static_cast<unsigned char>(pattern[0])] = true;
  return token_of_node_.try_emplace(node, token).second;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::find_longest_at(std::string_view text,
                                                                           std::size_t begin) const {
  std::optional<Match> longest;
  std::uint32_t node = 0;
  for (std::size_t at = begin; at < text.size(); ++at) {
    const auto edge = edges_.find(std::uint64_t{node} << 8 | static_cast<unsigned char>(text[at]));
    if (edge == edges_.end()) break;
    node = edge->second;
    const auto token = token_of_node_.find(node);
    if (token != token_of_node_.end()) longest = Match{begin, at + 1, &token->second};
  }
  return longest;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::find_next(std::string_view text,
                                                                     std::size_t from) const {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    if (const auto match = find_longest_at(text, begin)) return match;
  }
  return std::nullopt;
}

void AddedTokenMatcher::cut_piece(std::string_view text, const Piece& piece,
                                  std::vector<Piece>& pieces) const {
  std::size_t last = 0;  // text[0, last) is in `pieces`
  std::size_t from =
      0;  // the search goes on behind the bare match, even if the token swallowed spaces behind it
  while (const auto match = find_next(text, from)) {
    from = match->end;
    if (match->token->single_word && !is_single_word(text, match->begin, match->end)) continue;
    std::size_t begin = match->begin;
    if (match->token->lstrip) begin = std::max(skip_spaces_left(text, begin), last);
    const std::size_t end = match->token->rstrip ? skip_spaces_right(text, match->end) : match->end;
    if (last < begin) pieces.push_back(cut(piece, last, begin));
    Piece token = cut(piece, begin, end);
    token.token = match->token->id;
    pieces.push_back(token);
    last = end;
  }
  if (last < text.size()) pieces.push_back(cut(piece, last, text.size()));
}

void AddedTokenMatcher::cut_out(PieceList& list) const {
  std::vector<Piece> pieces;
  pieces.reserve(list.pieces.size());
  for (const Piece& piece : list.pieces) {
    if (piece.token != kNoToken) {
      pieces.push_back(piece);
    } else if (piece.begin != piece.end) {
      cut_piece(list.view(piece), piece, pieces);
    }
  }
  list.pieces = std::move(pieces);
}

}  // namespace aurora
