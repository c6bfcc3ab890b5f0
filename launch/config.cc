#include "launch/config.h"

#include <toml++/toml.h>

#include <fstream>
#include <limits>
#include <sstream>
#include <system_error>

#include "kernels/error.h"
#include "runtime/plan_io/nearest_name.h"

namespace aurora {
namespace {

constexpr std::int64_t kMebibyte = std::int64_t{1} << 20;
/// A file of settings that is larger than this is not one.
constexpr std::uintmax_t kMaxFileBytes = 1 << 20;

ChoiceValue dtype_choice(DType& dtype) {
  ChoiceValue choice;
  for (const DType known : {DType::kFloat32, DType::kBFloat16}) choice.names.emplace_back(dtype_name(known));
  choice.get = [&dtype] { return std::string(dtype_name(dtype)); };
  choice.set = [&dtype](const std::string& name) { dtype = *parse_dtype(name); };
  return choice;
}

std::string at_line(const std::filesystem::path& file, const toml::source_region& region) {
  return file.string() + ", line " + std::to_string(region.begin.line);
}

/// "an integer", "a table": what TOML calls the value that was found.
std::string found_type(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a float";
    case toml::node_type::boolean:
      return "a boolean";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::table:
      return "a table";
    default:
      return "a date or time";
  }
}

/// The text of a TOML value of the type that `field` takes; nothing when the type is another.
std::optional<std::string> text_of(const Field& field, const toml::node& node) {
  if (std::holds_alternative<bool*>(field.value)) {
    if (const auto value = node.value_exact<bool>()) return *value ? "true" : "false";
  } else if (std::holds_alternative<IntegerValue>(field.value)) {
    if (const auto value = node.value_exact<std::int64_t>()) return std::to_string(*value);
  } else if (std::holds_alternative<RealValue>(field.value)) {
    if (const auto value = node.value<double>(); value && node.is_number()) return real_text(*value);
  } else if (const auto value = node.value_exact<std::string>()) {
    return *value;
  }
  return std::nullopt;
}

void read_key(const toml::key& key, const toml::node& node, const std::vector<Field>& fields,
              ModelConfiguration& model) {
  const std::string name(key.str());
  const std::string where = at_line(model.file, key.source()) + ": ";
  std::vector<std::string> known;
  for (const Field& field : fields) {
    known.push_back(field.key);
    if (field.key != name) continue;
    const auto text = text_of(field, node);
    if (!text) {
      throw Error(ErrorKind::kFormat, where + "key \"" + name + "\": expected " + expected_value(field) +
                                          ", found " + found_type(node));
    }
    try {
      set_field(field, *text);
    } catch (const Error& error) {
      throw Error(error.kind(), where + "key \"" + name + "\": " + error.what());
    }
    model.sources[name] = SettingSource::kFile;
    return;
  }
  throw Error(ErrorKind::kInvalidArgument,
              where + "unknown key \"" + name + "\"" + suggest_name(name, known));
}

toml::table parsed_table(std::string_view text, const std::filesystem::path& file) {
  try {
    return toml::parse(text, file.string());
  } catch (const toml::parse_error& error) {
    throw Error(ErrorKind::kFormat, at_line(file, error.source()) + ", column " +
                                        std::to_string(error.source().begin.column) +
                                        ": malformed TOML: " + std::string(error.description()));
  }
}

void make_absolute_from(const std::filesystem::path& folder, std::filesystem::path& path) {
  if (!path.empty()) path = (folder / path).lexically_normal();
}

void check_name(const ModelConfiguration& model) {
  const std::string& name = model.options.name;
  bool is_valid = !name.empty();
  for (const char c : name) {
    if (c == '=' || c == ',' || static_cast<unsigned char>(c) < 0x20) is_valid = false;
  }
  if (is_valid) return;
  throw Error(
      ErrorKind::kInvalidArgument,
      model.file.string() + ": key \"name\": " + toml_quoted(name) +
          " cannot name a model; use at least one character, and no \"=\", \",\" or control character");
}

/// Reads at most kMaxFileBytes of a regular file.
std::string file_text(const std::filesystem::path& file) {
  std::error_code failure;
  const std::filesystem::file_status status = std::filesystem::status(file, failure);
  if (status.type() == std::filesystem::file_type::not_found) {
    throw Error(ErrorKind::kNotFound, "model configuration " + file.string() + " does not exist");
  }
  if (status.type() == std::filesystem::file_type::directory) {
    throw Error(ErrorKind::kInvalidArgument,
                file.string() +
                    " is a folder; give the model's configuration file, in which \"path\" names the folder");
  }
  std::ifstream stream(file, std::ios::binary);
  std::string text;
  char block[4096];
  while (stream.read(block, sizeof block) || stream.gcount() > 0) {
    text.append(block, static_cast<std::size_t>(stream.gcount()));
    if (text.size() > kMaxFileBytes) {
      throw Error(ErrorKind::kFormat, file.string() + " is larger than " + std::to_string(kMaxFileBytes) +
                                          " bytes, so it is no model configuration");
    }
  }
  if (!stream.eof()) throw Error(ErrorKind::kIo, "cannot read model configuration " + file.string());
  return text;
}

std::string spelled(const ModelOverride& change, const Field& field) {
  return change.source == SettingSource::kVariable ? variable_name(field) : flag_name(field);
}

void override_field(const ModelOverride& change, const std::string& text, ModelConfiguration& model) {
  for (const Field& field : model_fields(model)) {
    if (field.key != change.key) continue;
    try {
      set_field(field, text);
    } catch (const Error& error) {
      throw Error(error.kind(), spelled(change, field) + ": " + error.what());
    }
    model.sources[field.key] = change.source;
    return;
  }
  check(false, "an override names a key of the list of fields");
}

}  // namespace

