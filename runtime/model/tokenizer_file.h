// A tokenizer.json, read and validated: plain data and compiled patterns, in the order in which they are
// applied.
//
// Reading follows Hugging Face `tokenizers`: what it accepts in the supported kinds is accepted with the same
// meaning, everything else is refused naming file, key and value.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/tokenizer_added_tokens.h"
#include "runtime/model/tokenizer_bpe.h"
#include "runtime/model/tokenizer_decoder.h"
#include "runtime/model/tokenizer_normalizer.h"
#include "runtime/model/tokenizer_pre_tokenizer.h"

namespace aurora {

struct TokenizerFile {
  std::vector<AddedToken> added_tokens;  // as listed; the same content may occur twice
  std::vector<Normalizer> normalizers;
  std::vector<PreTokenizer> pre_tokenizers;
  /// The ids around the text when special tokens are asked for; nothing stands for the text itself.
  std::vector<std::optional<TokenId>> post_template;
  std::vector<Decoder> decoders;
  BpeDescription model;
};

/// `origin` names the file in messages. Throws kFormat for what is malformed, kUnsupported for what is not
/// implemented.
TokenizerFile read_tokenizer_file(std::string_view json, const std::string& origin);

}  // namespace aurora
