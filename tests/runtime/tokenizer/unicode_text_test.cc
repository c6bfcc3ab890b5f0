#include "runtime/model/unicode_text.h"

#include <gtest/gtest.h>

#include <string>

namespace aurora {
namespace {

bool is_surrogate(char32_t c) { return c >= 0xD800 && c <= 0xDFFF; }

TEST(UnicodeText, WritesAndReadsEveryCodePoint) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (is_surrogate(c)) continue;
    std::string text;
    append_utf8(c, text);
    ASSERT_EQ(utf8_length(text[0]), text.size()) << static_cast<std::uint32_t>(c);
    ASSERT_EQ(character_at(text, 0), c);
    ASSERT_EQ(first_invalid_utf8(text), std::nullopt);
    ASSERT_EQ(single_character(text), c);
    ASSERT_EQ(previous_character("x" + text, 1 + text.size()), 1u);
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const Utf8Front front = classify_utf8_front(std::string_view(text).substr(0, cut));
      ASSERT_EQ(front.kind, Utf8Prefix::kIncomplete);
      ASSERT_EQ(front.length, cut);
    }
  }
}

TEST(UnicodeText, AcceptsNoPairOfBytesThatIsNotACharacter) {
  // Two bytes are UTF-8 exactly when both are ASCII or they encode U+0080 to U+07FF.
  for (unsigned first = 0; first < 256; ++first) {
    for (unsigned second = 0; second < 256; ++second) {
      const std::string text = {static_cast<char>(first), static_cast<char>(second)};
      const bool valid =
          (first < 0x80 && second < 0x80) || (first >= 0xC2 && first <= 0xDF && second >> 6 == 2);
      ASSERT_EQ(!first_invalid_utf8(text), valid) << first << " " << second;
    }
  }
}

TEST(UnicodeText, NamesTheFirstByteThatIsNoCharacter) {
  EXPECT_EQ(first_invalid_utf8("\xED\xA0\x80"), 0u);        // a surrogate
  EXPECT_EQ(first_invalid_utf8("a\xE0\x80\x80"), 1u);       // overlong
  EXPECT_EQ(first_invalid_utf8("ab\xF4\x90\x80\x80"), 2u);  // beyond U+10FFFF
  EXPECT_EQ(first_invalid_utf8("abc\xF0\x9F\x98"), 3u);     // cut
}

TEST(UnicodeText, ReplacesMaximalSubparts) {
  // The example of the Unicode standard, section 3.9.
  const std::string bytes = "\xF1\x80\x80\xE1\x80\xC2";
  std::size_t at = 0;
  for (const std::size_t length : {3u, 2u, 1u}) {
    const Utf8Front front = classify_utf8_front(std::string_view(bytes + "a").substr(at));
    EXPECT_EQ(front.kind, Utf8Prefix::kInvalid);
    EXPECT_EQ(front.length, length);
    at += length;
  }
}

TEST(UnicodeText, NormalizesLongRunsOfMarksInOrder) {
  // Alternating classes 230 and 220: ordering must put all of 220 first. Sorting by swapping neighbours would
  // take 10^10 steps here.
  std::string text = "q";
  std::string ordered = "q";
  const int num_pairs = 100'000;
  for (int k = 0; k < num_pairs; ++k) text += "\u0307\u0323";
  for (int k = 0; k < num_pairs; ++k) ordered += "\u0323";
  for (int k = 0; k < num_pairs; ++k) ordered += "\u0307";
  EXPECT_TRUE(normalize(text, NormalForm::kNfc) == ordered);
}

TEST(UnicodeText, ComposesAcrossWhatItCopies) {
  EXPECT_EQ(normalize("abce\u0301 x", NormalForm::kNfc), "abc\u00E9 x");
  EXPECT_EQ(normalize("\u4E2D\u0301\u4E2D", NormalForm::kNfc), "\u4E2D\u0301\u4E2D");
  EXPECT_EQ(normalize("\uAC00\u11A8\u11A8", NormalForm::kNfc), "\uAC01\u11A8");
  EXPECT_EQ(normalize("\u0438\u0306", NormalForm::kNfc), "\u0439");
  EXPECT_EQ(normalize("\uFB03x\u00BD", NormalForm::kNfkc), "ffix1\u20442");
  EXPECT_EQ(normalize("\uFB03", NormalForm::kNfc), "\uFB03");
  EXPECT_EQ(normalize("", NormalForm::kNfc), "");
}

}  // namespace
}  // namespace aurora
