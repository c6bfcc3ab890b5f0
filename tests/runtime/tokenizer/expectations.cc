#include "tests/runtime/tokenizer/expectations.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

namespace aurora::testing {
namespace {

using Json = nlohmann::json;

const std::string kFolder = std::string(AURORA_SOURCE_DIR) + "/tests/runtime/tokenizer/";

Tokenizer make_tokenizer(const Json& entry, const Json& bases) {
  if (entry.contains("file")) {
    const std::string file = std::string(AURORA_SOURCE_DIR) + "/" + entry["file"].get<std::string>();
    return Tokenizer::parse(read_file(file), file);
  }
  Json document = bases.at(entry.at("base").get<std::string>());
  document.merge_patch(entry.at("patch"));
  return Tokenizer::parse(document.dump(), entry.at("name").get<std::string>());
}

ExpectedTokenizer read_entry(const Json& entry, const Json& bases, const Json& corpus) {
  using Ids = std::vector<TokenId>;
  ExpectedTokenizer expected{entry.at("name"), make_tokenizer(entry, bases), {}, {}, {}};
  const auto add = [&](const Json& texts, const Json& ids, auto& encodings) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      encodings.emplace_back(texts.at(i).get<std::string>(), ids[i].get<Ids>());
    }
  };
  add(corpus, entry.at("corpus_ids"), expected.encodings);
  add(entry.at("texts"), entry.at("ids"), expected.encodings);
  add(corpus, entry.at("corpus_special_ids"), expected.special_encodings);
  for (const Json& row : entry.at("decodes")) {
    expected.decodes.push_back({row.at(0).get<Ids>(), row.at(1), row.at(2)});
  }
  return expected;
}

std::vector<ExpectedTokenizer> read_all() {
  const Json corpus = Json::parse(read_file(kFolder + "corpus.json"));
  const Json document = Json::parse(read_file(kFolder + "expectations.json"));
  std::vector<ExpectedTokenizer> all;
  for (const Json& entry : document.at("tokenizers")) {
    all.push_back(read_entry(entry, document.at("bases"), corpus));
  }
  return all;
}

}  // namespace

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

const std::vector<ExpectedTokenizer>& expected_tokenizers() {
  static const std::vector<ExpectedTokenizer> kAll = read_all();
  return kAll;
}

}  // namespace aurora::testing
