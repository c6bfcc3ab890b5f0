// config.json of all four architectures in both spellings, the defaults of the Hugging Face classes, and
// everything that must be refused by name.
#include "runtime/model/model_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/runtime/checkpoint/expect_error.h"
#include "tests/runtime/checkpoint/scratch_folder.h"

namespace aurora {
namespace {

using Json = nlohmann::json;

const std::filesystem::path kFixtures = std::filesystem::path(AURORA_SOURCE_DIR) / "tests/fixtures";
const std::filesystem::path kModels = std::filesystem::path(AURORA_SOURCE_DIR) / "launch/models";

Json of_type(const std::string& model_type) { return {{"model_type", model_type}}; }

ModelConfig parse(const Json& config, const std::string& generation = "") {
  return parse_model_config(config.dump(), generation, "model");
}

// `base` with `key` set to `value` must be refused with a text that names the file, the key and `parts`.
void expect_bad(Json base, const std::string& key, const Json& value,
                std::initializer_list<std::string_view> parts, ErrorKind kind = ErrorKind::kFormat) {
  SCOPED_TRACE(key + " = " + value.dump());
  base[Json::json_pointer("/" + key)] = value;
  const std::string leaf = key.substr(key.rfind('/') + 1);
  expect_error([&] { parse(base); }, kind, parts);
  expect_error([&] { parse(base); }, kind, {"model/config.json", leaf});
}

TEST(ModelConfig, ReadsTheTrainedMixtral) {
  const ModelConfig config = read_model_config(kModels / "tiny-mixtral");
  EXPECT_EQ(architecture_name(config.architecture), "MixtralForCausalLM");
  EXPECT_EQ(config.num_layers, 4);
  EXPECT_EQ(config.hidden, 128);
  EXPECT_EQ(config.vocabulary, 2048);
  EXPECT_EQ(config.max_positions, 1024);
  EXPECT_EQ(config.num_heads, 4);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_width, 32);
  EXPECT_DOUBLE_EQ(config.rms_norm_epsilon, 1e-5);
  EXPECT_DOUBLE_EQ(config.rope.theta, 10000);
  EXPECT_EQ(config.query_key_norm, QueryKeyNorm::kNone);
  EXPECT_EQ(config.window, std::vector<std::int32_t>(4, 0));
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.num_experts, 8);
  EXPECT_EQ(config.top_k, 2);
  EXPECT_EQ(config.expert_inner, 256);
  EXPECT_TRUE(config.normalize_top_k);
  EXPECT_EQ(config.num_moe_layers(), 4);
  EXPECT_EQ(config.eos_token_ids, std::vector<std::int32_t>{2});
  EXPECT_EQ(config.bos_token_id, 1);
}

TEST(ModelConfig, ReadsTheTrainedQwen3Moe) {
  const ModelConfig config = read_model_config(kModels / "tiny-qwen3-moe");
  EXPECT_EQ(config.architecture, Architecture::kQwen3Moe);
  EXPECT_EQ(config.num_experts, 16);
  EXPECT_EQ(config.top_k, 4);
  EXPECT_EQ(config.expert_inner, 128);
  EXPECT_EQ(config.query_key_norm, QueryKeyNorm::kPerHead);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_TRUE(config.normalize_top_k);
  EXPECT_EQ(config.window, std::vector<std::int32_t>(4, 0));
  EXPECT_EQ(config.eos_token_ids, std::vector<std::int32_t>{0});
}

