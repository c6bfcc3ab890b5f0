// One configurable value: its key, what it means, what it may be, and where it is stored. The lists of fields
// (model_fields in config.h, serve_fields in serve_options.h) are the only place that names a setting; the
// reader of files, the flags, the environment variables, --help and --dump-config are all derived from them.
//
// Not a value itself: a field points into the struct that it was listed from, which must outlive it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace aurora {

/// A whole number that is written in a file as `*value / scale` (so that kv_cache_mb sets bytes).
struct IntegerValue {
  std::int64_t* value;
  std::int64_t min;  // of the number as written
  std::int64_t max;
  std::int64_t scale = 1;
};

struct RealValue {
  double* value;
  double min;  // inclusive; `above_min` makes it exclusive
  double max;
  bool above_min = false;
};

/// One of a closed list of names.
struct ChoiceValue {
  std::vector<std::string> names;
  std::function<std::string()> get;
  std::function<void(const std::string&)> set;  // called with one of `names`
};

/// Several words in one value: separated by commas in a flag or variable.
struct ListValue {
  std::vector<std::string>* value;
};

struct Field {
  std::string key;  // snake_case
  std::string doc;  // one line, with the unit
  std::variant<std::string*, std::filesystem::path*, bool*, IntegerValue, RealValue, ChoiceValue, ListValue>
      value;
};

/// Who had the last word about a value; a later one beats an earlier one.
enum class SettingSource : std::uint8_t { kDefault, kFile, kVariable, kFlag };
std::string_view setting_source_name(SettingSource source);  // "default", "file", "variable", "flag"

/// By key; a key that is absent has its default.
using SettingSources = std::map<std::string, SettingSource>;
SettingSource source_of(const SettingSources& sources, const std::string& key);

/// "an integer from 1 to 4096", "true or false", "one of mpi, threads": what the field takes, for messages
/// and help.
std::string expected_value(const Field& field);

/// Sets the field from its text. Throws Error(kInvalidArgument) with what was expected and what was found;
/// the caller adds where the text came from.
void set_field(const Field& field, const std::string& text);

/// The shortest text that reads back as the same double, and reads as a TOML float.
std::string real_text(double value);

/// The field's value as TOML: 64, 0.5, true, "text", ["a", "b"].
std::string toml_value(const Field& field);

/// A TOML basic string with everything escaped that must be.
std::string toml_quoted(std::string_view text);

/// "kv_cache_mb" -> "--kv-cache-mb" and "AURORA_KV_CACHE_MB".
std::string flag_name(const Field& field);
std::string variable_name(const Field& field);

}  // namespace aurora
