#include "runtime/model/model_config.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/error.h"
#include "runtime/model/strict_json.h"

namespace aurora {
namespace {

using Json = nlohmann::json;

// A config.json is a few kilobytes; the longest ones list quantised modules.
constexpr std::size_t kMaxConfigBytes = std::size_t{16} << 20;

// Limits that keep every product of two of these far from overflow, and are beyond any published model.
constexpr std::int64_t kMaxLayers = 4096;
constexpr std::int64_t kMaxHeads = 4096;
constexpr std::int64_t kMaxExperts = 65536;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20;
constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 24;
// Up to here every position is a float32, which the rope tables rely on.
constexpr std::int64_t kMaxPositions = std::int64_t{1} << 24;

struct Named {
  Architecture architecture;
  std::string_view name;
  std::string_view model_type;
};

constexpr Named kArchitectures[] = {
    {Architecture::kMixtral, "MixtralForCausalLM", "mixtral"},
    {Architecture::kQwen2Moe, "Qwen2MoeForCausalLM", "qwen2_moe"},
    {Architecture::kQwen3Moe, "Qwen3MoeForCausalLM", "qwen3_moe"},
    {Architecture::kOlmoe, "OlmoeForCausalLM", "olmoe"},
};

// The defaults of the four configuration classes, where they differ.
struct Defaults {
  std::int64_t vocabulary, hidden, intermediate, expert_inner, num_layers, num_heads;
  std::optional<std::int64_t> num_kv_heads;  // none: as many as heads
  std::int64_t max_positions, num_experts, top_k;
  double rms_norm_epsilon, rope_theta;
  std::optional<std::int32_t> bos, eos;
};

Defaults defaults_of(Architecture architecture) {
  switch (architecture) {
    case Architecture::kMixtral:
      return {32000, 4096, 14336, 14336, 32, 32, 8, 131072, 8, 2, 1e-5, 1e6, 1, 2};
    case Architecture::kQwen2Moe:
      return {151936, 2048, 5632, 1408, 24, 16, 16, 32768, 60, 4, 1e-6, 1e4, {}, {}};
    case Architecture::kQwen3Moe:
      return {151936, 2048, 6144, 768, 24, 32, 4, 32768, 128, 8, 1e-6, 1e4, {}, {}};
    case Architecture::kOlmoe:
      return {50304, 2048, 2048, 2048, 16, 16, {}, 4096, 64, 8, 1e-5, 1e4, {}, 50279};
  }
  throw Error(ErrorKind::kInternal, "an architecture without defaults");
}

std::string number_text(double value) {
  std::string text = Json(value).dump();
  return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
}

// One JSON object of a configuration file. Each reader names file, key, value and what is allowed when it
// throws.
class Section {
 public:
  Section(const Json& object, std::string origin, std::string prefix = "")
      : object_(object), origin_(std::move(origin)), prefix_(std::move(prefix)) {}

  [[noreturn]] void fail(std::string_view key, const std::string& text,
                         ErrorKind kind = ErrorKind::kFormat) const {
    const auto found = object_.find(key);
    const std::string value = found == object_.end() ? "absent" : describe_json(*found);
    throw Error(kind, origin_ + ": " + prefix_ + std::string(key) + " is " + value + "; " + text);
  }

  bool contains(std::string_view key) const { return object_.contains(key); }
  /// Neither absent nor null.
  bool has_value(std::string_view key) const { return find(key) != nullptr; }
  /// Null when the key is absent or its value is null.
  const Json* find(std::string_view key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  std::int64_t integer(std::string_view key, std::int64_t fallback, std::int64_t low,
                       std::int64_t high) const {
    if (!contains(key)) return fallback;
    const Json& value = object_.at(std::string(key));
    if (is_integer_in(value, low, high)) return value.get<std::int64_t>();
    fail(key, "must be an integer from " + std::to_string(low) + " to " + std::to_string(high));
  }

  std::optional<std::int64_t> optional_integer(std::string_view key, std::int64_t low,
                                               std::int64_t high) const {
    if (!has_value(key)) return {};
    return integer(key, low, low, high);
  }

  /// A finite number in [low, high].
  double number(std::string_view key, double fallback, double low, double high) const {
    if (!contains(key)) return fallback;
    const Json& value = object_.at(std::string(key));
    const double number = value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (number >= low && number <= high) return number;
    fail(key, "must be a number from " + number_text(low) + " to " + number_text(high));
  }

  std::optional<double> optional_number(std::string_view key, double low, double high) const {
    if (!has_value(key)) return {};
    return number(key, low, low, high);
  }

  bool boolean(std::string_view key, bool fallback) const {
    const Json* const value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) fail(key, "must be true or false");
    return value->get<bool>();
  }