TEST(ModelConfig, ReadsQwen2MoeInTheOldSpelling) {
  const ModelConfig config = read_model_config(kFixtures / "tiny-qwen2-moe");
  EXPECT_EQ(config.architecture, Architecture::kQwen2Moe);
  EXPECT_TRUE(config.attention_bias);
  EXPECT_FALSE(config.output_projection_bias);
  EXPECT_DOUBLE_EQ(config.rope.theta, 5000);
  EXPECT_EQ(config.head_width, 10);
  EXPECT_EQ(config.num_experts, 6);
  EXPECT_EQ(config.shared_expert_inner, 36);
  EXPECT_EQ(config.dense_inner, 48);
  EXPECT_EQ(config.expert_inner, 20);
  EXPECT_FALSE(config.normalize_top_k);
  EXPECT_EQ(config.is_moe_layer, (std::vector<bool>{true, false, true, true}));
  EXPECT_EQ(config.num_moe_layers(), 3);
  EXPECT_EQ(config.window, (std::vector<std::int32_t>{7, 0, 0, 7}));
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::int32_t>{2, 5}));
}

TEST(ModelConfig, ReadsOlmoeInTheNewSpelling) {
  const ModelConfig config = read_model_config(kFixtures / "tiny-olmoe");
  EXPECT_EQ(config.architecture, Architecture::kOlmoe);
  EXPECT_DOUBLE_EQ(config.clip_qkv, 0.7);
  EXPECT_EQ(config.query_key_norm, QueryKeyNorm::kFull);
  EXPECT_EQ(config.num_experts, 8);
  EXPECT_EQ(config.expert_inner, 20);
  EXPECT_FALSE(config.normalize_top_k);
  EXPECT_EQ(config.bos_token_id, std::nullopt);
}

TEST(ModelConfig, ReadsMixtralInTheOldSpellingWithItsWindow) {
  const ModelConfig config = read_model_config(kFixtures / "tiny-mixtral-window");
  EXPECT_EQ(config.window, std::vector<std::int32_t>(3, 6));
  EXPECT_EQ(config.head_width, 8);
  EXPECT_DOUBLE_EQ(config.rope.theta, 20000);
}

TEST(ModelConfig, AbsentKeysTakeTheDefaultsOfTheClasses) {
  const ModelConfig mixtral = parse(of_type("mixtral"));
  EXPECT_EQ(mixtral.num_kv_heads, 8);
  EXPECT_EQ(mixtral.expert_inner, 14336);
  EXPECT_DOUBLE_EQ(mixtral.rope.theta, 1e6);
  EXPECT_EQ(mixtral.max_positions, 131072);
  EXPECT_EQ(mixtral.eos_token_ids, std::vector<std::int32_t>{2});
  const ModelConfig qwen2 = parse(of_type("qwen2_moe"));
  EXPECT_EQ(qwen2.num_experts, 60);
  EXPECT_EQ(qwen2.shared_expert_inner, 5632);
  EXPECT_EQ(qwen2.head_width, 128);
  EXPECT_TRUE(qwen2.eos_token_ids.empty());
  const ModelConfig qwen3 = parse(of_type("qwen3_moe"));
  EXPECT_EQ(qwen3.num_experts, 128);
  EXPECT_EQ(qwen3.num_kv_heads, 4);
  EXPECT_FALSE(qwen3.normalize_top_k);
  const ModelConfig olmoe = parse(of_type("olmoe"));
  EXPECT_EQ(olmoe.num_kv_heads, 16);
  EXPECT_EQ(olmoe.clip_qkv, 0);
  EXPECT_EQ(olmoe.eos_token_ids, std::vector<std::int32_t>{50279});
}

TEST(ModelConfig, BothNamesOfTheNumberOfExpertsAreRead) {
  for (const std::string type : {"mixtral", "qwen2_moe", "qwen3_moe", "olmoe"}) {
    for (const std::string key : {"num_experts", "num_local_experts"}) {
      Json config = of_type(type);
      config[key] = 24;
      EXPECT_EQ(parse(config).num_experts, 24) << type << ' ' << key;
    }
  }
  Json both = of_type("qwen3_moe");
  both["num_experts"] = 16;
  expect_bad(both, "num_local_experts", 8, {"8", "16", "agree"});
}

