// Translation of Oniguruma's regular-expression dialect to PCRE2's.
#include <array>
#include <cctype>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/error.h"
#include "runtime/model/strict_json.h"
#include "runtime/model/tokenizer_pattern.h"
#include "runtime/model/unicode_text.h"

namespace aurora {
namespace {

// White_Space, spelled out: PCRE2's own \s also takes U+180E, which Oniguruma does not.
constexpr std::string_view kWhitespaceItems =
    R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
// PCRE2's own \w (before 10.43) lacks marks and connector punctuation. The six characters are superscripts
// and fractions, which Oniguruma's Latin-1 table counts as parts of words.
constexpr std::string_view kWordItems = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr std::string_view kHexItems = "0-9A-Fa-f";

/// Long names of general categories; PCRE2 knows only the short ones.
constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kCategoryNames = {{
    {"Letter", "L"},
    {"Uppercase_Letter", "Lu"},
    {"Lowercase_Letter", "Ll"},
    {"Titlecase_Letter", "Lt"},
    {"Mark", "M"},
    {"Number", "N"},
    {"Decimal_Number", "Nd"},
    {"Punctuation", "P"},
    {"Symbol", "S"},
    {"Separator", "Z"},
    {"Other", "C"},
}};
constexpr std::array<std::string_view, 6> kBinaryProperties = {"Alphabetic", "White_Space", "Lowercase",
                                                               "Uppercase",  "Emoji",       "Any"};

class Translator {
 public:
  explicit Translator(std::string_view expression) : in_(expression) {}

  std::string translate() {
    while (at_ < in_.size()) {
      const bool starts_group = std::exchange(at_group_start_, false);
      switch (in_[at_]) {
        case '\\':
          escape();
          break;
        case '[':
          character_class();
          break;
        case '(':
          group(starts_group);
          break;
        case '{':
          interval();
          break;
        default:
          out_ += in_[at_++];
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view construct, std::string_view reason) const {
    throw Error(ErrorKind::kUnsupported, "regular expression " + quote_for_message(in_) + ", at byte " +
                                             std::to_string(at_) + ": " + quote_for_message(construct) +
                                             " is not supported (" + std::string(reason) + ")");
  }

  bool next_is(std::string_view text) const { return in_.substr(at_).starts_with(text); }

  /// A shorthand for a set, outside a class.
  void set(std::string_view items, bool negated) {
    out_ += negated ? "[^" : "[";
    out_ += items;
    out_ += ']';
  }

  void escape() {
    const char c = at_ + 1 < in_.size() ? in_[at_ + 1] : '\0';
    switch (c) {
      case 's':
      case 'S':
        set(kWhitespaceItems, c == 'S');
        break;
      case 'w':
      case 'W':
        set(kWordItems, c == 'W');
        break;
      case 'h':
      case 'H':
        set(kHexItems, c == 'H');
        break;
      case 'b':
      case 'B':
        word_boundary(c == 'B');
        break;
      case 'A':
      case 'z':
      case 'Z':
      case 'D':
        out_ += {'\\', c};
        break;
      default:
        character_escape();
        return;
    }
    at_ += 2;
  }

  void word_boundary(bool negated) {
    const std::string word = "[" + std::string(kWordItems) + "]";
    const std::string first = negated ? "(?=" : "(?!";
    const std::string second = negated ? "(?!" : "(?=";
    out_ += "(?:(?<=" + word + ")" + first + word + ")|(?<!" + word + ")" + second + word + "))";
  }

  /// Escapes that mean the same inside and outside a class; `at_` is on the backslash.
  void character_escape() {
    if (at_ + 1 >= in_.size()) refuse("\\", "nothing follows");
    const char c = in_[at_ + 1];
    if (std::string_view("dnrtfae").find(c) != std::string_view::npos) {
      out_ += {'\\', c};
      at_ += 2;
    } else if (c == 'v') {
      out_ += "\\x0B";  // PCRE2's \v is a set
      at_ += 2;
    } else if (c == 'p' || c == 'P') {
      property();
    } else if (c == 'x' || c == 'u') {
      code_point();
    } else if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      refuse(in_.substr(at_, 2), "no equivalent in PCRE2");
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      ++at_;  // an escaped character that is not ASCII stands for itself
    } else {
      out_ += {'\\', c};
      at_ += 2;
    }
  }

  void property() {
    bool negated = in_[at_ + 1] == 'P';
    const std::size_t close = in_.find('}', at_);
    if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || close == std::string_view::npos) {
      refuse(in_.substr(at_, 2), "write \\p{Name}");
    }
    std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    out_ += negated ? "\\P{" : "\\p{";
    out_ += property_name(name);
    out_ += '}';
    at_ = close + 1;
  }

  static std::string property_name(std::string_view name) {
    if (name.size() <= 2) return std::string(name);  // a general category
    for (const auto& [long_name, short_name] : kCategoryNames) {
      if (name == long_name) return std::string(short_name);
    }
    for (const std::string_view binary : kBinaryProperties) {
      if (name == binary) return std::string(name);
    }
    return "sc:" + std::string(name);  // the script itself; PCRE2's plain \p{Han} would be its extensions
  }

