// Byte pair encoding: a word becomes characters, and neighbours are merged, best rank first, until no merge
// applies.
//
// Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units", ACL 2016;
// the details (byte fallback, fusing of unknown characters, order of equal ranks) as in Hugging Face
// `tokenizers`. A word of n characters takes O(n log n): candidates wait in a heap ordered by rank, then
// position.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "runtime/model/tokenizer_pieces.h"

namespace aurora {

/// What a tokenizer.json says about its model; ids are unique and not negative.
struct BpeDescription {
  std::vector<std::pair<std::string, TokenId>> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  std::optional<std::string> unknown_token;
  bool fuse_unknown = false;  // neighbouring unknown characters are one token
  bool byte_fallback =
      false;  // an unknown character becomes tokens <0x00> ... <0xFF> if the vocabulary has them
  bool ignore_merges = false;  // a word in the vocabulary is taken whole
};

class BpeModel {
 public:
  /// Throws kFormat naming the merge whose parts or result are not in the vocabulary, or the id given twice.
  explicit BpeModel(BpeDescription description);

  /// The end of the longest front of `word` (not empty) that can be encoded by itself: no merge reaches
  /// across, so that the tokens of the word are those of its parts. Texts without pre-tokenizer are one word;
  /// this is what makes short ones of it.
  std::size_t independent_front(std::string_view word) const;

  /// Appends the tokens of `word` (valid UTF-8). Throws kFormat when the word needs the unknown token and the
  /// vocabulary lacks it.
  void encode_word(std::string_view word, std::vector<TokenId>& ids) const;

  std::optional<TokenId> token_to_id(std::string_view token) const;
  /// The token with this id; null if there is none.
  const std::string* id_to_token(TokenId id) const;
  /// The number of tokens, which is the id that the first added token gets.
  std::int64_t num_tokens() const { return static_cast<std::int64_t>(token_of_id_.size()); }
  TokenId highest_id() const { return highest_id_; }  // kNoToken if there are no tokens

 private:
  struct Merge {
    std::uint32_t rank;
    TokenId result;
  };
  struct Symbol;
  struct Candidate;
  struct StringHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept {
      return std::hash<std::string_view>{}(text);
    }
  };

  /// An open-addressing table from pairs of tokens to their merge; the innermost look-up of encoding.
  class MergeTable {
   public:
    void reserve(std::size_t num_merges);
    void insert(TokenId left, TokenId right, Merge merge);  // the last insertion of a pair wins
    const Merge* find(TokenId left, TokenId right) const noexcept;

   private:
    struct Slot {
      std::uint64_t key;
      Merge merge;
    };
    std::size_t slot_of(std::uint64_t key) const noexcept;
    std::vector<Slot> slots_;  // a power of two, at most half full
    int shift_ = 64;
  };

  void add_merges(const std::vector<std::pair<std::string, std::string>>& merges);
  void index_characters();
  TokenId character_to_id(std::string_view character) const;
  TokenId unknown_id() const;
  bool append_bytes(std::string_view character, std::vector<Symbol>& symbols) const;
  std::vector<Symbol> split_characters(std::string_view word) const;
  void merge_symbols(std::vector<Symbol>& symbols) const;

  std::unordered_map<std::string, TokenId, StringHash, std::equal_to<>> id_of_token_;
  std::unordered_map<TokenId, const std::string*> token_of_id_;  // points into id_of_token_
  std::vector<TokenId> id_of_character_;                         // by code point, of the most common ones
  std::vector<TokenId> id_of_byte_;  // 256 with byte fallback; kNoToken where missing
  MergeTable merges_;
  /// Pairs of characters (last of the left part, first of the right part of some merge), as one number.
  std::unordered_set<std::uint64_t> joined_characters_;
  std::optional<std::string> unknown_token_;
  bool fuse_unknown_;
  bool ignore_merges_;
  TokenId highest_id_ = kNoToken;
};

}  // namespace aurora