TEST(ModelConfig, RopeIsReadInBothSpellings) {
  Json config = of_type("mixtral");
  config["rope_theta"] = 5e5;
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 2}};
  EXPECT_DOUBLE_EQ(parse(config).rope.theta, 5e5);
  EXPECT_EQ(parse(config).rope.scaling, RopeScaling::kLinear);
  EXPECT_DOUBLE_EQ(parse(config).rope.factor, 2);
  config.erase("rope_scaling");
  config["rope_parameters"] = {{"rope_type", "yarn"}, {"factor", 4.0}, {"rope_theta", 7e5}};
  const RopeConfig yarn = parse(config).rope;
  EXPECT_EQ(yarn.scaling, RopeScaling::kYarn);
  EXPECT_DOUBLE_EQ(yarn.theta, 7e5);
  EXPECT_DOUBLE_EQ(yarn.original_max_positions, 131072);
  EXPECT_DOUBLE_EQ(yarn.beta_fast, 32);
  EXPECT_FALSE(yarn.attention_factor.has_value());
  for (const Json& none : {Json(nullptr), Json::object()}) {
    Json plain = of_type("mixtral");
    plain["rope_scaling"] = none;
    EXPECT_EQ(parse(plain).rope.scaling, RopeScaling::kNone);
  }
}

TEST(ModelConfig, UnsupportedRopeIsRefusedByName) {
  constexpr auto kUnsupported = ErrorKind::kUnsupported;
  for (const std::string name : {"dynamic", "longrope", "su", "mrope", "proportional"}) {
    Json config = of_type("qwen2_moe");
    config["rope_scaling"] = {{"factor", 2}};
    expect_bad(config, "rope_scaling/type", name, {name, "yarn"}, kUnsupported);
    expect_bad(config, "rope_scaling/rope_type", name, {name, "yarn"}, kUnsupported);
  }
  expect_bad(of_type("mixtral"), "partial_rotary_factor", 0.5, {"0.5"}, kUnsupported);
  Json nested = of_type("qwen2_moe");
  nested["rope_parameters"] = Json::object();
  expect_bad(nested, "rope_parameters/full_attention", {{"rope_type", "default"}}, {"layer type"},
             kUnsupported);
}

TEST(ModelConfig, WrongRopeNumbersAreNamed) {
  Json linear = of_type("mixtral");
  linear["rope_scaling"] = {{"type", "linear"}, {"factor", 2}};
  expect_bad(linear, "rope_scaling/factor", 0, {"0"});
  expect_bad(linear, "rope_scaling/factor", nullptr, {"needs it"});
  expect_bad(linear, "rope_theta", -1, {"-1"});
  expect_bad(linear, "rope_parameters", {{"rope_type", "default"}}, {"rope_scaling", "another value"});
}

