// The committed answers of the PyPI package `tokenizers` (see make_expectations.py), as the tests use them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/model/tokenizer.h"

namespace aurora::testing {

struct Decode {
  std::vector<TokenId> ids;
  std::string text;       // special tokens skipped
  std::string full_text;  // special tokens shown
};

struct ExpectedTokenizer {
  std::string name;
  Tokenizer tokenizer;
  std::vector<std::pair<std::string, std::vector<TokenId>>> encodings;          // without special tokens
  std::vector<std::pair<std::string, std::vector<TokenId>>> special_encodings;  // with
  std::vector<Decode> decodes;
};

/// All tokenizers of expectations.json; read once.
const std::vector<ExpectedTokenizer>& expected_tokenizers();

std::string read_file(const std::string& path);

}  // namespace aurora::testing
