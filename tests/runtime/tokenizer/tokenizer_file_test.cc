// What is wrong with a tokenizer.json is said with file, key and value.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "runtime/model/tokenizer.h"
#include "tests/runtime/tokenizer/expectations.h"

namespace aurora {
namespace {

using Json = nlohmann::json;

Json small_document() {
  return Json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
    "post_processor": null, "decoder": null,
    "added_tokens": [{"id": 4, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": [["a", "b"]]}})");
}

void expect_error(const std::string& text, ErrorKind kind, const std::vector<std::string>& words) {
  try {
    Tokenizer::parse(text, "folder/tokenizer.json");
    FAIL() << "accepted: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_TRUE(std::string(error.what()).starts_with("folder/tokenizer.json")) << error.what();
    for (const std::string& word : words) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
          << "'" << word << "' in: " << error.what();
    }
  }
}

/// The small document with `patch` (JSON merge patch) applied is refused.
void expect_refused(const std::string& patch, ErrorKind kind, const std::vector<std::string>& words) {
  Json document = small_document();
  document.merge_patch(Json::parse(patch));
  expect_error(document.dump(), kind, words);
}

TEST(TokenizerFile, AcceptsTheDocumentThatTheOtherTestsBreak) {
  const Tokenizer tokenizer = Tokenizer::parse(small_document().dump(), "small");
  EXPECT_EQ(tokenizer.encode("abc<end>ba"), (std::vector<TokenId>{2, 3, 4, 1, 0}));
  EXPECT_EQ(tokenizer.vocabulary_size(), 5);
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{2, 4, 99, -1, 3}), "ab c");
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{2, 4, 3}, false), "ab <end> c");
}

TEST(TokenizerFile, NamesAFileThatIsNotThere) {
  try {
    Tokenizer::load("no/such/folder");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    EXPECT_NE(std::string(error.what()).find("no/such/folder/tokenizer.json"), std::string::npos)
        << error.what();
  }
}

TEST(TokenizerFile, RefusesWhatIsNotJson) {
  for (const std::string text :
       {"", "{", "[1,", "{\"version\": \"1.0\"} x", "\xFF", "{\"version\": \"\xC3\"}",
        "{\"version\": \"\\ud800\"}", "{\"a\":1,\"a\":2}"}) {
    expect_error(text, ErrorKind::kFormat, {});
  }
  expect_error(std::string(100'000, '['), ErrorKind::kFormat, {});
  expect_error("[]", ErrorKind::kFormat, {"object"});
  expect_error("{}", ErrorKind::kFormat, {"model", "missing"});
}

TEST(TokenizerFile, RefusesWhatItDoesNotKnowByName) {
  const ErrorKind unsupported = ErrorKind::kUnsupported;
  expect_refused(R"({"normalizer": {"type": "BertNormalizer"}})", unsupported,
                 {"normalizer", "BertNormalizer", "NFC"});
  expect_refused(
      R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}})",
      unsupported, {"normalizer.normalizers[1]", "Lowercase"});
  expect_refused(R"({"pre_tokenizer": {"type": "Whitespace"}})", unsupported,
                 {"pre_tokenizer", "Whitespace"});
  expect_refused(R"({"post_processor": {"type": "BertProcessing"}})", unsupported,
                 {"post_processor", "BertProcessing"});
  expect_refused(R"({"decoder": {"type": "WordPiece"}})", unsupported, {"decoder", "WordPiece"});
  expect_refused(R"({"model": {"type": "Unigram"}})", unsupported, {"model.type", "Unigram", "BPE"});
  expect_refused(R"({"model": {"dropout": 0.1}})", unsupported, {"model.dropout"});
  expect_refused(R"({"model": {"continuing_subword_prefix": "##"}})", unsupported,
                 {"model.continuing_subword_prefix"});
  expect_refused(R"({"model": {"end_of_word_suffix": "</w>"}})", unsupported, {"model.end_of_word_suffix"});
  expect_refused(R"({"truncation": {"max_length": 5}})", unsupported, {"truncation", "null"});
  expect_refused(R"({"padding": {}})", unsupported, {"padding"});
  expect_refused(R"({"version": "2.0"})", unsupported, {"version", "2.0"});
}

