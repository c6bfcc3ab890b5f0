// Decoding token by token gives the text of decoding at once, and never a part of it that later changes.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "runtime/model/tokenizer.h"
#include "runtime/model/unicode_text.h"
#include "tests/runtime/tokenizer/expectations.h"

namespace aurora {
namespace {

using testing::expected_tokenizers;
using testing::ExpectedTokenizer;

/// The pieces, the last from finish().
std::vector<std::string> decode_in_pieces(const Tokenizer& tokenizer, std::span<const TokenId> context,
                                          std::span<const TokenId> generated, bool skip_special_tokens) {
  IncrementalDecoder decoder(tokenizer, context, skip_special_tokens);
  std::vector<std::string> pieces;
  for (const TokenId id : generated) pieces.push_back(decoder.push(id));
  pieces.push_back(decoder.finish());
  return pieces;
}

std::string join(const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

Tokenizer load_model(const std::string& name) {
  return Tokenizer::load(std::string(AURORA_SOURCE_DIR) + "/launch/models/" + name);
}

TEST(IncrementalDecoder, GivesTheTextOfDecodingAtOnce) {
  for (const ExpectedTokenizer& expected : expected_tokenizers()) {
    for (const auto& [ids, text, full_text] : expected.decodes) {
      for (const bool skips : {true, false}) {
        const auto pieces = decode_in_pieces(expected.tokenizer, {}, ids, skips);
        ASSERT_EQ(join(pieces), skips ? text : full_text)
            << expected.name << ": " << ::testing::PrintToString(ids);
        for (const std::string& piece : pieces) ASSERT_FALSE(first_invalid_utf8(piece)) << expected.name;
      }
    }
  }
}

TEST(IncrementalDecoder, OwesWhatTheGeneratedTokensAddToTheirContext) {
  std::size_t num_plain = 0;
  for (const ExpectedTokenizer& expected : expected_tokenizers()) {
    for (const auto& [ids, text, full_text] : expected.decodes) {
      const std::span<const TokenId> all = ids;
      for (std::size_t cut = 0; cut <= ids.size(); cut += 1 + ids.size() / 7) {
        const std::string added =
            join(decode_in_pieces(expected.tokenizer, all.first(cut), all.subspan(cut), true));
        ASSERT_TRUE(std::string_view(text).ends_with(added))
            << expected.name << ", cut at " << cut << ": " << ::testing::PrintToString(ids);
        // Where the context's own text is a beginning of the whole, it is exactly what is missing, unless a
        // character spans the cut or the end of the context reads differently with more behind it.
        const std::string before = expected.tokenizer.decode(all.first(cut));
        const bool may_span = expected.name.starts_with("decoder fuse and");
        if (!may_span && text.starts_with(before) && !before.ends_with(kReplacementCharacter)) {
          ASSERT_EQ(before.size() + added.size(), text.size())
              << expected.name << ", cut at " << cut << ": " << ::testing::PrintToString(ids);
          ++num_plain;
        }
      }
    }
  }
  EXPECT_GT(num_plain, 3000u);
}

TEST(IncrementalDecoder, HandsOutNothingThatMoreTokensWouldChange) {
  // What was handed out after k tokens begins the text of every continuation.
  const std::uint32_t seed = 7;
  std::mt19937 random(seed);
  for (const std::string name : {"tiny-mixtral", "tiny-qwen3-moe"}) {
    const Tokenizer tokenizer = load_model(name);
    std::uniform_int_distribution<TokenId> any(0, static_cast<TokenId>(tokenizer.vocabulary_size()) - 1);
    std::uniform_int_distribution<TokenId> bytes(3, 258);
    for (int round = 0; round < 300; ++round) {
      std::vector<TokenId> ids;
      for (int k = 0; k < 12; ++k) ids.push_back(random() % 2 == 0 ? any(random) : bytes(random));
      IncrementalDecoder decoder(tokenizer, {}, false);
      std::string text;
      for (std::size_t k = 0; k < ids.size(); ++k) {
        text += decoder.push(ids[k]);
        std::vector<TokenId> other(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(k) + 1);
        for (int more = 0; more < 3; ++more) {
          other.push_back(bytes(random));
          ASSERT_TRUE(tokenizer.decode(other, false).starts_with(text))
              << "seed " << seed << ", " << name << ": " << ::testing::PrintToString(other);
        }
      }
    }
  }
}

TEST(IncrementalDecoder, HoldsBackHalfACharacterOfByteLevelTokens) {
  const Tokenizer tokenizer = load_model("tiny-qwen3-moe");
  // The bytes of U+1F600 in the byte-level alphabet.
  std::vector<TokenId> ids;
  for (const std::string_view token : {"\u00F0", "\u0141", "\u013A", "\u0122"}) {
    ASSERT_TRUE(tokenizer.token_to_id(token));
    ids.push_back(*tokenizer.token_to_id(token));
  }
  IncrementalDecoder decoder(tokenizer, {});
  EXPECT_EQ(decoder.push(ids[0]), "");
  EXPECT_EQ(decoder.push(ids[1]), "");
  EXPECT_EQ(decoder.push(ids[2]), "");
  EXPECT_EQ(decoder.push(ids[3]), "\U0001F600");
  EXPECT_EQ(decoder.push(ids[0]), "");
  EXPECT_EQ(decoder.finish(), kReplacementCharacter);
  EXPECT_EQ(decoder.finish(), "");
  EXPECT_THROW(decoder.push(ids[0]), Error);
}

TEST(IncrementalDecoder, CompletesACharacterThatTheContextBegan) {
  const Tokenizer tokenizer = load_model("tiny-mixtral");
  const auto byte = [](int value) { return static_cast<TokenId>(3 + value); };  // <0x00> is 3
  const std::vector<TokenId> context = {1, byte(0xE4), byte(0xB8)};
  const TokenId word = tokenizer.encode("the", false).front();
  IncrementalDecoder decoder(tokenizer, context);
  EXPECT_EQ(decoder.push(byte(0xAD)), "");  // a bad byte behind it would still change it
  EXPECT_EQ(decoder.push(word), "\u4E2D the");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(IncrementalDecoder, PassesBrokenBytesOnAtOnce) {
  const Tokenizer tokenizer = load_model("tiny-mixtral");
  const auto byte = [](int value) { return static_cast<TokenId>(3 + value); };
  IncrementalDecoder decoder(tokenizer, std::vector<TokenId>{1});
  const std::string replacement(kReplacementCharacter);
  EXPECT_EQ(decoder.push(byte(0xC3)), "");
  EXPECT_EQ(decoder.push(byte(0xC3)), replacement + replacement);
  EXPECT_EQ(decoder.push(byte('a')), replacement);
}

TEST(IncrementalDecoder, KeepsTheSpaceThatDecodingAloneWouldStrip) {
  const Tokenizer tokenizer = load_model("tiny-mixtral");
  const std::vector<TokenId> prompt = tokenizer.encode("The history of");
  const std::vector<TokenId> word = tokenizer.encode("the", false);
  EXPECT_EQ(join(decode_in_pieces(tokenizer, prompt, word, true)), " the");
  EXPECT_EQ(join(decode_in_pieces(tokenizer, {}, word, true)), "the");
}

TEST(IncrementalDecoder, OutlivesItsTokenizer) {
  auto tokenizer = std::make_unique<Tokenizer>(load_model("tiny-qwen3-moe"));
  const std::vector<TokenId> ids = tokenizer->encode("history of the city", false);
  IncrementalDecoder decoder(*tokenizer, {});
  tokenizer.reset();
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  EXPECT_EQ(text + decoder.finish(), "history of the city");
}

}  // namespace
}  // namespace aurora
