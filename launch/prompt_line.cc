#include "launch/prompt_line.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <utility>

#include "runtime/plan_io/nearest_name.h"

namespace aurora {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 8;  // an object of lists of numbers needs two
constexpr double kMaxTemperature = 100;
constexpr std::size_t kMaxStops = 64;

/// Why a line is refused; caught where the line's number is known.
struct Refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string json_quoted(std::string_view text) {
  constexpr std::size_t kLongest = 60;
  std::string start(text.substr(0, kLongest));
  while (find_invalid_utf8(start)) start.pop_back();  // the cut may have split a character
  return Json(start).dump() + (text.size() > start.size() ? "..." : "");
}

/// A value as it is shown in a message.
std::string shown(const Json& value) {
  if (value.is_string()) return json_quoted(value.get_ref<const std::string&>());
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  return value.dump();
}

[[noreturn]] void refuse(const char* field, const std::string& expected, const Json& value) {
  throw Refusal("field \"" + std::string(field) + "\": expected " + expected + ", found " + shown(value));
}

std::string string_of(const char* field, const Json& value) {
  if (!value.is_string()) refuse(field, "a string", value);
  return value.get<std::string>();
}

template <class Integer>
Integer integer_of(const char* field, const Json& value, Integer min, Integer max) {
  const std::string expected = "an integer from " + std::to_string(min) + " to " + std::to_string(max);
  if (!value.is_number_integer()) refuse(field, expected, value);
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (!std::in_range<Integer>(number)) refuse(field, expected, value);
    const auto result = static_cast<Integer>(number);
    if (result < min || result > max) refuse(field, expected, value);
    return result;
  }
  const auto number = value.get<std::int64_t>();  // negative
  if (!std::in_range<Integer>(number) || static_cast<Integer>(number) < min) refuse(field, expected, value);
  return static_cast<Integer>(number);
}

float temperature_of(const Json& value) {
  const char* expected = "a number from 0 to 100";
  if (!value.is_number()) refuse("temperature", expected, value);
  const auto number = value.get<double>();
  if (!(number >= 0 && number <= kMaxTemperature)) refuse("temperature", expected, value);
  return static_cast<float>(number);
}

float top_p_of(const Json& value) {
  const char* expected = "a number above 0 and at most 1";
  if (!value.is_number()) refuse("top_p", expected, value);
  const auto number = value.get<double>();
  const auto top_p = static_cast<float>(number);
  if (!(number > 0 && number <= 1 && top_p > 0)) refuse("top_p", expected, value);
  return top_p;
}

std::vector<TokenId> token_ids_of(const Json& value) {
  if (!value.is_array() || value.empty())
    refuse("prompt_token_ids", "a list of at least one token id", value);
  std::vector<TokenId> ids;
  ids.reserve(value.size());
  for (const Json& id : value) {
    ids.push_back(integer_of<TokenId>("prompt_token_ids", id, 0, std::numeric_limits<TokenId>::max()));
  }
  return ids;
}

std::vector<std::string> stop_of(const Json& value) {
  std::vector<std::string> stop;
  if (value.is_string()) {
    stop.push_back(value.get<std::string>());
  } else if (value.is_array()) {
    for (const Json& text : value) stop.push_back(string_of("stop", text));
  } else {
    refuse("stop", "a string or a list of strings", value);
  }
  if (stop.size() > kMaxStops) {
    throw Refusal("field \"stop\": " + std::to_string(stop.size()) + " strings; at most " +
                  std::to_string(kMaxStops) + " are allowed");
  }
  for (const std::string& text : stop) {
    if (text.empty()) throw Refusal("field \"stop\": an empty string would stop every answer at once");
  }
  return stop;
}

bool boolean_of(const char* field, const Json& value) {
  if (!value.is_boolean()) refuse(field, "true or false", value);
  return value.get<bool>();
}

struct PromptField {
  const char* name;
  void (*read)(const Json& value, PromptLine& line);
};

/// Every field of a prompt; the only list of them.
const PromptField kFields[] = {
    {"custom_id", [](const Json& v, PromptLine& line) { line.custom_id = string_of("custom_id", v); }},
    {"model", [](const Json& v, PromptLine& line) { line.request.model = string_of("model", v); }},
    {"prompt", [](const Json& v, PromptLine& line) { line.request.prompt = string_of("prompt", v); }},
    {"prompt_token_ids",
     [](const Json& v, PromptLine& line) { line.request.prompt_token_ids = token_ids_of(v); }},
    {"max_tokens",
     [](const Json& v, PromptLine& line) {
       line.request.sampling.max_tokens =
           integer_of<std::int32_t>("max_tokens", v, 1, std::numeric_limits<std::int32_t>::max());
     }},
    {"temperature",
     [](const Json& v, PromptLine& line) { line.request.sampling.temperature = temperature_of(v); }},
    {"top_p", [](const Json& v, PromptLine& line) { line.request.sampling.top_p = top_p_of(v); }},
    {"top_k",
     [](const Json& v, PromptLine& line) {
       line.request.sampling.top_k =
           integer_of<std::int32_t>("top_k", v, 0, std::numeric_limits<std::int32_t>::max());
     }},
    {"seed",
     [](const Json& v, PromptLine& line) {
       line.request.sampling.seed =
           integer_of<std::uint64_t>("seed", v, 0, std::numeric_limits<std::uint64_t>::max());
     }},
    {"stop", [](const Json& v, PromptLine& line) { line.request.sampling.stop = stop_of(v); }},
    {"version",  // of this format; may be left out
     [](const Json& v, PromptLine&) { integer_of<std::int64_t>("version", v, 1, 1); }},
    {"ignore_eos",
     [](const Json& v, PromptLine& line) { line.request.sampling.ignore_eos = boolean_of("ignore_eos", v); }},
};

