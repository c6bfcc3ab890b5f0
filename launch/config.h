// The configuration of one model: a TOML file, and what flags and variables override in it. formats.md
// describes the file; the list of keys is model_fields below.
//
// Not here: the settings of a run as a whole (serve_options.h).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "launch/field.h"
#include "runtime/engine.h"

namespace aurora {

/// The newest version of the configuration file that this program reads, and the only one so far.
constexpr std::int64_t kModelFileVersion = 1;

struct ModelConfiguration {
  ModelOptions options;
  std::int64_t version = kModelFileVersion;
  std::filesystem::path file;  // where it was read from, for messages
  SettingSources sources;
};

/// Every key of the file, in the order of the documentation.
std::vector<Field> model_fields(ModelConfiguration& model);

/// The keys that flags and variables may override for one model or all: all but version, name and path.
bool is_overridable(const Field& model_field);

/// Parses the text of a configuration file. `file` is named in messages, relative paths in the text are
/// relative to its folder, and the checkpoint folder's name is the default of `name`. Touches no file. Throws
/// Error: kFormat for malformed TOML, a missing `path` or a wrong type (key, line, expected type),
/// kInvalidArgument for an unknown key (with the nearest known one) or a value out of range, kUnsupported for
/// a version that is not ours.
ModelConfiguration parse_model_configuration(std::string_view toml, const std::filesystem::path& file);

/// Reads and parses `file`. Throws also kNotFound and kIo.
ModelConfiguration read_model_configuration(const std::filesystem::path& file);

/// One override as a flag or variable gives it: "VALUE" for every model or "MODEL=VALUE" for one.
struct ModelOverride {
  std::string key;
  std::string text;
  SettingSource source = SettingSource::kFlag;
};

/// Applies overrides in order. Throws Error(kInvalidArgument) naming the flag or variable, for a model that
/// is not loaded (with the nearest loaded one) and for a value that does not fit.
void apply_overrides(const std::vector<ModelOverride>& overrides, std::vector<ModelConfiguration>& models);

/// Throws Error(kInvalidArgument) naming both files when two models have the same name.
void check_distinct_names(const std::vector<ModelConfiguration>& models);

/// Sets `dtype` where nobody has: float32 on "cpu", bfloat16 on a GPU.
void apply_backend_defaults(std::string_view backend, std::vector<ModelConfiguration>& models);

}  // namespace aurora