TEST(ModelConfig, WrongRopeOptionsOfLlama3AndYarnAreNamed) {
  Json llama3 = of_type("mixtral");
  llama3["rope_parameters"] = {
      {"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 1}, {"high_freq_factor", 4}};
  EXPECT_NO_THROW(parse(llama3));
  expect_bad(llama3, "rope_parameters/high_freq_factor", 1, {"exceed"});
  expect_bad(llama3, "rope_parameters/low_freq_factor", nullptr, {"needs it"});
  expect_bad(llama3, "rope_parameters/original_max_position_embeddings", 0, {"0"});
  Json yarn = of_type("mixtral");
  yarn["rope_parameters"] = {{"rope_type", "yarn"}, {"factor", 8}};
  expect_bad(yarn, "rope_parameters/beta_fast", 0.5, {"beta_slow"});
  expect_bad(yarn, "rope_parameters/attention_factor", 0, {"0"});
  expect_bad(yarn, "rope_parameters/truncate", 1, {"true or false"});
}

TEST(ModelConfig, SlidingWindowsFollowEachArchitecture) {
  Json qwen2 = of_type("qwen2_moe");
  qwen2["num_hidden_layers"] = 5;
  qwen2["sliding_window"] = 9;
  qwen2["max_window_layers"] = 3;
  EXPECT_EQ(parse(qwen2).window, std::vector<std::int32_t>(5, 0));
  qwen2["use_sliding_window"] = true;
  EXPECT_EQ(parse(qwen2).window, (std::vector<std::int32_t>{9, 0, 9, 0, 0}));
  qwen2.erase("sliding_window");
  EXPECT_EQ(parse(qwen2).window, (std::vector<std::int32_t>{4096, 0, 4096, 0, 0}));
  Json qwen3 = of_type("qwen3_moe");
  qwen3["num_hidden_layers"] = 2;
  qwen3["sliding_window"] = 9;
  EXPECT_EQ(parse(qwen3).window, std::vector<std::int32_t>(2, 0));
  qwen3["use_sliding_window"] = true;
  EXPECT_EQ(parse(qwen3).window, std::vector<std::int32_t>(2, 9));
  qwen3["sliding_window"] = nullptr;
  EXPECT_EQ(parse(qwen3).window, std::vector<std::int32_t>(2, 0));
  expect_bad(of_type("mixtral"), "sliding_window", 0, {"0", "from 1"});
}

TEST(ModelConfig, LayerTypesMustFitTheLayers) {
  Json config = of_type("qwen2_moe");
  config["num_hidden_layers"] = 2;
  config["use_sliding_window"] = true;
  expect_bad(config, "layer_types", {"full_attention"}, {"2 layers"});
  expect_bad(config, "layer_types", {"full_attention", "linear_attention"}, {"entry 1", "linear_attention"},
             ErrorKind::kUnsupported);
  config["use_sliding_window"] = false;
  expect_bad(config, "layer_types", {"sliding_attention", "full_attention"},
             {"entry 0", "use_sliding_window"});
}

TEST(ModelConfig, SparseStepAndDenseLayersChooseTheMoeLayers) {
  Json config = of_type("qwen3_moe");
  config["num_hidden_layers"] = 6;
  config["decoder_sparse_step"] = 2;
  EXPECT_EQ(parse(config).is_moe_layer, (std::vector<bool>{false, true, false, true, false, true}));
  config["mlp_only_layers"] = {3};
  EXPECT_EQ(parse(config).is_moe_layer, (std::vector<bool>{false, true, false, false, false, true}));
  expect_bad(config, "mlp_only_layers", {6}, {"entry 6", "there are 6"});
  expect_bad(config, "decoder_sparse_step", 0, {"0"});
  expect_bad(config, "decoder_sparse_step", 7, {"no layer with experts"}, ErrorKind::kUnsupported);
}

TEST(ModelConfig, UnsupportedArchitecturesAndFeaturesAreRefusedByName) {
  constexpr auto kUnsupported = ErrorKind::kUnsupported;
  expect_bad(of_type("mixtral"), "hidden_act", "gelu", {"gelu", "silu"}, kUnsupported);
  expect_bad(of_type("mixtral"), "quantization_config", {{"quant_method", "awq"}}, {"awq"}, kUnsupported);
  expect_bad(of_type("llama"), "architectures", {"LlamaForCausalLM"},
             {"LlamaForCausalLM", "OlmoeForCausalLM"}, kUnsupported);
  expect_error([] { parse(of_type("llama")); }, kUnsupported, {"model/config.json", "MixtralForCausalLM"});
  expect_error([] { parse(Json::object()); }, ErrorKind::kFormat, {"model/config.json", "architectures"});
  Json crossed = of_type("mixtral");
  crossed["architectures"] = {"OlmoeForCausalLM"};
  expect_error([&] { parse(crossed); }, ErrorKind::kFormat, {"model_type", "mixtral", "olmoe"});
}

TEST(ModelConfig, WrongNumbersAreNamedWithKeyValueAndLimit) {
  const Json base = of_type("qwen3_moe");
  for (const std::string key : {"num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings",
                                "num_attention_heads", "num_experts", "num_experts_per_tok",
                                "intermediate_size", "moe_intermediate_size", "num_key_value_heads"}) {
    expect_bad(base, key, 0, {"is 0", "from 1 to"});
    expect_bad(base, key, -3, {"is -3", "from 1 to"});
    expect_bad(base, key, 2.5, {"is 2.5", "integer"});
    expect_bad(base, key, "4", {"\"4\"", "integer"});
    expect_bad(base, key, 18446744073709551615U, {"18446744073709551615"});
  }
  expect_bad(base, "hidden_size", nullptr, {"null"});
  expect_bad(base, "rms_norm_eps", -1e-6, {"-1e-06"});
  expect_bad(base, "norm_topk_prob", 1, {"true or false"});
}

TEST(ModelConfig, SizesThatDoNotFitEachOtherAreNamed) {
  Json base = of_type("qwen3_moe");
  base["num_attention_heads"] = 6;
  expect_bad(base, "num_key_value_heads", 4, {"6", "multiple of 4"});
  base["num_key_value_heads"] = 3;
  expect_bad(base, "hidden_size", 100, {"head_dim", "6", "100"});
  expect_bad(base, "head_dim", 7, {"even", "7"});
  base["head_dim"] = 8;
  expect_bad(base, "num_experts_per_tok", 129, {"129", "128 experts"});
  Json olmoe = of_type("olmoe");
  olmoe["hidden_size"] = 64;
  olmoe["num_attention_heads"] = 4;
  expect_bad(olmoe, "head_dim", 8, {"64"});
  expect_bad(olmoe, "clip_qkv", -1, {"-1"});
}

TEST(ModelConfig, GenerationConfigWinsAndMayListSeveralEndTokens) {
  Json config = of_type("mixtral");
  config["eos_token_id"] = 5;
  EXPECT_EQ(parse(config).eos_token_ids, std::vector<std::int32_t>{5});
  EXPECT_EQ(parse(config, R"({"eos_token_id":[7,9]})").eos_token_ids, (std::vector<std::int32_t>{7, 9}));
  EXPECT_EQ(parse(config, R"({"eos_token_id":null})").eos_token_ids, std::vector<std::int32_t>{5});
  config["eos_token_id"] = nullptr;
  EXPECT_TRUE(parse(config).eos_token_ids.empty());
  expect_bad(config, "eos_token_id", 32000, {"32000", "vocab_size"});
  expect_bad(config, "eos_token_id", {1, -1}, {"-1"});
  expect_error([&] { parse(config, R"({"eos_token_id":99999})"); }, ErrorKind::kFormat,
               {"generation_config.json", "99999"});
}

TEST(ModelConfig, FilesThatAreMissingEmptyOrMalformedAreNamed) {
  const ScratchFolder folder;
  const auto read = [&] { read_model_config(folder.path()); };
  expect_error(read, ErrorKind::kNotFound, {(folder.path() / "config.json").string()});
  folder.write("config.json", "");
  expect_error(read, ErrorKind::kFormat, {"config.json", "malformed JSON"});
  folder.write("config.json", "[]");
  expect_error(read, ErrorKind::kFormat, {"config.json", "not an object"});
  folder.write("config.json", R"({"model_type":"mixtral","hidden_size":1,"hidden_size":2})");
  expect_error(read, ErrorKind::kFormat, {"config.json", "\"hidden_size\"", "twice"});
  folder.write("config.json", R"({"model_type":"mixtral"})");
  EXPECT_NO_THROW(read());
  folder.write("generation_config.json", "");
  expect_error(read, ErrorKind::kFormat, {"generation_config.json", "empty"});
  folder.write("generation_config.json", "{");
  expect_error(read, ErrorKind::kFormat, {"generation_config.json", "malformed"});
}

}  // namespace
}  // namespace aurora
