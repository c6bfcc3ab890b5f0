// The pre-tokenizers of a tokenizer.json: how a normalized text is cut into the words that BPE never merges
// across.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/model/tokenizer_pattern.h"
#include "runtime/model/tokenizer_pieces.h"

namespace aurora {

/// What becomes of a match when splitting "the-final--countdown" at "-".
enum class SplitBehavior : std::uint8_t {
  kRemoved,             // the final countdown
  kIsolated,            // the - final - - countdown
  kMergedWithPrevious,  // the- final- - countdown
  kMergedWithNext,      // the -final - -countdown
  kContiguous,          // the - final -- countdown
};

struct SplitPreTokenizer {
  TextPattern pattern;
  SplitBehavior behavior;
  bool invert;  // matches are what lies between
};

/// Writes every byte as one printable character (GPT-2's alphabet, `byte_level_character`).
struct ByteLevelPreTokenizer {
  bool add_prefix_space;
  TextPattern words;  // GPT-2's expression; used if `split`
  bool split;
};

struct DigitsPreTokenizer {
  bool individual;
};

enum class PrependScheme : std::uint8_t { kAlways, kFirst, kNever };

/// Writes spaces as `replacement` (U+2581) and, if `split`, cuts in front of each.
struct MetaspacePreTokenizer {
  TextPattern space;
  TextPattern mark;  // the replacement
  PrependScheme prepend_scheme;
  bool split;
};

using PreTokenizer =
    std::variant<SplitPreTokenizer, ByteLevelPreTokenizer, DigitsPreTokenizer, MetaspacePreTokenizer>;

/// GPT-2's expression, which ByteLevel with use_regex splits by.
extern const std::string_view kGpt2Words;

/// The character that stands for a byte in byte-level vocabularies: itself if printable Latin-1, else from
/// U+0100 on.
char32_t byte_level_character(unsigned char byte) noexcept;
/// The inverse; -1 for a character that stands for no byte.
int byte_level_byte(char32_t character) noexcept;

/// Applies `steps` in order to the pieces that are no tokens; pieces that become empty vanish.
PieceList pre_tokenize_pieces(PieceList list, const std::vector<PreTokenizer>& steps);

}  // namespace aurora