  std::string text(std::string_view key, const std::string& fallback) const {
    const Json* const value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) fail(key, "must be a string");
    return value->get<std::string>();
  }

  const Json* array(std::string_view key) const {
    const Json* const value = find(key);
    if (value != nullptr && !value->is_array()) fail(key, "must be an array");
    return value;
  }

  /// The object under `key`, or none when it is absent, null or empty.
  std::optional<Section> section(std::string_view key) const {
    const Json* const value = find(key);
    if (value == nullptr) return {};
    if (!value->is_object()) fail(key, "must be an object");
    if (value->empty()) return {};
    return Section(*value, origin_, prefix_ + std::string(key) + ".");
  }

  const Json& object() const { return object_; }

  static bool is_integer_in(const Json& value, std::int64_t low, std::int64_t high) {
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(high))
      return false;
    return value.is_number_integer() && value.get<std::int64_t>() >= low && value.get<std::int64_t>() <= high;
  }

 private:
  const Json& object_;
  std::string origin_;
  std::string prefix_;
};

Architecture read_architecture(const Section& file) {
  std::string supported;
  for (const Named& known : kArchitectures)
    supported += (supported.empty() ? "" : ", ") + std::string(known.name);
  const std::string model_type = file.text("model_type", "");
  const Json* const names = file.array("architectures");
  if (names == nullptr || names->empty()) {
    for (const Named& known : kArchitectures) {
      if (known.model_type == model_type) return known.architecture;
    }
    file.fail("architectures", "one of these is needed: " + supported,
              model_type.empty() ? ErrorKind::kFormat : ErrorKind::kUnsupported);
  }
  if (names->size() != 1 || !names->front().is_string()) file.fail("architectures", "must hold one name");
  const auto name = names->front().get<std::string>();
  for (const Named& known : kArchitectures) {
    if (known.name != name) continue;
    if (model_type.empty() || model_type == known.model_type) return known.architecture;
    file.fail("model_type", "architecture " + name + " has model_type " + std::string(known.model_type));
  }
  file.fail("architectures", quote_for_message(name) + " is not supported; these are: " + supported,
            ErrorKind::kUnsupported);
}

void refuse_unsupported_features(const Section& file) {
  const std::string activation = file.text("hidden_act", "silu");
  if (activation != "silu") file.fail("hidden_act", "only \"silu\" is supported", ErrorKind::kUnsupported);
  if (const auto quantization = file.section("quantization_config")) {
    file.fail("quantization_config",
              "quantised weights (quant_method " +
                  quote_for_message(quantization->text("quant_method", "unknown")) +
                  ") are not supported; use the float32, float16 or bfloat16 checkpoint",
              ErrorKind::kUnsupported);
  }
}

void read_sizes(const Section& file, const Defaults& defaults, ModelConfig& config) {
  config.num_layers = file.integer("num_hidden_layers", defaults.num_layers, 1, kMaxLayers);
  config.hidden = file.integer("hidden_size", defaults.hidden, 1, kMaxWidth);
  config.vocabulary = file.integer("vocab_size", defaults.vocabulary, 1, kMaxVocabulary);
  config.max_positions = file.integer("max_position_embeddings", defaults.max_positions, 1, kMaxPositions);
  config.rms_norm_epsilon = file.number("rms_norm_eps", defaults.rms_norm_epsilon, 0, 1);
  config.tie_word_embeddings = file.boolean("tie_word_embeddings", false);
}

