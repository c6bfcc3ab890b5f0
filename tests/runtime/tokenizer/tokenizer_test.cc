// The tokenizer gives the ids and the text that the PyPI package `tokenizers` gives, and that the two models'
// references hold.
#include "runtime/model/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/error.h"
#include "tests/runtime/tokenizer/expectations.h"

namespace aurora {
namespace {

using testing::expected_tokenizers;
using testing::ExpectedTokenizer;

std::string escaped(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

TEST(Tokenizer, EncodesHardTextsLikeHuggingFace) {
  std::size_t num_texts = 0;
  for (const ExpectedTokenizer& expected : expected_tokenizers()) {
    for (const auto& [text, ids] : expected.encodings) {
      ASSERT_EQ(expected.tokenizer.encode(text, false), ids) << expected.name << ": " << escaped(text);
      ++num_texts;
    }
  }
  EXPECT_GT(num_texts, 4000u);
}

TEST(Tokenizer, AddsSpecialTokensLikeHuggingFace) {
  std::size_t num_additions = 0;
  for (const ExpectedTokenizer& expected : expected_tokenizers()) {
    for (const auto& [text, ids] : expected.special_encodings) {
      ASSERT_EQ(expected.tokenizer.encode(text), ids) << expected.name << ": " << escaped(text);
      num_additions += ids.size() - expected.tokenizer.encode(text, false).size();
    }
  }
  EXPECT_GT(num_additions, 0u);
}

TEST(Tokenizer, DecodesLikeHuggingFace) {
  std::size_t num_decodes = 0;
  for (const ExpectedTokenizer& expected : expected_tokenizers()) {
    for (const auto& [ids, text, full_text] : expected.decodes) {
      ASSERT_EQ(escaped(expected.tokenizer.decode(ids)), escaped(text))
          << expected.name << ": " << ::testing::PrintToString(ids);
      ASSERT_EQ(escaped(expected.tokenizer.decode(ids, false)), escaped(full_text))
          << expected.name << ": " << ::testing::PrintToString(ids);
      ++num_decodes;
    }
  }
  EXPECT_GT(num_decodes, 1000u);
}

TEST(Tokenizer, AgreesWithTheReferencesOfTheModels) {
  for (const std::string model : {"tiny-mixtral", "tiny-qwen3-moe"}) {
    const std::string folder = std::string(AURORA_SOURCE_DIR) + "/launch/models/" + model;
    const Tokenizer tokenizer = Tokenizer::load(folder);
    EXPECT_EQ(tokenizer.vocabulary_size(), 2048);
    const auto reference = nlohmann::json::parse(testing::read_file(folder + "/reference.json"));
    ASSERT_EQ(reference.at("prompts").size(), 12u);
    for (const auto& prompt : reference.at("prompts")) {
      EXPECT_EQ(tokenizer.encode(prompt.at("prompt").get<std::string>()),
                prompt.at("prompt_ids").get<std::vector<TokenId>>());
      EXPECT_EQ(tokenizer.decode(prompt.at("greedy_ids").get<std::vector<TokenId>>()),
                prompt.at("greedy_text").get<std::string>());
    }
  }
}

TEST(Tokenizer, KnowsItsTokensByName) {
  const Tokenizer tokenizer = Tokenizer::load(std::string(AURORA_SOURCE_DIR) + "/launch/models/tiny-mixtral");
  EXPECT_EQ(tokenizer.token_to_id("</s>"), 2);
  EXPECT_EQ(tokenizer.token_to_id("<0x00>"), 3);
  EXPECT_EQ(tokenizer.token_to_id("no such token"), std::nullopt);
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8NamingTheByte) {
  const Tokenizer tokenizer = Tokenizer::load(std::string(AURORA_SOURCE_DIR) + "/launch/models/tiny-mixtral");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\xFF", "byte 0 "},         {"ab\xC3", "byte 2 "},          {"a\xC0\x80", "byte 1 "},
      {"\xED\xA0\x80", "byte 0 "}, {"abc\xE4\xB8z", "byte 3 "},    {"\xF4\x90\x80\x80", "byte 0 "},
      {"\x80", "byte 0 "},         {"caf\xC3\xA9\xE9", "byte 5 "}, {"\xE0\x9F\xBF", "byte 0 "},
  };
  for (const auto& [text, place] : cases) {
    try {
      tokenizer.encode(text);
      FAIL() << escaped(text) << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(place), std::string::npos) << error.what();
    }
  }
}

TEST(Tokenizer, EncodesAMillionBytesWithoutWordBoundariesExactly) {
  // One word of a megabyte: quadratic merging would not come back. Its ids follow from those of its parts,
  // because
  // "\n" merges with nothing in this vocabulary.
  const Tokenizer tokenizer = Tokenizer::load(std::string(AURORA_SOURCE_DIR) + "/launch/models/tiny-mixtral");
  const std::string line = "antidisestablishmentarianism \xE4\xB8\xAD\xE6\x96\x87 the quick brown fox\n";
  const std::vector<TokenId> first = tokenizer.encode(line, false);
  const std::vector<TokenId> two = tokenizer.encode(line + line, false);
  const std::vector<TokenId> next(two.begin() + static_cast<std::ptrdiff_t>(first.size()), two.end());
  std::string text;
  std::vector<TokenId> expected = first;
  for (text = line; text.size() < 1'000'000; text += line)
    expected.insert(expected.end(), next.begin(), next.end());
  const std::vector<TokenId> ids = tokenizer.encode(text, false);
  EXPECT_TRUE(ids == expected) << ids.size() << " ids instead of " << expected.size();
  EXPECT_TRUE(tokenizer.decode(ids) == text);
}

TEST(Tokenizer, BearsHostileTexts) {
  // Long runs of one kind, which backtracking expressions and sorting of marks find hardest.
  for (const std::string model : {"tiny-mixtral", "tiny-qwen3-moe"}) {
    const Tokenizer tokenizer = Tokenizer::load(std::string(AURORA_SOURCE_DIR) + "/launch/models/" + model);
    for (const std::string unit :
         {" ", "\n", "a", "\xCC\x81\xCC\xA3", "\xF0\x9F\x98\x80", "\xE2\x80\xA8", "<", "' ", "1"}) {
      std::string text;
      while (text.size() < 300'000) text += unit;
      const std::vector<TokenId> ids = tokenizer.encode(text, false);
      EXPECT_FALSE(ids.empty()) << model << ": " << escaped(unit);
    }
  }
}

TEST(Tokenizer, ServesThreadsAtOnce) {
  const ExpectedTokenizer& expected = expected_tokenizers().at(1);
  std::vector<std::thread> threads;
  std::array<std::size_t, 4> num_wrong{};
  for (std::size_t k = 0; k < num_wrong.size(); ++k) {
    threads.emplace_back([&, k] {
      for (const auto& [text, ids] : expected.encodings) {
        if (expected.tokenizer.encode(text, false) != ids) ++num_wrong[k];
      }
      for (const auto& [ids, text, full_text] : expected.decodes) {
        if (expected.tokenizer.decode(ids) != text) ++num_wrong[k];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::size_t count : num_wrong) EXPECT_EQ(count, 0u);
}

}  // namespace
}  // namespace aurora