TEST(TokenizerFile, RefusesMalformedSteps) {
  const ErrorKind format = ErrorKind::kFormat;
  expect_refused(R"({"normalizer": {"prepend": "x"}})", format, {"normalizer", "type", "missing"});
  expect_refused(R"({"normalizer": 5})", format, {"normalizer", "5"});
  expect_refused(R"({"normalizer": {"type": "Prepend"}})", format, {"normalizer", "prepend"});
  expect_refused(R"({"normalizer": {"type": "Replace", "pattern": {}, "content": ""}})", format,
                 {"normalizer.pattern"});
  expect_refused(R"({"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}})", format,
                 {"normalizer.pattern", "does not compile"});
  expect_refused(R"({"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": ""}})",
                 ErrorKind::kUnsupported, {"normalizer.pattern", "empty"});
  expect_refused(R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[a&&b]"}, "behavior": "Removed",
                     "invert": false}})",
                 ErrorKind::kUnsupported, {"pre_tokenizer.pattern", "&&"});
  expect_refused(R"({"pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "Gone",
                     "invert": false}})",
                 format, {"pre_tokenizer.behavior", "Gone", "Isolated"});
  expect_refused(R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "ab"}})", format,
                 {"pre_tokenizer.replacement", "one character"});
  expect_refused(R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"}})",
                 format, {"pre_tokenizer.prepend_scheme", "last"});
  expect_refused(R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "add_prefix_space": false}})",
                 format, {"add_prefix_space"});
  expect_refused(R"({"decoder": {"type": "Strip", "content": " ", "start": -1, "stop": 0}})", format,
                 {"decoder.start", "-1"});
  expect_refused(
      R"({"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}],
                     "special_tokens": {}}})",
      format, {"special_tokens", "x"});
  expect_refused(R"({"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}],
                     "special_tokens": {}}})",
                 format, {"post_processor.single[0].Sequence.id"});
}

TEST(TokenizerFile, RefusesAModelThatContradictsItself) {
  const ErrorKind format = ErrorKind::kFormat;
  expect_refused(R"({"model": {"vocab": null}})", format, {"model", "vocab"});
  expect_refused(R"({"model": {"vocab": []}})", format, {"model.vocab"});
  expect_refused(R"({"model": {"vocab": {"d": -1}}})", format, {"model.vocab", "d", "-1"});
  expect_refused(R"({"model": {"vocab": {"d": 1.5}}})", format, {"model.vocab", "1.5"});
  expect_refused(R"({"model": {"vocab": {"d": 2147483648}}})", format, {"model.vocab", "2147483648"});
  expect_refused(R"({"model": {"vocab": {"d": 1}}})", format, {"id 1", "b", "d"});
  expect_refused(R"({"model": {"merges": [["a", "x"]]}})", format, {"merge 0", "x"});
  expect_refused(R"({"model": {"merges": [["a", "b"], ["b", "a"]]}})", format, {"merge 1", "ba"});
  expect_refused(R"({"model": {"merges": ["a b c"]}})", format, {"model.merges[0]", "a b c"});
  expect_refused(R"({"model": {"merges": ["ab"]}})", format, {"model.merges[0]"});
  expect_refused(R"({"model": {"merges": [["a", "b"], "b a"]}})", format, {"model.merges[1]"});
  expect_refused(R"({"model": {"merges": [["a", "b", "c"]]}})", format, {"model.merges[0]"});
  expect_refused(R"({"added_tokens": [{"id": 9, "content": "<x>", "single_word": false, "lstrip": false,
                     "rstrip": false, "normalized": false, "special": true}]})",
                 format, {"<x>", "9", "4"});
  expect_refused(R"({"added_tokens": [{"id": 4, "content": "<x>"}]})", format,
                 {"added_tokens[0]", "single_word"});
}

TEST(TokenizerFile, RefusesSequencesNestedWithoutEnd) {
  Json nested = {{"type", "NFC"}};
  for (int k = 0; k < 12; ++k) nested = {{"type", "Sequence"}, {"normalizers", {nested}}};
  Json document = small_document();
  document["normalizer"] = nested;
  EXPECT_NO_THROW(Tokenizer::parse(document.dump(), "nested"));
  for (int k = 0; k < 1000; ++k) nested = {{"type", "Sequence"}, {"normalizers", {nested}}};
  document["normalizer"] = nested;
  EXPECT_THROW(Tokenizer::parse(document.dump(), "nested"), Error);
}

TEST(TokenizerFile, MissesTheUnknownTokenOnlyWhenItIsNeeded) {
  Json document = small_document();
  document["model"]["unk_token"] = "<unk>";
  const Tokenizer tokenizer = Tokenizer::parse(document.dump(), "small");
  EXPECT_EQ(tokenizer.encode("ab"), std::vector<TokenId>{2});
  EXPECT_THROW(tokenizer.encode("z"), Error);
}

TEST(TokenizerFile, SurvivesEveryTruncationOfAModelsFile) {
  const std::string file = std::string(AURORA_SOURCE_DIR) + "/launch/models/tiny-mixtral/tokenizer.json";
  const std::string text = testing::read_file(file);
  for (std::size_t length = 0; length < text.size() - 2; length += 1 + length / 16) {
    EXPECT_THROW(Tokenizer::parse(text.substr(0, length), file), Error) << "first " << length << " bytes";
  }
}

}  // namespace
}  // namespace aurora