/// Parses JSON and refuses what JSON libraries let pass: a key given twice, and nesting without end.
Json parsed_object(std::string_view text) {
  std::set<std::string> keys;
  std::string trouble;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth && trouble.empty()) {
      trouble = "nested deeper than " + std::to_string(kMaxDepth) + " levels";
    }
    if (event == Json::parse_event_t::key && depth == 1) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.insert(key).second && trouble.empty())
        trouble = "field " + json_quoted(key) + " is given twice";
    }
    return depth <= kMaxDepth;
  };
  Json object;
  try {
    object = Json::parse(text, watch);
  } catch (const Json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 9: syntax error while ..."
    std::string reason = error.what();
    const std::size_t column = reason.find("column ");
    if (column != std::string::npos) {
      reason = "at " + reason.substr(column);
    } else {
      reason = reason.substr(reason.find("] ") + 1);
    }
    throw Refusal("malformed JSON: " + reason);
  }
  if (!trouble.empty()) throw Refusal(trouble);
  if (!object.is_object()) throw Refusal("expected a JSON object, found " + shown(object));
  return object;
}

void resolve_model(PromptLine& line, bool is_named, const std::vector<std::string>& models) {
  if (!is_named) {
    if (models.size() != 1) {
      throw Refusal("field \"model\" is missing, and " + std::to_string(models.size()) +
                    " models are loaded" + suggest_name("", models));
    }
    line.request.model = models.front();
  }
  if (std::find(models.begin(), models.end(), line.request.model) == models.end()) {
    throw Refusal("no model is named " + json_quoted(line.request.model) +
                  suggest_name(line.request.model, models));
  }
}

void read_fields(const Json& object, PromptLine& line, const std::vector<std::string>& models) {
  // Identity first, so that whatever is wrong with the rest is reported under it.
  for (const PromptField& field : kFields) {
    const auto found = object.find(field.name);
    if (found != object.end()) field.read(*found, line);
  }
  for (const auto& [key, value] : object.items()) {
    const auto is_it = [&known_key = key](const PromptField& field) { return known_key == field.name; };
    if (std::any_of(std::begin(kFields), std::end(kFields), is_it)) continue;
    std::vector<std::string> known;
    for (const PromptField& field : kFields) known.emplace_back(field.name);
    throw Refusal("unknown field " + json_quoted(key) + suggest_name(key, known));
  }
  resolve_model(line, object.contains("model"), models);
  if (object.contains("prompt") == object.contains("prompt_token_ids")) {
    throw Refusal(object.contains("prompt") ? "fields \"prompt\" and \"prompt_token_ids\" exclude each other"
                                            : "field \"prompt\" is missing (or \"prompt_token_ids\")");
  }
}

/// The length of the character that starts `text`, or 0 when its bytes are not valid UTF-8.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](std::size_t i, unsigned char low = 0x80, unsigned char high = 0xbf) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    // E0 must not be overlong, ED must not be a surrogate.
    const unsigned char low = first == 0xe0 ? 0xa0 : 0x80;
    const unsigned char high = first == 0xed ? 0x9f : 0xbf;
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const unsigned char low = first == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = first == 0xf4 ? 0x8f : 0xbf;
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

PromptLine parse_prompt_line(std::string_view text, std::int64_t number,
                             const std::vector<std::string>& models) {
  PromptLine line;
  line.custom_id = std::to_string(number);
  const std::string where = "line " + std::to_string(number) + ": ";
  if (const auto offset = find_invalid_utf8(text)) {
    line.error = where + "byte " + std::to_string(*offset + 1) + " is not valid UTF-8";
    return line;
  }
  try {
    read_fields(parsed_object(text), line, models);
  } catch (const Refusal& refusal) {
    line.error = where + refusal.what();
  }
  return line;
}

PromptLine overlong_prompt_line(std::int64_t number) {
  PromptLine line;
  line.custom_id = std::to_string(number);
  line.error = "line " + std::to_string(number) + ": longer than " + std::to_string(kMaxPromptLineBytes) +
               " bytes; split the prompt or give token ids";
  return line;
}

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  std::size_t position = 0;
  while (position < text.size()) {
    const std::size_t length = utf8_length(text.substr(position));
    if (length == 0) return position;
    position += length;
  }
  return std::nullopt;
}

}  // namespace aurora