void read_heads(const Section& file, const Defaults& defaults, ModelConfig& config) {
  config.num_heads = file.integer("num_attention_heads", defaults.num_heads, 1, kMaxHeads);
  // An explicit null means one key/value head per head, as an absent key does where the class has no default.
  const std::int64_t fallback = file.contains("num_key_value_heads")
                                    ? config.num_heads
                                    : defaults.num_kv_heads.value_or(config.num_heads);
  config.num_kv_heads = file.optional_integer("num_key_value_heads", 1, kMaxHeads).value_or(fallback);
  if (config.num_heads % config.num_kv_heads != 0) {
    file.fail("num_key_value_heads", "num_attention_heads, " + std::to_string(config.num_heads) +
                                         ", must be a multiple of " + std::to_string(config.num_kv_heads));
  }
  const auto head_width = file.optional_integer("head_dim", 1, kMaxWidth);
  if (!head_width && config.hidden % config.num_heads != 0) {
    file.fail("head_dim", "without it num_attention_heads, " + std::to_string(config.num_heads) +
                              ", must divide hidden_size, " + std::to_string(config.hidden));
  }
  config.head_width = head_width.value_or(config.hidden / config.num_heads);
  if (config.head_width % 2 != 0) {
    file.fail("head_dim",
              "rotary embedding needs an even head size, not " + std::to_string(config.head_width));
  }
  if (config.num_heads * config.head_width > kMaxWidth) {
    file.fail("head_dim", "heads x head size must be at most " + std::to_string(kMaxWidth));
  }
  if (config.architecture == Architecture::kOlmoe && config.num_heads * config.head_width != config.hidden) {
    file.fail("head_dim", "OLMoE normalises queries over hidden_size, so heads x head size must be " +
                              std::to_string(config.hidden));
  }
}

void read_attention(const Section& file, ModelConfig& config) {
  switch (config.architecture) {
    case Architecture::kMixtral:
      break;
    case Architecture::kQwen2Moe:
      config.attention_bias = file.boolean("qkv_bias", true);
      break;
    case Architecture::kQwen3Moe:
      config.query_key_norm = QueryKeyNorm::kPerHead;
      config.attention_bias = config.output_projection_bias = file.boolean("attention_bias", false);
      break;
    case Architecture::kOlmoe:
      config.query_key_norm = QueryKeyNorm::kFull;
      config.attention_bias = config.output_projection_bias = file.boolean("attention_bias", false);
      config.clip_qkv = file.optional_number("clip_qkv", std::numeric_limits<float>::min(), 1e30).value_or(0);
      break;
  }
}

// Qwen2-MoE: which layers slide is listed in layer_types, and else follows from max_window_layers.
std::vector<bool> read_sliding_layers(const Section& file, std::int64_t num_layers, bool use_sliding_window) {
  std::vector<bool> slides(static_cast<std::size_t>(num_layers));
  const Json* const types = file.array("layer_types");
  if (types == nullptr) {
    const std::int64_t max_window_layers =
        file.integer("max_window_layers", 28, 0, std::numeric_limits<std::int32_t>::max());
    for (std::int64_t layer = 0; layer < num_layers; ++layer) {
      slides[static_cast<std::size_t>(layer)] =
          use_sliding_window && layer % 2 == 0 && layer < max_window_layers;
    }
    return slides;
  }
  if (types->size() != slides.size()) {
    file.fail("layer_types", "must name one type for each of the " + std::to_string(num_layers) + " layers");
  }
  for (std::size_t layer = 0; layer < slides.size(); ++layer) {
    const Json& type = (*types)[layer];
    slides[layer] = type == "sliding_attention";
    if (!slides[layer] && type != "full_attention") {
      file.fail("layer_types",
                "entry " + std::to_string(layer) + " is " + describe_json(type) +
                    "; only \"full_attention\" and \"sliding_attention\" are supported",
                ErrorKind::kUnsupported);
    }
    if (slides[layer] && !use_sliding_window) {
      file.fail("layer_types", "entry " + std::to_string(layer) +
                                   " is \"sliding_attention\", but use_sliding_window is not true");
    }
  }
  return slides;
}

