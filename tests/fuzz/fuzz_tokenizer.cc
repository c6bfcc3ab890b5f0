// Any bytes as a tokenizer.json, and any bytes as text for a small one: a clear error or a tokenizer that
// keeps its promises (valid UTF-8 out, incremental decoding equal to decoding at once, texts come back).
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/error.h"
#include "runtime/model/tokenizer.h"
#include "runtime/model/unicode_text.h"

namespace {

using aurora::TokenId;

void demand(bool holds) {
  if (!holds) std::abort();
}

/// Byte fallback, a normalizer with an expression, an added token, Metaspace: each text comes back but for
/// the space in front and "||", which the normalizer writes as "|".
aurora::Tokenizer make_fallback_tokenizer() {
  std::string vocabulary = R"("<unk>":0,"a":1,"b":2,"ab":3,"_":4,"_a":5)";
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (unsigned byte = 0; byte < 256; ++byte) {
    vocabulary +=
        std::string(",\"<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + ">\":" + std::to_string(6 + byte);
  }
  const std::string document = R"json({
    "normalizer": {"type": "Replace", "pattern": {"Regex": "\\|+(?=\\|)"}, "content": ""},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "added_tokens": [{"id": 262, "content": "<x>", "single_word": false, "lstrip": true, "rstrip": false,
                      "normalized": false, "special": false}],
    "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "merges": ["a b", "_ a"], "vocab": {)json";
  return aurora::Tokenizer::parse(document + vocabulary + "}}}", "fallback");
}

/// GPT-2's words over a byte-level alphabet: every text comes back as it is.
aurora::Tokenizer make_byte_level_tokenizer() {
  std::string vocabulary;
  unsigned substitute = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool is_own = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    std::string token;
    aurora::append_utf8(is_own ? byte : substitute++, token);
    if (token == "\"" || token == "\\") token.insert(0, 1, '\\');
    vocabulary += (byte == 0 ? "\"" : ",\"") + token + "\":" + std::to_string(byte);
  }
  const std::string document = R"json({
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "merges": ["a b", "c d"], "vocab": {"ab": 256, "cd": 257, )json";
  return aurora::Tokenizer::parse(document + vocabulary + "}}}", "byte level");
}

void check_decoding(const aurora::Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  const std::string text = tokenizer.decode(ids, false);
  demand(!aurora::first_invalid_utf8(text));
  aurora::IncrementalDecoder decoder(tokenizer, {}, false);
  std::string pieces;
  for (const TokenId id : ids) {
    const std::string piece = decoder.push(id);
    demand(!aurora::first_invalid_utf8(piece));
    pieces += piece;
  }
  demand(pieces + decoder.finish() == text);
}

void check_texts(std::string_view text) {
  static const aurora::Tokenizer kFallback = make_fallback_tokenizer();
  static const aurora::Tokenizer kByteLevel = make_byte_level_tokenizer();
  const std::vector<TokenId> raw(text.begin(), text.end());  // any ids, negative ones too
  check_decoding(kFallback, raw);
  check_decoding(kByteLevel, raw);
  if (aurora::first_invalid_utf8(text)) {
    try {
      kByteLevel.encode(text);
      std::abort();
    } catch (const aurora::Error& error) {
      demand(error.kind() == aurora::ErrorKind::kInvalidArgument);
    }
    return;
  }
  const std::vector<TokenId> ids = kByteLevel.encode(text);
  demand(kByteLevel.decode(ids) == text);
  check_decoding(kFallback, kFallback.encode(text));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  check_texts(bytes);
  std::optional<aurora::Tokenizer> tokenizer;
  try {
    tokenizer = aurora::Tokenizer::parse(bytes, "fuzz");
  } catch (const aurora::Error& error) {
    demand(error.kind() != aurora::ErrorKind::kInternal);
    return 0;
  }
  try {
    check_decoding(*tokenizer, tokenizer->encode("ab <x> a\u00E9\u4E2D  1-\n"));
  } catch (const aurora::Error& error) {  // an unknown token that is missing, an expression that gave up
    demand(error.kind() != aurora::ErrorKind::kInternal);
  }
  return 0;
}