  void code_point() {
    const bool braces = in_[at_ + 1] == 'x' && at_ + 2 < in_.size() && in_[at_ + 2] == '{';
    const std::size_t begin = at_ + (braces ? 3 : 2);
    const std::size_t limit = braces ? 8 : in_[at_ + 1] == 'u' ? 4 : 2;
    std::size_t end = begin;
    while (end < in_.size() && end - begin < limit &&
           std::isxdigit(static_cast<unsigned char>(in_[end])) != 0)
      ++end;
    const std::string digits(in_.substr(begin, end - begin));
    const bool complete =
        braces ? end < in_.size() && in_[end] == '}' && !digits.empty() : digits.size() == limit;
    if (!complete) refuse(in_.substr(at_, 2), "expected \\x{H...}, \\xHH or \\uHHHH");
    if (in_[at_ + 1] == 'x' && !braces && digits[0] >= '8') {
      refuse(in_.substr(at_, 4), "a byte that is not a character; write \\x{...}");
    }
    out_ += "\\x{" + digits + "}";
    at_ = end + (braces ? 1 : 0);
  }

  void character_class() {
    out_ += in_[at_++];
    if (next_is("^")) out_ += in_[at_++];
    if (next_is("]")) refuse("[]", "an empty class or a leading ']'; write '\\]'");
    while (at_ < in_.size() && in_[at_] != ']') {
      if (in_[at_] == '[') refuse("[...[", "nested class or POSIX bracket; write '\\['");
      if (next_is("&&")) refuse("&&", "intersection of classes");
      if (in_[at_] == '\\') {
        class_escape();
      } else {
        out_ += in_[at_++];
      }
    }
    if (at_ == in_.size()) refuse("[", "the class is not closed");
    out_ += in_[at_++];
  }

  void class_escape() {
    const char c = at_ + 1 < in_.size() ? in_[at_ + 1] : '\0';
    if (c == 's' || c == 'w' || c == 'h') {
      out_ += c == 's' ? kWhitespaceItems : c == 'w' ? kWordItems : kHexItems;
    } else if (c == 'S') {
      out_ += "\\P{White_Space}";
    } else if (c == 'b') {
      out_ += "\\x08";
    } else if (c == 'D') {
      out_ += "\\D";
    } else {
      character_escape();
      return;
    }
    at_ += 2;
    if (next_is("-") && !next_is("-]")) {  // not a range: a set has no end
      out_ += "\\-";
      ++at_;
    }
  }

  void group(bool starts_group) {
    if (next_is("(*")) refuse("(*", "callout");
    if (!next_is("(?")) {
      out_ += in_[at_++];
      at_group_start_ = true;
      return;
    }
    for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (next_is(opening)) {
        out_ += opening;
        at_ += opening.size();
        at_group_start_ = true;
        return;
      }
    }
    if (next_is("(?#")) {
      const std::size_t close = in_.find(')', at_);
      if (close == std::string_view::npos) refuse("(?#", "the comment is not closed");
      at_ = close + 1;
      at_group_start_ = starts_group;
    } else if (next_is("(?<")) {
      const std::size_t close = in_.find('>', at_);
      if (close == std::string_view::npos) refuse("(?<", "the name is not closed");
      out_ += '(';
      at_ = close + 1;
      at_group_start_ = true;
    } else {
      options(starts_group);
    }
  }

  /// (?i), (?i:...), (?m-i:...): m is PCRE2's s.
  void options(bool starts_group) {
    std::string translated = "(?";
    std::size_t end = at_ + 2;
    for (; end < in_.size() && in_[end] != ')' && in_[end] != ':'; ++end) {
      const char c = in_[end];
      if (c != 'i' && c != 'm' && c != '-') refuse(in_.substr(at_, end - at_ + 1), "no equivalent in PCRE2");
      translated += c == 'm' ? 's' : c;
    }
    if (end == in_.size()) refuse("(?", "the group is not closed");
    if (in_[end] == ')' && !starts_group) {
      refuse(in_.substr(at_, end - at_ + 1), "options in the middle of a group; write (?i:...)");
    }
    out_ += translated + in_[end];
    at_ = end + 1;
    at_group_start_ = true;
  }

  /// {n}, {n,}, {n,m}, {,m}; any other brace is literal.
  void interval() {
    std::size_t end = at_ + 1;
    const auto digits = [&] {
      const std::size_t begin = end;
      while (end < in_.size() && std::isdigit(static_cast<unsigned char>(in_[end])) != 0) ++end;
      return std::string(in_.substr(begin, end - begin));
    };
    const std::string low = digits();
    const bool has_comma = end < in_.size() && in_[end] == ',';
    if (has_comma) ++end;
    const std::string high = has_comma ? digits() : low;
    if (end >= in_.size() || in_[end] != '}' || (low.empty() && high.empty())) {
      out_ += "\\{";
      ++at_;
      return;
    }
    ++end;
    if (end < in_.size() && (in_[end] == '+' || (in_[end] == '?' && !has_comma))) {
      refuse(in_.substr(at_, end - at_ + 1), "a second quantifier in Oniguruma; write (?:...)");
    }
    out_ += "{" + (low.empty() ? "0" : low) + (has_comma ? "," : "") + (has_comma ? high : "") + "}";
    at_ = end;
  }

  std::string_view in_;
  std::size_t at_ = 0;
  std::string out_;
  bool at_group_start_ = true;
};

}  // namespace

std::string translate_oniguruma(std::string_view expression) { return Translator(expression).translate(); }

}  // namespace aurora