void read_windows(const Section& file, ModelConfig& config) {
  constexpr std::int64_t kMaxWindow = std::numeric_limits<std::int32_t>::max();
  std::vector<bool> slides(static_cast<std::size_t>(config.num_layers), true);
  std::optional<std::int64_t> window;
  if (config.architecture == Architecture::kMixtral) {
    window = file.optional_integer("sliding_window", 1, kMaxWindow);
  } else if (config.architecture != Architecture::kOlmoe) {
    const bool use_sliding_window = file.boolean("use_sliding_window", false);
    if (config.architecture == Architecture::kQwen2Moe) {
      slides = read_sliding_layers(file, config.num_layers, use_sliding_window);
    }
    const std::int64_t fallback = 4096;  // of both Qwen classes; an explicit null means no window
    if (use_sliding_window && !file.contains("sliding_window")) window = fallback;
    if (use_sliding_window && file.contains("sliding_window")) {
      window = file.optional_integer("sliding_window", 1, kMaxWindow);
    }
  }
  config.window.assign(slides.size(), 0);
  for (std::size_t layer = 0; layer < slides.size(); ++layer) {
    if (slides[layer]) config.window[layer] = static_cast<std::int32_t>(window.value_or(0));
  }
}

// `num_experts` and `num_local_experts` mean the same; a file that gives both must give one value.
std::int64_t read_num_experts(const Section& file, std::int64_t fallback) {
  const std::int64_t either = file.integer("num_experts", fallback, 1, kMaxExperts);
  const std::int64_t local = file.integer("num_local_experts", either, 1, kMaxExperts);
  if (file.contains("num_experts") && local != either) {
    file.fail("num_local_experts", "num_experts is " + std::to_string(either) + "; the two must agree");
  }
  return local;
}

void read_moe_layers(const Section& file, ModelConfig& config) {
  config.is_moe_layer.assign(static_cast<std::size_t>(config.num_layers), true);
  if (config.architecture != Architecture::kQwen2Moe && config.architecture != Architecture::kQwen3Moe)
    return;
  const std::int64_t step =
      file.integer("decoder_sparse_step", 1, 1, std::numeric_limits<std::int32_t>::max());
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    config.is_moe_layer[static_cast<std::size_t>(layer)] = (layer + 1) % step == 0;
  }
  if (const Json* const dense = file.array("mlp_only_layers")) {
    for (const Json& layer : *dense) {
      if (!Section::is_integer_in(layer, 0, config.num_layers - 1)) {
        file.fail("mlp_only_layers", "entry " + describe_json(layer) + " is not a layer; there are " +
                                         std::to_string(config.num_layers));
      }
      config.is_moe_layer[layer.get<std::size_t>()] = false;
    }
  }
  if (config.num_moe_layers() == 0) {
    file.fail("decoder_sparse_step",
              "with mlp_only_layers it leaves no layer with experts; dense models are not "
              "supported",
              ErrorKind::kUnsupported);
  }
}

void read_experts(const Section& file, const Defaults& defaults, ModelConfig& config) {
  config.num_experts = read_num_experts(file, defaults.num_experts);
  config.top_k = file.integer("num_experts_per_tok", defaults.top_k, 1, kMaxExperts);
  if (config.top_k > config.num_experts) {
    file.fail("num_experts_per_tok", "there are only " + std::to_string(config.num_experts) + " experts");
  }
  read_moe_layers(file, config);
  const std::int64_t intermediate = file.integer("intermediate_size", defaults.intermediate, 1, kMaxWidth);
  if (config.architecture == Architecture::kMixtral || config.architecture == Architecture::kOlmoe) {
    config.expert_inner = intermediate;
  } else {
    config.dense_inner = intermediate;
    config.expert_inner = file.integer("moe_intermediate_size", defaults.expert_inner, 1, kMaxWidth);
  }
  if (config.architecture == Architecture::kQwen2Moe) {
    config.shared_expert_inner = file.integer("shared_expert_intermediate_size", 5632, 0, kMaxWidth);
  }
  config.normalize_top_k =
      config.architecture == Architecture::kMixtral || file.boolean("norm_topk_prob", false);
}

