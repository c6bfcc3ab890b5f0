// Patterns find what Oniguruma would find, refuse what they cannot say, and give up rather than hang.
#include "runtime/model/tokenizer_pattern.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/error.h"

namespace aurora {
namespace {

/// The spans of `text`, matches in brackets.
std::string show(const TextPattern& pattern, const std::string& text) {
  std::string shown;
  for (const PatternSpan& span : pattern.find_all(text)) {
    const std::string part = text.substr(span.begin, span.end - span.begin);
    shown += span.is_match ? "[" + part + "]" : part;
  }
  return shown;
}

TEST(TextPattern, CutsATextIntoMatchesAndTheRest) {
  EXPECT_EQ(show(TextPattern::literal("-"), "a-b--c"), "a[-]b[-][-]c");
  EXPECT_EQ(show(TextPattern::literal("aa"), "aaa"), "[aa]a");
  EXPECT_EQ(show(TextPattern::regex("a+"), "baab"), "b[aa]b");
  EXPECT_EQ(show(TextPattern::regex("a"), ""), "");
  EXPECT_EQ(TextPattern::regex("a").find_all("").size(), 1u);
}

TEST(TextPattern, CountsEmptyMatchesOnceBetweenCharacters) {
  EXPECT_EQ(show(TextPattern::regex("x*"), "a\u00E9b"), "[]a[]\u00E9[]b[]");
  EXPECT_EQ(show(TextPattern::regex("x*"), "axxb"), "[]a[xx]b[]");
}

TEST(TextPattern, ReadsTheDialectOfOniguruma) {
  EXPECT_EQ(show(TextPattern::regex("\\s"), "a\u180Eb\u3000c"), "a\u180Eb[\u3000]c");
  EXPECT_EQ(show(TextPattern::regex("\\h+"), "xAf9 g"), "x[Af9] g");
  EXPECT_EQ(show(TextPattern::regex("\\w+"), "a\u0301_\u203F-"), "[a\u0301_\u203F]-");
  EXPECT_EQ(show(TextPattern::regex("^b$"), "a\nb\nc"), "a\n[b]\nc");
  EXPECT_EQ(show(TextPattern::regex("(?m:.)x"), "\nx"), "[\nx]");
  EXPECT_EQ(show(TextPattern::regex(".x"), "\nx"), "\nx");
  EXPECT_EQ(show(TextPattern::regex("a{,2}b"), "aaab"), "a[aab]");
  EXPECT_EQ(show(TextPattern::regex("a{"), "a{"), "[a{]");
  EXPECT_EQ(show(TextPattern::regex("(?i:'S)"), "'s'\u017F"), "['s]['\u017F]");
  EXPECT_EQ(show(TextPattern::regex("\\p{^L}"), "a1b"), "a[1]b");
  EXPECT_EQ(show(TextPattern::regex("[\\s-x]"), "a-x "), "a[-][x][ ]");
}

TEST(TextPattern, RefusesConstructsWithoutEquivalent) {
  for (const std::string expression :
       {"[a[b]]", "[[:alpha:]]", "[a&&b]", "[]a]",  "[a",         "\\G",     "\\R",   "\\X",
        "\\K",    "\\1",         "\\k<a>", "(?~a)", "(?(1)a)",    "(*FAIL)", "(?x)a", "a(?i)b",
        "a{2}?",  "a{2,3}+",     "\\",     "\\xE9", "\\x{110000", "\\p{L",   "\\pL",  "(?P<a>b)",
        "(?|a)",  "(?",          "(?#",    "(?<a",  "[\\W]"}) {
    EXPECT_THROW(TextPattern::regex(expression), Error) << expression;
  }
  EXPECT_THROW(TextPattern::literal(""), Error);
}

TEST(TextPattern, GivesUpOnExplosiveBacktracking) {
  const TextPattern pattern = TextPattern::regex("(?:a|a|aa)+$");
  const std::string text = std::string(5000, 'a') + "b";
  try {
    pattern.find_all(text);
    FAIL() << "found an end to 3^5000 ways";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("gave up"), std::string::npos) << error.what();
  }
}

TEST(TextPattern, MatchesAMegabyteInOneMatch) {
  const std::string spaces(1'000'000, ' ');
  EXPECT_EQ(TextPattern::regex("\\s+(?!\\S)|\\s+").find_all(spaces + "a").size(), 3u);
  const std::string letters(1'000'000, 'a');
  EXPECT_EQ(TextPattern::regex("(?:[a-m]|[n-z])+").find_all(letters).size(), 1u);
}

}  // namespace
}  // namespace aurora
