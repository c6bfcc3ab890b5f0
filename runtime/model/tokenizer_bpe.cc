#include "runtime/model/tokenizer_bpe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "kernels/error.h"
#include "runtime/model/strict_json.h"
#include "runtime/model/unicode_text.h"

namespace aurora {
namespace {

constexpr std::int32_t kNone = -1;
constexpr std::size_t kNumIndexedCharacters = 0x3100;  // up to kana: 49 KiB
constexpr std::uint64_t kEmptyKey = std::numeric_limits<std::uint64_t>::max();

std::uint64_t pair_key(TokenId left, TokenId right) noexcept {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

std::string byte_token(unsigned byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

std::uint64_t join_key(std::string_view left, std::string_view right) noexcept {
  const char32_t last = character_at(left, previous_character(left, left.size()));
  return std::uint64_t{last} << 32 | character_at(right, 0);
}

[[noreturn]] void refuse(const std::string& text) { throw Error(ErrorKind::kFormat, text); }

}  // namespace

/// A part of the word; a doubly linked list through indices into the vector of all symbols.
struct BpeModel::Symbol {
  TokenId id;
  std::int32_t previous;
  std::int32_t next;
  bool removed = false;  // it became part of the symbol on its left
};

/// A merge of the symbol at `position` with the next one.
struct BpeModel::Candidate {
  std::uint32_t rank;
  std::int32_t position;
  TokenId result;

  /// Heap order: the lowest rank, then the leftmost position, is on top.
  bool operator<(const Candidate& other) const noexcept {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

void BpeModel::MergeTable::reserve(std::size_t num_merges) {
  const std::size_t size = std::bit_ceil(std::max<std::size_t>(2 * num_merges, 16));
  slots_.assign(size, {kEmptyKey, {}});
  shift_ = 64 - std::countr_zero(size);
}

std::size_t BpeModel::MergeTable::slot_of(std::uint64_t key) const noexcept {
  constexpr std::uint64_t kGoldenRatio =
      0x9E3779B97F4A7C15;  // Fibonacci hashing: the upper bits are well mixed
  return static_cast<std::size_t>((key ^ key >> 29) * kGoldenRatio >> shift_);
}

void BpeModel::MergeTable::insert(TokenId left, TokenId right, Merge merge) {
  const std::uint64_t key = pair_key(left, right);
  std::size_t slot = slot_of(key);
  while (slots_[slot].key != kEmptyKey && slots_[slot].key != key) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = {key, merge};
}

const BpeModel::Merge* BpeModel::MergeTable::find(TokenId left, TokenId right) const noexcept {
  const std::uint64_t key = pair_key(left, right);
  for (std::size_t slot = slot_of(key); slots_[slot].key != kEmptyKey;
       slot = (slot + 1) & (slots_.size() - 1)) {
    if (slots_[slot].key == key) return &slots_[slot].merge;
  }
  return nullptr;
}

BpeModel::BpeModel(BpeDescription description)
    : unknown_token_(std::move(description.unknown_token)),
      fuse_unknown_(description.fuse_unknown),
      ignore_merges_(description.ignore_merges) {
  id_of_token_.reserve(description.vocabulary.size());
  token_of_id_.reserve(description.vocabulary.size());
  for (auto& [token, id] : description.vocabulary) {
    check(id >= 0, "the ids of a vocabulary are not negative");
    const auto [entry, is_new_token] = id_of_token_.try_emplace(std::move(token), id);
    const auto [owner, is_new_id] = token_of_id_.try_emplace(id, &entry->first);
    if (!is_new_token) refuse("token " + quote_for_message(entry->first) + " is in the vocabulary twice");
    if (!is_new_id) {
      refuse("id " + std::to_string(id) + " is given to " + quote_for_message(*owner->second) + " and to " +
             quote_for_message(entry->first));
    }
    highest_id_ = std::max(highest_id_, id);
  }
  add_merges(description.merges);
  index_characters();
  if (description.byte_fallback) {
    for (unsigned byte = 0; byte < 256; ++byte) {
      id_of_byte_.push_back(token_to_id(byte_token(byte)).value_or(kNoToken));
    }
  }
}

void BpeModel::add_merges(const std::vector<std::pair<std::string, std::string>>& merges) {
  merges_.reserve(merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string& left = merges[rank].first;
    const std::string& right = merges[rank].second;
    const auto find = [&](const std::string& token) {
      const auto entry = id_of_token_.find(token);
      if (entry == id_of_token_.end()) {
        refuse("merge " + std::to_string(rank) + " (" + quote_for_message(left) + ", " +
               quote_for_message(right) + "): " + quote_for_message(token) + " is not in the vocabulary");
      }
      return entry->second;
    };
    const TokenId left_id = find(left);
    const TokenId right_id = find(right);
    // An empty token never is a symbol, so its merges never happen.
    if (!left.empty() && !right.empty()) joined_characters_.insert(join_key(left, right));
    merges_.insert(left_id, right_id, {static_cast<std::uint32_t>(rank), find(left + right)});
  }
}

void BpeModel::index_characters() {
  id_of_character_.assign(kNumIndexedCharacters, kNoToken);
  for (const auto& [token, id] : id_of_token_) {
    const auto character = single_character(token);
    if (character && *character < kNumIndexedCharacters) id_of_character_[*character] = id;
  }
}

TokenId BpeModel::character_to_id(std::string_view character) const {
  const char32_t code_point = character_at(character, 0);
  if (code_point < kNumIndexedCharacters) return id_of_character_[code_point];
  return token_to_id(character).value_or(kNoToken);
}

TokenId BpeModel::unknown_id() const {
  const auto id = token_to_id(*unknown_token_);
  if (!id)
    refuse("model.unk_token: " + quote_for_message(*unknown_token_) + " is needed but not in the vocabulary");
  return *id;
}

bool BpeModel::append_bytes(std::string_view character, std::vector<Symbol>& symbols) const {
  if (id_of_byte_.empty()) return false;
  const std::size_t size = symbols.size();
  for (const char c : character) {
    const TokenId id = id_of_byte_[static_cast<unsigned char>(c)];
    if (id == kNoToken) {
      symbols.resize(size, Symbol{});
      return false;
    }
    symbols.push_back({id, kNone, kNone});
  }
  return true;
}

std::vector<BpeModel::Symbol> BpeModel::split_characters(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  // An unknown character waits, so that its right neighbours can join it; byte tokens overtake it, as in
  // Hugging Face.
  TokenId pending_unknown = kNoToken;
  for (std::size_t at = 0; at < word.size();) {
    const std::string_view character = word.substr(at, utf8_length(word[at]));
    at += character.size();
    const TokenId id = character_to_id(character);
    if (id != kNoToken) {
      if (pending_unknown != kNoToken) symbols.push_back({pending_unknown, kNone, kNone});
      pending_unknown = kNoToken;
      symbols.push_back({id, kNone, kNone});
    } else if (!append_bytes(character, symbols) && unknown_token_) {  // without unknown token it is dropped
      if (pending_unknown != kNoToken && !fuse_unknown_) symbols.push_back({pending_unknown, kNone, kNone});
      pending_unknown = unknown_id();
    }
  }
  if (pending_unknown != kNoToken) symbols.push_back({pending_unknown, kNone, kNone});
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<std::int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<std::int32_t>(i) + 1 : kNone;
  }
  return symbols;
}

void BpeModel::merge_symbols(std::vector<Symbol>& symbols) const {
  std::vector<Candidate> heap;
  const auto consider = [&](std::int32_t left, std::int32_t right) {
    if (left == kNone || right == kNone) return false;
    const Merge* merge =
        merges_.find(symbols[static_cast<std::size_t>(left)].id, symbols[static_cast<std::size_t>(right)].id);
    if (merge != nullptr) heap.push_back({merge->rank, left, merge->result});
    return merge != nullptr;
  };
  heap.reserve(symbols.size());
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
    consider(static_cast<std::int32_t>(i), static_cast<std::int32_t>(i) + 1);
  }
  std::make_heap(heap.begin(), heap.end());
  // Invariant: the heap holds every merge that applies now, and possibly some that no longer do.
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[static_cast<std::size_t>(best.position)];
    if (left.removed || left.next == kNone) continue;
    Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    const Merge* merge = merges_.find(left.id, right.id);
    if (merge == nullptr || merge->result != best.result) continue;  // a neighbour was merged meanwhile
    left.id = best.result;
    left.next = right.next;
    right.removed = true;
    if (left.next != kNone) symbols[static_cast<std::size_t>(left.next)].previous = best.position;
    if (consider(left.previous, best.position)) std::push_heap(heap.begin(), heap.end());
    if (consider(best.position, left.next)) std::push_heap(heap.begin(), heap.end());
  }
}

std::size_t BpeModel::independent_front(std::string_view word) const {
  if (ignore_merges_) return word.size();  // the word counts as a whole
  // Both characters must be tokens: unknown ones turn into others that merge by rules of their own.
  bool left_is_token = false;
  std::size_t left = 0;
  for (std::size_t at = 0; at < word.size(); at += utf8_length(word[at])) {
    const bool is_token = character_to_id(word.substr(at, utf8_length(word[at]))) != kNoToken;
    if (at > 0 && is_token && left_is_token) {
      const std::uint64_t key = std::uint64_t{character_at(word, left)} << 32 | character_at(word, at);
      if (!joined_characters_.contains(key)) return at;
    }
    left_is_token = is_token;
    left = at;
  }
  return word.size();
}

void BpeModel::encode_word(std::string_view word, std::vector<TokenId>& ids) const {
  if (ignore_merges_) {
    if (const auto id = token_to_id(word)) {
      ids.push_back(*id);
      return;
    }
  }
  if (word.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw Error(ErrorKind::kInvalidArgument,
                "a word of " + std::to_string(word.size()) +
                    " bytes is longer than the limit of 2147483647; shorten the text");
  }
  std::vector<Symbol> symbols = split_characters(word);
  merge_symbols(symbols);
  for (const Symbol& symbol : symbols) {
    if (!symbol.removed) ids.push_back(symbol.id);
  }
}

std::optional<TokenId> BpeModel::token_to_id(std::string_view token) const {
  const auto entry = id_of_token_.find(token);
  if (entry == id_of_token_.end()) return std::nullopt;
  return entry->second;
}

const std::string* BpeModel::id_to_token(TokenId id) const {
  const auto entry = token_of_id_.find(id);
  return entry == token_of_id_.end() ? nullptr : entry->second;
}

}  // namespace aurora