// transformers 5 writes rope_parameters, 4 wrote rope_scaling.
std::optional<Section> find_rope_section(const Section& file) {
  auto parameters = file.section("rope_parameters");
  auto scaling = file.section("rope_scaling");
  if (parameters && scaling && parameters->object() != scaling->object()) {
    file.fail("rope_scaling", "rope_parameters is given too, with another value");
  }
  return parameters ? parameters : scaling;
}

RopeScaling read_rope_scaling(const Section& rope) {
  const std::string_view key = rope.has_value("rope_type") ? "rope_type" : "type";
  const std::string name = rope.text(key, "default");
  if (name == "default") return RopeScaling::kNone;
  if (name == "linear") return RopeScaling::kLinear;
  if (name == "llama3") return RopeScaling::kLlama3;
  if (name == "yarn") return RopeScaling::kYarn;
  rope.fail(key, "only \"default\", \"linear\", \"llama3\" and \"yarn\" are supported",
            ErrorKind::kUnsupported);
}

constexpr double kMaxFactor = 1e6;  // of the rope settings that are ratios
constexpr double kMinFactor = 1e-6;

double read_original_max_positions(const Section& file, const Section& rope, std::int64_t max_positions) {
  const Section& holder = file.has_value("original_max_position_embeddings") ? file : rope;
  return static_cast<double>(
      holder.optional_integer("original_max_position_embeddings", 1, kMaxPositions).value_or(max_positions));
}

void read_llama3(const Section& rope, RopeConfig& config) {
  for (const char* key : {"low_freq_factor", "high_freq_factor"}) {
    if (!rope.has_value(key)) rope.fail(key, "llama3 rope scaling needs it");
  }
  config.low_freq_factor = rope.number("low_freq_factor", 0, kMinFactor, kMaxFactor);
  config.high_freq_factor = rope.number("high_freq_factor", 0, kMinFactor, kMaxFactor);
  if (config.high_freq_factor <= config.low_freq_factor) {
    rope.fail("high_freq_factor", "must exceed low_freq_factor, " + number_text(config.low_freq_factor));
  }
}

void read_yarn(const Section& rope, RopeConfig& config) {
  // transformers takes zero, like null, as "not given" for these four.
  const auto given = [&](std::string_view key) {
    const auto value = rope.optional_number(key, 0, kMaxFactor);
    return value && *value != 0 ? value : std::nullopt;
  };
  config.beta_fast = given("beta_fast").value_or(32);
  config.beta_slow = given("beta_slow").value_or(1);
  if (config.beta_fast < config.beta_slow) {
    rope.fail("beta_fast", "must not be below beta_slow, " + number_text(config.beta_slow));
  }
  config.truncate_correction_range = rope.boolean("truncate", true);
  config.attention_factor = rope.optional_number("attention_factor", kMinFactor, kMaxFactor);
  config.magnitude_scale = given("mscale").value_or(0);
  config.magnitude_scale_all = given("mscale_all_dim").value_or(0);
}

void read_rope(const Section& file, const Defaults& defaults, ModelConfig& config) {
  constexpr double kMinTheta = 1.0000001;  // yarn divides by its logarithm
  constexpr double kMaxTheta = 1e15;
  config.rope.theta = file.number("rope_theta", defaults.rope_theta, kMinTheta, kMaxTheta);
  const auto rope = find_rope_section(file);
  for (const Section* holder : {&file, rope ? &*rope : &file}) {
    if (holder->optional_number("partial_rotary_factor", 0, 1).value_or(1) != 1) {
      holder->fail("partial_rotary_factor", "only 1 is supported", ErrorKind::kUnsupported);
    }
  }
  if (!rope) return;
  for (const auto& [key, value] : rope->object().items()) {
    if (value.is_object())
      rope->fail(key, "rope settings per layer type are not supported", ErrorKind::kUnsupported);
  }
  config.rope.theta = rope->number("rope_theta", config.rope.theta, kMinTheta, kMaxTheta);
  config.rope.scaling = read_rope_scaling(*rope);
  if (config.rope.scaling == RopeScaling::kNone) return;
  const bool needs_original = config.rope.scaling != RopeScaling::kLinear;
  if (needs_original) {
    config.rope.original_max_positions = read_original_max_positions(file, *rope, config.max_positions);
  }
  const auto factor = rope->optional_number("factor", kMinFactor, kMaxFactor);
  if (!factor && config.rope.scaling != RopeScaling::kYarn)
    rope->fail("factor", "this rope scaling needs it");
  config.rope.factor =
      factor ? *factor : static_cast<double>(config.max_positions) / config.rope.original_max_positions;
  if (config.rope.scaling == RopeScaling::kLlama3) read_llama3(*rope, config.rope);
  if (config.rope.scaling == RopeScaling::kYarn) read_yarn(*rope, config.rope);
}

