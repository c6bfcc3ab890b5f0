// Text to token ids and back, as a checkpoint's tokenizer.json prescribes; identical to Hugging Face
// `tokenizers`.
//
// Supported: BPE models (byte fallback, fuse_unk, ignore_merges), normalizers (Prepend, Replace, NFC, NFKC,
// Strip, Sequence), pre-tokenizers (none, Split, ByteLevel, Digits, Metaspace, Sequence), TemplateProcessing
// and ByteLevel post-processors, and the decoders that go with them. Anything else is refused by name when
// loading.
//
// Encoding a text of n bytes takes O(n log n) at worst; regular expressions run with limits on steps and
// memory, so that no input hangs. Thread-safe: a loaded tokenizer is immutable.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace aurora {

using TokenId = std::int32_t;

class Tokenizer {
 public:
  /// Reads `folder`/tokenizer.json. Throws Error naming file, key and value: kNotFound, kIo, kFormat,
  /// kUnsupported.
  static Tokenizer load(const std::filesystem::path& folder);
  /// From the text of a tokenizer.json; `origin` is used in messages.
  static Tokenizer parse(std::string_view json, const std::string& origin);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Throws Error(kInvalidArgument) naming the byte offset when `text` is not valid UTF-8.
  std::vector<TokenId> encode(std::string_view text, bool add_special_tokens = true) const;
  /// Ids outside the vocabulary are skipped, as in `tokenizers`. Always valid UTF-8.
  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens = true) const;

  std::optional<TokenId> token_to_id(std::string_view token) const;
  std::int64_t vocabulary_size() const;  // highest id + 1, added tokens included

 private:
  friend class IncrementalDecoder;
  struct Contents;
  explicit Tokenizer(std::shared_ptr<const Contents> contents);
  std::shared_ptr<const Contents> contents_;
};

/// Decodes a growing sequence and hands out text that will never change: half a character (a byte-fallback or
/// byte-level prefix of one) is held back until it is complete or `finish` is called. So is a run of
/// byte-fallback tokens until another token ends it, because one bad byte turns the whole run into
/// replacement characters.
///
/// The concatenation of all pieces equals `decode` of the generated ids in the context of the prompt's: what
/// decode(context + generated) adds to the text of the context, where a character that the two share counts
/// as generated. With an empty context it equals decode(generated). Each token takes time in proportion to
/// its text.
class IncrementalDecoder {
 public:
  /// `context` are the tokens before the first generated one; their text is not emitted. Keeps the
  /// tokenizer's contents alive.
  IncrementalDecoder(const Tokenizer& tokenizer, std::span<const TokenId> context,
                     bool skip_special_tokens = true);

  IncrementalDecoder(IncrementalDecoder&&) noexcept;
  IncrementalDecoder& operator=(IncrementalDecoder&&) noexcept;
  ~IncrementalDecoder();

  /// The text that became final with `token`; may be empty. Throws kInvalidArgument after `finish`.
  std::string push(TokenId token);
  /// What was held back, with the replacement character for incomplete bytes, as `decode` would give it.
  /// Empty when called again.
  std::string finish();

 private:
  struct Stream;
  std::unique_ptr<Stream> stream_;
};

}  // namespace aurora