std::vector<Field> model_fields(ModelConfiguration& model) {
  constexpr std::int64_t kMaxTokens = std::int64_t{1} << 30;
  constexpr double kMaxWeight = 1e6;
  ModelOptions& o = model.options;
  return {
      {"version", "version of this file's format", IntegerValue{&model.version, 1, 1 << 30}},
      {"name", "name in prompts and reports; default: the checkpoint folder's name", &o.name},
      {"path", "checkpoint folder, relative to this file (required)", &o.checkpoint},
      {"dtype", "of weights and compute; default float32 on CPUs, bfloat16 on GPUs", dtype_choice(o.dtype)},
      {"max_batch_tokens", "tokens that one rank processes in one step, prefill chunks included",
       IntegerValue{&o.max_batch_tokens, 1, 1 << 20}},
      {"max_batch_requests", "requests running at once on one rank",
       IntegerValue{&o.max_batch_requests, 1, 1 << 16}},
      {"max_sequence_tokens", "prompt and answer together; 0: what the model allows",
       IntegerValue{&o.max_sequence_tokens, 0, kMaxTokens}},
      {"kv_cache_mb", "memory for keys and values on one rank, MiB",
       IntegerValue{&o.kv_cache_bytes, 1, 1 << 24, kMebibyte}},
      {"kv_block_tokens", "tokens in one block of the KV cache", IntegerValue{&o.kv_block_tokens, 1, 4096}},
      {"weight", "share of time, or of ranks with --schedule exclusive, beside other models",
       RealValue{&o.weight, 0, kMaxWeight, true}},
      {"traffic", "past traffic to plan from", &o.traffic},
      {"replay_routing", "routing record that drives the gate", &o.replay_routing},
  };
}

bool is_overridable(const Field& model_field) {
  return model_field.key != "version" && model_field.key != "name" && model_field.key != "path";
}

ModelConfiguration parse_model_configuration(std::string_view toml, const std::filesystem::path& file) {
  ModelConfiguration model;
  model.file = file;
  const toml::table table = parsed_table(toml, file);
  const std::vector<Field> fields = model_fields(model);
  for (const auto& [key, node] : table) read_key(key, node, fields, model);
  if (model.version != kModelFileVersion) {
    throw Error(ErrorKind::kUnsupported, file.string() + ": version " + std::to_string(model.version) +
                                             " of the model configuration; this program reads version " +
                                             std::to_string(kModelFileVersion));
  }
  if (model.options.checkpoint.empty()) {
    throw Error(
        ErrorKind::kFormat,
        file.string() + ": key \"path\" is missing; it names the checkpoint folder, relative to this file");
  }
  const std::filesystem::path folder = file.parent_path();
  make_absolute_from(folder, model.options.checkpoint);
  make_absolute_from(folder, model.options.traffic);
  make_absolute_from(folder, model.options.replay_routing);
  if (source_of(model.sources, "name") == SettingSource::kDefault) {
    const std::filesystem::path& checkpoint = model.options.checkpoint;
    const auto name = checkpoint.has_filename() ? checkpoint.filename() : checkpoint.parent_path().filename();
    model.options.name = name.string();
  }
  check_name(model);
  return model;
}

ModelConfiguration read_model_configuration(const std::filesystem::path& file) {
  return parse_model_configuration(file_text(file), file);
}

void apply_overrides(const std::vector<ModelOverride>& overrides, std::vector<ModelConfiguration>& models) {
  std::vector<std::string> names;
  for (const ModelConfiguration& model : models) names.push_back(model.options.name);
  for (const ModelOverride& change : overrides) {
    const std::size_t equals = change.text.find('=');
    if (equals == std::string::npos) {
      for (ModelConfiguration& model : models) override_field(change, change.text, model);
      continue;
    }
    const std::string name = change.text.substr(0, equals);
    bool is_found = false;
    for (ModelConfiguration& model : models) {
      if (model.options.name != name) continue;
      override_field(change, change.text.substr(equals + 1), model);
      is_found = true;
    }
    if (is_found) continue;
    const Field field{change.key, "", static_cast<std::string*>(nullptr)};
    throw Error(ErrorKind::kInvalidArgument,
                spelled(change, field) + ": no model is named \"" + name + "\"" + suggest_name(name, names));
  }
}

void check_distinct_names(const std::vector<ModelConfiguration>& models) {
  for (std::size_t i = 0; i < models.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (models[i].options.name != models[j].options.name) continue;
      throw Error(ErrorKind::kInvalidArgument,
                  "two models are named \"" + models[i].options.name + "\": " + models[j].file.string() +
                      " and " + models[i].file.string() + "; give one of them another \"name\"");
    }
  }
}

void apply_backend_defaults(std::string_view backend, std::vector<ModelConfiguration>& models) {
  for (ModelConfiguration& model : models) {
    if (source_of(model.sources, "dtype") != SettingSource::kDefault) continue;
    model.options.dtype = backend == "cpu" ? DType::kFloat32 : DType::kBFloat16;
  }
}

}  // namespace aurora
