// The added tokens of a tokenizer.json: strings that are one token each wherever they occur.
//
// They are cut out of the text before anything else looks at it: those with `normalized` false from the
// caller's text, the others (in their normalized form) from the normalized rest. Where several match, the
// leftmost and then the longest wins.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/model/tokenizer_pieces.h"

namespace aurora {

struct AddedToken {
  TokenId id = kNoToken;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // swallows whitespace on its left
  bool rstrip = false;       // and on its right
  bool normalized = false;
  bool special = false;  // may be left out when decoding
};

/// Cuts a set of added tokens out of texts.
class AddedTokenMatcher {
 public:
  /// `token` matches where `pattern` (not empty) stands. False if the pattern is taken.
  bool add(std::string_view pattern, const AddedToken& token);

  /// Cuts the pieces that are no tokens; empty ones vanish.
  void cut_out(PieceList& list) const;

 private:
  struct Match {
    std::size_t begin;
    std::size_t end;
    const AddedToken* token;
  };
  std::optional<Match> find_longest_at(std::string_view text, std::size_t begin) const;
  std::optional<Match> find_next(std::string_view text, std::size_t from) const;
  void cut_piece(std::string_view text, const Piece& piece, std::vector<Piece>& pieces) const;

  // A trie over bytes: edges_[node << 8 | byte] is the next node; node 0 is the root.
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;
  std::unordered_map<std::uint32_t, AddedToken> token_of_node_;
  std::uint32_t num_nodes_ = 1;
  bool starts_[256] = {};  // bytes that a pattern starts with
};

}  // namespace aurora