std::vector<std::int32_t> read_token_ids(const Section& file, std::string_view key, std::int64_t vocabulary) {
  const Json* const value = file.find(key);
  if (value == nullptr) return {};
  const Json list = value->is_array() ? *value : Json::array({*value});
  std::vector<std::int32_t> ids;
  for (const Json& id : list) {
    if (!Section::is_integer_in(id, 0, vocabulary - 1)) {
      file.fail(key, "entry " + describe_json(id) + " is not a token id below vocab_size, " +
                         std::to_string(vocabulary));
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

// generation_config.json wins over config.json, and a file's null or empty list over the class's default.
void read_special_tokens(const Section& file, const Section& generation, const Defaults& defaults,
                         ModelConfig& config) {
  const auto choose = [&](std::string_view key, std::optional<std::int32_t> fallback) {
    if (auto ids = read_token_ids(generation, key, config.vocabulary); !ids.empty()) return ids;
    if (file.contains(key)) return read_token_ids(file, key, config.vocabulary);
    // A default that lies outside a small vocabulary can never occur.
    if (!fallback || *fallback >= config.vocabulary) return std::vector<std::int32_t>{};
    return std::vector<std::int32_t>{*fallback};
  };
  config.eos_token_ids = choose("eos_token_id", defaults.eos);
  const auto bos = choose("bos_token_id", defaults.bos);
  if (bos.size() > 1) file.fail("bos_token_id", "must be one token id");
  if (!bos.empty()) config.bos_token_id = bos.front();
}

Json parse_object(std::string_view text, const std::string& origin) {
  Json parsed = parse_strict_json(text, origin);
  if (!parsed.is_object())
    throw Error(ErrorKind::kFormat, origin + ": is " + describe_json(parsed) + ", not an object");
  return parsed;
}

}  // namespace

std::string_view architecture_name(Architecture architecture) {
  for (const Named& known : kArchitectures) {
    if (known.architecture == architecture) return known.name;
  }
  throw Error(ErrorKind::kInternal, "an architecture without a name");
}

std::int64_t ModelConfig::num_moe_layers() const {
  return std::count(is_moe_layer.begin(), is_moe_layer.end(), true);
}

ModelConfig parse_model_config(std::string_view config_json, std::string_view generation_json,
                               const std::filesystem::path& folder) {
  const std::string config_origin = (folder / "config.json").string();
  const std::string generation_origin = (folder / "generation_config.json").string();
  const Json config_object = parse_object(config_json, config_origin);
  const Json generation_object =
      generation_json.empty() ? Json::object() : parse_object(generation_json, generation_origin);
  const Section file(config_object, config_origin);
  const Section generation(generation_object, generation_origin);

  ModelConfig config;
  config.architecture = read_architecture(file);
  const Defaults defaults = defaults_of(config.architecture);
  refuse_unsupported_features(file);
  read_sizes(file, defaults, config);
  read_heads(file, defaults, config);
  read_attention(file, config);
  read_windows(file, config);
  read_experts(file, defaults, config);
  read_rope(file, defaults, config);
  read_special_tokens(file, generation, defaults, config);
  return config;
}

ModelConfig read_model_config(const std::filesystem::path& folder) {
  const auto generation_file = folder / "generation_config.json";
  const std::string config_json = read_text_file(folder / "config.json", kMaxConfigBytes);
  std::string generation_json;
  if (std::filesystem::exists(generation_file)) {
    generation_json = read_text_file(generation_file, kMaxConfigBytes);
    if (generation_json.empty()) {
      throw Error(ErrorKind::kFormat, generation_file.string() + ": is empty");
    }
  }
  return parse_model_config(config_json, generation_json, folder);
}

}  // namespace aurora
