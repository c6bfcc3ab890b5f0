#include "launch/prompt_line.h"

#include <gtest/gtest.h>

#include <limits>

namespace aurora {
namespace {

const std::vector<std::string> kModels = {"tiny-mixtral", "tiny-qwen3-moe"};

PromptLine parsed(const std::string& text) { return parse_prompt_line(text, 7, kModels); }

/// Why a line with these further fields is refused; "" when it is not.
std::string refusal_of(const std::string& fields) {
  return parsed(R"({"model": "tiny-mixtral", "prompt": "x", )" + fields + "}").error.value_or("");
}

TEST(PromptLine, EveryFieldIsRead) {
  const PromptLine line =
      parsed(R"({"custom_id": "c", "model": "tiny-qwen3-moe", "prompt": "a\u00e9\ud83d\ude80",
    "max_tokens": 5, "temperature": 0.5, "top_p": 0.25, "top_k": 6, "seed": 18446744073709551615,
    "stop": ["x", "y"], "ignore_eos": true, "version": 1})");
  EXPECT_EQ(line.error, std::nullopt);
  EXPECT_EQ(line.custom_id, "c");
  EXPECT_EQ(line.request.model, "tiny-qwen3-moe");
  EXPECT_EQ(line.request.prompt, "aé🚀");
  EXPECT_FALSE(line.request.prompt_token_ids.has_value());
  EXPECT_EQ(line.request.sampling.max_tokens, 5);
  EXPECT_EQ(line.request.sampling.temperature, 0.5F);
  EXPECT_EQ(line.request.sampling.top_p, 0.25F);
  EXPECT_EQ(line.request.sampling.top_k, 6);
  EXPECT_EQ(line.request.sampling.seed, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(line.request.sampling.stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_TRUE(line.request.sampling.ignore_eos);
}

TEST(PromptLine, WhatIsLeftOutHasTheEnginesDefault) {
  const PromptLine line = parse_prompt_line(R"({"prompt_token_ids": [1, 2]})", 3, {"only"});
  const SamplingParams defaults;
  EXPECT_EQ(line.error, std::nullopt);
  EXPECT_EQ(line.custom_id, "3");
  EXPECT_EQ(line.request.model, "only");
  EXPECT_EQ(line.request.prompt_token_ids, (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(line.request.sampling.max_tokens, defaults.max_tokens);
  EXPECT_EQ(line.request.sampling.temperature, defaults.temperature);
  EXPECT_EQ(line.request.sampling.top_p, defaults.top_p);
  EXPECT_EQ(line.request.sampling.top_k, defaults.top_k);
  EXPECT_EQ(line.request.sampling.seed, defaults.seed);
  EXPECT_TRUE(line.request.sampling.stop.empty());
  EXPECT_FALSE(line.request.sampling.ignore_eos);
}

TEST(PromptLine, OneStopStringNeedsNoList) {
  EXPECT_EQ(parsed(R"({"model": "tiny-mixtral", "prompt": "", "stop": "end"})").request.sampling.stop,
            std::vector<std::string>{"end"});
}

TEST(PromptLine, MalformedJsonNamesLineAndColumn) {
  const PromptLine line = parsed(R"({"prompt": "x",})");
  ASSERT_TRUE(line.error.has_value());
  EXPECT_EQ(line.error->rfind("line 7: malformed JSON: at column 16: syntax error", 0), 0U) << *line.error;
  EXPECT_EQ(line.custom_id, "7");
  for (const char* text :
       {"", "{", "nonsense", "[1", "{\"a\"}", "{'prompt': 'x'}", "{\"prompt\": \"\\ud800\"}",
        "{\"temperature\": 1e999}", "{\"prompt\": NaN}", "{} {}"}) {
    EXPECT_TRUE(parsed(text).error.has_value()) << text;
  }
  for (const char* text : {"3", "\"x\"", "[]", "null"}) {
    EXPECT_NE(parsed(text).error.value_or("").find("expected a JSON object"), std::string::npos) << text;
  }
}

TEST(PromptLine, AFieldGivenTwiceAndEndlessNestingAreRefused) {
  EXPECT_EQ(refusal_of(R"("prompt": "y")"), "line 7: field \"prompt\" is given twice");
  const std::string deep(100000, '[');
  EXPECT_TRUE(parsed(deep).error.has_value());
  EXPECT_NE(refusal_of("\"stop\": " + std::string(20, '[') + std::string(20, ']')).find("nested deeper"),
            std::string::npos);
}

TEST(PromptLine, AnUnknownFieldNamesTheNearestKnownOne) {
  EXPECT_EQ(refusal_of(R"("temprature": 1)"),
            "line 7: unknown field \"temprature\"; did you mean \"temperature\"?");
  EXPECT_NE(refusal_of(R"("logit_bias_of_everything": 1)").find("known are custom_id, model"),
            std::string::npos);
}

TEST(PromptLine, WrongTypesAndNumbersOutOfRangeSayWhatIsExpected) {
  EXPECT_EQ(refusal_of(R"("max_tokens": 0)"),
            "line 7: field \"max_tokens\": expected an integer from 1 to 2147483647, found 0");
  EXPECT_EQ(refusal_of(R"("temperature": "hot")"),
            "line 7: field \"temperature\": expected a number from 0 to 100, found \"hot\"");
  for (const char* bad : {R"("max_tokens": 2147483648)",
                          R"("max_tokens": -1)",
                          R"("max_tokens": 1.5)",
                          R"("max_tokens": "5")",
                          R"("max_tokens": 18446744073709551615)",
                          R"("max_tokens": null)",
                          R"("temperature": -0.1)",
                          R"("temperature": 101)",
                          R"("temperature": true)",
                          R"("top_p": 0)",
                          R"("top_p": 1.01)",
                          R"("top_p": 1e-60)",
                          R"("top_p": [])",
                          R"("top_k": -1)",
                          R"("top_k": 1e3)",
                          R"("top_k": 2147483648)",
                          R"("seed": -1)",
                          R"("seed": 18446744073709551616)",
                          R"("seed": 0.5)",
                          R"("stop": 3)",
                          R"("stop": [3])",
                          R"("stop": "")",
                          R"("stop": [""])",
                          R"("ignore_eos": 1)",
                          R"("custom_id": 5)",
                          R"("version": 2)"}) {
    EXPECT_NE(refusal_of(bad), "") << bad;
  }
  for (const char* good :
       {R"("max_tokens": 2147483647)", R"("temperature": 0)", R"("temperature": 100)", R"("top_p": 1)",
        R"("top_p": 1e-30)", R"("top_k": 0)", R"("seed": 0)", R"("stop": [])"}) {
    EXPECT_EQ(refusal_of(good), "") << good;
  }
}

TEST(PromptLine, ThePromptIsTextOrIdsAndNotBoth) {
  const auto error_of = [](const std::string& fields) {
    return parsed(R"({"model": "tiny-mixtral")" + fields + "}").error.value_or("");
  };
  EXPECT_NE(error_of("").find("\"prompt\" is missing"), std::string::npos);
  EXPECT_NE(error_of(R"(, "prompt": "x", "prompt_token_ids": [1])").find("exclude each other"),
            std::string::npos);
  for (const char* bad : {R"(, "prompt": 5)", R"(, "prompt_token_ids": [])", R"(, "prompt_token_ids": [-1])",
                          R"(, "prompt_token_ids": [2147483648])", R"(, "prompt_token_ids": [1.0])",
                          R"(, "prompt_token_ids": "1 2")", R"(, "prompt_token_ids": [[1]])"}) {
    EXPECT_NE(error_of(bad), "") << bad;
  }
  EXPECT_EQ(error_of(R"(, "prompt": "")"), "");
}

TEST(PromptLine, AnUnknownModelNamesTheNearestLoadedOne) {
  EXPECT_EQ(parsed(R"({"model": "tiny-mixtrall", "prompt": "x"})").error,
            "line 7: no model is named \"tiny-mixtrall\"; did you mean \"tiny-mixtral\"?");
  const std::string missing = parsed(R"({"prompt": "x"})").error.value_or("");
  EXPECT_NE(missing.find("field \"model\" is missing, and 2 models are loaded"), std::string::npos)
      << missing;
}

TEST(PromptLine, ARefusedLineKeepsTheIdItNames) {
  const PromptLine line =
      parsed(R"({"prompt": "x", "custom_id": "mine", "model": "tiny-mixtral", "top_p": 9})");
  EXPECT_TRUE(line.error.has_value());
  EXPECT_EQ(line.custom_id, "mine");
  EXPECT_EQ(line.request.model, "tiny-mixtral");
}

TEST(PromptLine, TextThatIsNotUtf8NamesTheByte) {
  EXPECT_EQ(parsed("{\"prompt\": \"\xc3\"}").error, "line 7: byte 13 is not valid UTF-8");
  for (const char* bad : {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                          "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xff", "\xe2\x82", "a\xf0\x9f\x9a"}) {
    EXPECT_TRUE(find_invalid_utf8(bad).has_value()) << bad;
  }
  EXPECT_EQ(find_invalid_utf8("aé€🚀\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80"), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("ab\xff"), 2U);
}

TEST(PromptLine, EveryCodePointIsValidAndEverySurrogateIsNot) {
  for (std::uint32_t point = 0; point <= 0x10ffff; ++point) {
    std::string text;
    if (point < 0x80) {
      text = {static_cast<char>(point)};
    } else if (point < 0x800) {
      text = {static_cast<char>(0xc0 | point >> 6), static_cast<char>(0x80 | (point & 63))};
    } else if (point < 0x10000) {
      text = {static_cast<char>(0xe0 | point >> 12), static_cast<char>(0x80 | (point >> 6 & 63)),
              static_cast<char>(0x80 | (point & 63))};
    } else {
      text = {static_cast<char>(0xf0 | point >> 18), static_cast<char>(0x80 | (point >> 12 & 63)),
              static_cast<char>(0x80 | (point >> 6 & 63)), static_cast<char>(0x80 | (point & 63))};
    }
    const bool is_surrogate = point >= 0xd800 && point <= 0xdfff;
    ASSERT_EQ(find_invalid_utf8(text).has_value(), is_surrogate) << point;
  }
}

TEST(PromptLine, AnOverlongLineSaysSo) {
  const PromptLine line = overlong_prompt_line(4);
  EXPECT_EQ(line.error, "line 4: longer than 8388608 bytes; split the prompt or give token ids");
}

}  // namespace
}  // namespace aurora
