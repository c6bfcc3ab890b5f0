#include "launch/field.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <system_error>
#include <type_traits>

#include "kernels/error.h"
#include "runtime/plan_io/nearest_name.h"

namespace aurora {
namespace {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

template <class Number>
std::string number_text(Number value) {
  char digits[64];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
  check(error == std::errc(), "a number has at most 64 characters");
  return std::string(digits, end);
}

[[noreturn]] void throw_unexpected(const Field& field, const std::string& text) {
  constexpr std::size_t kLongestQuoted = 80;
  const std::string shown = text.size() <= kLongestQuoted ? text : text.substr(0, kLongestQuoted) + "...";
  throw Error(ErrorKind::kInvalidArgument, "expected " + expected_value(field) + ", found \"" + shown + "\"");
}

template <class Number>
Number parsed_number(const Field& field, const std::string& text) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) throw_unexpected(field, text);
  return number;
}

void set_integer(const Field& field, const IntegerValue& integer, const std::string& text) {
  const auto number = parsed_number<std::int64_t>(field, text);
  if (number < integer.min || number > integer.max) throw_unexpected(field, text);
  *integer.value = number * integer.scale;
}

void set_real(const Field& field, const RealValue& real, const std::string& text) {
  const auto number = parsed_number<double>(field, text);
  const bool above = real.above_min ? number > real.min : number >= real.min;
  if (!above || !(number <= real.max)) throw_unexpected(field, text);
  *real.value = number;
}

void set_boolean(const Field& field, bool* value, const std::string& text) {
  if (text == "true" || text == "1" || text == "on" || text == "yes") {
    *value = true;
  } else if (text == "false" || text == "0" || text == "off" || text == "no") {
    *value = false;
  } else {
    throw_unexpected(field, text);
  }
}

void set_choice(const ChoiceValue& choice, const std::string& text) {
  for (const std::string& name : choice.names) {
    if (name == text) return choice.set(name);
  }
  throw Error(ErrorKind::kInvalidArgument,
              "unknown name \"" + text + "\"" + suggest_name(text, choice.names));
}

void set_list(const Field& field, const ListValue& list, const std::string& text) {
  list.value->clear();
  std::size_t start = 0;
  while (start <= text.size()) {
    const std::size_t comma = std::min(text.find(',', start), text.size());
    if (comma == start) throw_unexpected(field, text);
    list.value->push_back(text.substr(start, comma - start));
    start = comma + 1;
  }
}

}  // namespace

std::string real_text(double value) {
  std::string text = number_text(value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string_view setting_source_name(SettingSource source) {
  switch (source) {
    case SettingSource::kDefault:
      return "default";
    case SettingSource::kFile:
      return "file";
    case SettingSource::kVariable:
      return "variable";
    case SettingSource::kFlag:
      return "flag";
  }
  return "default";
}

SettingSource source_of(const SettingSources& sources, const std::string& key) {
  const auto found = sources.find(key);
  return found == sources.end() ? SettingSource::kDefault : found->second;
}

std::string expected_value(const Field& field) {
  return std::visit(
      Overloaded{
          [](const std::string*) { return std::string("a string"); },
          [](const std::filesystem::path*) { return std::string("a path as a string"); },
          [](const bool*) { return std::string("true or false"); },
          [](const IntegerValue& integer) {
            return "an integer from " + std::to_string(integer.min) + " to " + std::to_string(integer.max);
          },
          [](const RealValue& real) {
            return "a number " + std::string(real.above_min ? "above " : "from ") + number_text(real.min) +
                   (real.above_min ? " and at most " : " to ") + number_text(real.max);
          },
          [](const ChoiceValue& choice) {
            std::string text = "one of ";
            for (std::size_t i = 0; i < choice.names.size(); ++i)
              text += (i == 0 ? "" : ", ") + choice.names[i];
            return text;
          },
          [](const ListValue&) { return std::string("names separated by commas"); },
      },
      field.value);
}

void set_field(const Field& field, const std::string& text) {
  std::visit(Overloaded{
                 [&](std::string* value) { *value = text; },
                 [&](std::filesystem::path* value) {
                   if (text.empty() || text.find('\0') != std::string::npos) throw_unexpected(field, text);
                   *value = text;
                 },
                 [&](bool* value) { set_boolean(field, value, text); },
                 [&](const IntegerValue& integer) { set_integer(field, integer, text); },
                 [&](const RealValue& real) { set_real(field, real, text); },
                 [&](const ChoiceValue& choice) { set_choice(choice, text); },
                 [&](const ListValue& list) { set_list(field, list, text); },
             },
             field.value);
}

std::string toml_quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      constexpr char kHex[] = "0123456789abcdef";
      quoted += "\\u00";
      quoted += kHex[byte >> 4];
      quoted += kHex[byte & 15];
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

std::string toml_value(const Field& field) {
  return std::visit(
      Overloaded{
          [](const std::string* value) { return toml_quoted(*value); },
          [](const std::filesystem::path* value) { return toml_quoted(value->string()); },
          [](const bool* value) { return std::string(*value ? "true" : "false"); },
          [](const IntegerValue& integer) { return number_text(*integer.value / integer.scale); },
          [](const RealValue& real) { return real_text(*real.value); },
          [](const ChoiceValue& choice) { return toml_quoted(choice.get()); },
          [](const ListValue& list) {
            std::string text = "[";
            for (const std::string& word : *list.value) {
              text += (text.size() == 1 ? "" : ", ") + toml_quoted(word);
            }
            return text + "]";
          },
      },
      field.value);
}

std::string flag_name(const Field& field) {
  std::string name = "--" + field.key;
  for (char& c : name) {
    if (c == '_') c = '-';
  }
  return name;
}

std::string variable_name(const Field& field) {
  std::string name = "AURORA_" + field.key;
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace aurora
