#include "launch/config.h"

#include <gtest/gtest.h>

#include "tests/launch/scratch_folder.h"
#include "tests/launch/thrown_text.h"

namespace aurora {
namespace {

std::string failure_of(const std::string& toml) {
  return thrown_text([&] { parse_model_configuration(toml, "conf/a.cfg"); });
}

TEST(Config, OnlyThePathIsRequiredAndTheRestHasTheEnginesDefaults) {
  const ModelConfiguration model = parse_model_configuration("path = '../models/tiny'\n", "conf/a.cfg");
  const ModelOptions defaults;
  EXPECT_EQ(model.options.name, "tiny");
  EXPECT_EQ(model.options.checkpoint, "models/tiny");
  EXPECT_EQ(model.options.max_batch_tokens, defaults.max_batch_tokens);
  EXPECT_EQ(model.options.max_batch_requests, defaults.max_batch_requests);
  EXPECT_EQ(model.options.max_sequence_tokens, defaults.max_sequence_tokens);
  EXPECT_EQ(model.options.kv_cache_bytes, defaults.kv_cache_bytes);
  EXPECT_EQ(model.options.kv_block_tokens, defaults.kv_block_tokens);
  EXPECT_TRUE(model.options.traffic.empty());
  EXPECT_EQ(source_of(model.sources, "path"), SettingSource::kFile);
  EXPECT_EQ(source_of(model.sources, "name"), SettingSource::kDefault);
}

TEST(Config, EveryKeyIsRead) {
  const ModelConfiguration model = parse_model_configuration(R"(
version = 1
name = "m"
path = "/checkpoints/m"
dtype = "bfloat16"
max_batch_tokens = 7
max_batch_requests = 8
max_sequence_tokens = 9
kv_cache_mb = 10
kv_block_tokens = 11
weight = 1.5
traffic = "t.json"
replay_routing = "/abs/r.json"
)",
                                                             "conf/a.cfg");
  EXPECT_EQ(model.options.name, "m");
  EXPECT_EQ(model.options.checkpoint, "/checkpoints/m");
  EXPECT_EQ(model.options.dtype, DType::kBFloat16);
  EXPECT_EQ(model.options.max_batch_tokens, 7);
  EXPECT_EQ(model.options.max_batch_requests, 8);
  EXPECT_EQ(model.options.max_sequence_tokens, 9);
  EXPECT_EQ(model.options.kv_cache_bytes, 10 << 20);
  EXPECT_EQ(model.options.kv_block_tokens, 11);
  EXPECT_EQ(model.options.weight, 1.5);
  EXPECT_EQ(model.options.traffic, "conf/t.json");
  EXPECT_EQ(model.options.replay_routing, "/abs/r.json");
  ModelConfiguration listed;
  EXPECT_EQ(model.sources.size(), model_fields(listed).size()) << "this test does not set every key";
}

TEST(Config, ACheckpointPathThatEndsInASlashStillNamesTheModel) {
  EXPECT_EQ(parse_model_configuration("path = 'models/tiny/'", "a.cfg").options.name, "tiny");
}

TEST(Config, AnUnknownKeyNamesTheNearestKnownOneAndItsLine) {
  EXPECT_EQ(
      failure_of("path = 'm'\n\nkv_cahce_mb = 3\n"),
      "invalid argument: conf/a.cfg, line 3: unknown key \"kv_cahce_mb\"; did you mean \"kv_cache_mb\"?");
  const std::string far = failure_of("path = 'm'\ncolour = 3\n");
  EXPECT_NE(far.find("unknown key \"colour\"; known are version, name, path"), std::string::npos) << far;
}

TEST(Config, AWrongTypeNamesKeyLineAndExpectedType) {
  EXPECT_EQ(
      failure_of("path = 'm'\nkv_cache_mb = '64'\n"),
      "malformed input: conf/a.cfg, line 2: key \"kv_cache_mb\": expected an integer from 1 to 16777216, "
      "found a string");
  EXPECT_EQ(
      failure_of("path = 3\n"),
      "malformed input: conf/a.cfg, line 1: key \"path\": expected a path as a string, found an integer");
  EXPECT_NE(failure_of("path = 'm'\nmax_batch_tokens = 1.5\n").find("found a float"), std::string::npos);
  EXPECT_NE(failure_of("path = 'm'\n[dtype]\n").find("found a table"), std::string::npos);
  EXPECT_NE(failure_of("path = ['m']\n").find("found an array"), std::string::npos);
}

TEST(Config, ValuesOutOfRangeAndUnknownNamesAreRefused) {
  for (const char* line :
       {"kv_cache_mb = 0", "kv_cache_mb = -1", "kv_cache_mb = 9223372036854775807", "max_batch_tokens = 0",
        "max_batch_requests = 0", "kv_block_tokens = 0", "max_sequence_tokens = -1", "dtype = 'float8'",
        "dtype = 'int32'", "name = ''", "name = 'a=b'", "name = 'a,b'", "path = ''"}) {
    EXPECT_NE(failure_of("path = 'm'\n" + std::string(line) + "\n"), "") << line;
  }
  EXPECT_NE(failure_of("path = 'm'\ndtype = 'floaat32'\n").find("did you mean \"float32\""),
            std::string::npos);
}

TEST(Config, MalformedTomlNamesFileLineAndColumn) {
  const std::string text = failure_of("path = 'm'\nname = \n");
  EXPECT_EQ(text.rfind("malformed input: conf/a.cfg, line 2, column", 0), 0U) << text;
  EXPECT_NE(failure_of("path = 'm'\npath = 'n'\n"), "");
  EXPECT_NE(failure_of("path = \"\xff\"\n"), "");
}

TEST(Config, AMissingPathAndANewerVersionAreNamed) {
  EXPECT_NE(failure_of("name = 'm'\n").find("key \"path\" is missing"), std::string::npos);
  EXPECT_EQ(failure_of("version = 2\npath = 'm'\n"),
            "unsupported: conf/a.cfg: version 2 of the model configuration; this program reads version 1");
}

TEST(Config, FilesThatCannotBeReadAreNamed) {
  const ScratchFolder folder;
  const auto failure = [](const std::filesystem::path& file) {
    return thrown_text([&] { read_model_configuration(file); });
  };
  const std::string missing = failure(folder.path() / "missing.cfg");
  EXPECT_EQ(missing,
            "not found: model configuration " + (folder.path() / "missing.cfg").string() + " does not exist");
  EXPECT_NE(failure(folder.path()).find("is a folder"), std::string::npos);
  const auto huge = folder.write("huge.cfg", std::string(2 << 20, '#'));
  EXPECT_NE(failure(huge).find("is no model configuration"), std::string::npos);
  const auto good = folder.write("sub/good.cfg", "path = '../m'");
  EXPECT_EQ(read_model_configuration(good).options.checkpoint, folder.path() / "m");
}

std::vector<ModelConfiguration> two_models() {
  return {parse_model_configuration("path = 'a'\nkv_cache_mb = 5", "a.cfg"),
          parse_model_configuration("path = 'b'", "b.cfg")};
}

TEST(Config, AnOverrideIsForAllModelsOrForOneAndTheLastWins) {
  std::vector<ModelConfiguration> models = two_models();
  apply_overrides({{"kv_cache_mb", "7", SettingSource::kVariable},
                   {"kv_cache_mb", "b=9", SettingSource::kFlag},
                   {"replay_routing", "a=x=y.json", SettingSource::kFlag}},
                  models);
  EXPECT_EQ(models[0].options.kv_cache_bytes, 7 << 20);
  EXPECT_EQ(models[1].options.kv_cache_bytes, 9 << 20);
  EXPECT_EQ(models[0].options.replay_routing, "x=y.json");
  EXPECT_TRUE(models[1].options.replay_routing.empty());
  EXPECT_EQ(source_of(models[0].sources, "kv_cache_mb"), SettingSource::kVariable);
  EXPECT_EQ(source_of(models[1].sources, "kv_cache_mb"), SettingSource::kFlag);
}

TEST(Config, AnOverrideForAModelThatIsNotLoadedNamesTheNearest) {
  std::vector<ModelConfiguration> models = two_models();
  models[0].options.name = "mixtral";
  EXPECT_EQ(thrown_text([&] {
              apply_overrides({{"dtype", "mixtrl=float32", SettingSource::kFlag}}, models);
            }),
            "invalid argument: --dtype: no model is named \"mixtrl\"; did you mean \"mixtral\"?");
  EXPECT_EQ(thrown_text([&] {
              apply_overrides({{"kv_cache_mb", "0", SettingSource::kVariable}}, models);
            }),
            "invalid argument: AURORA_KV_CACHE_MB: expected an integer from 1 to 16777216, found \"0\"");
}

TEST(Config, TwoModelsOfOneNameAreRefusedNamingBothFiles) {
  std::vector<ModelConfiguration> models = two_models();
  EXPECT_NO_THROW(check_distinct_names(models));
  models[1].options.name = "a";
  const std::string text = thrown_text([&] { check_distinct_names(models); });
  EXPECT_EQ(
      text,
      "invalid argument: two models are named \"a\": a.cfg and b.cfg; give one of them another \"name\"");
}

TEST(Config, TheDtypeFollowsTheBackendUnlessSomebodySetIt) {
  std::vector<ModelConfiguration> models = two_models();
  apply_overrides({{"dtype", "b=float32", SettingSource::kFlag}}, models);
  apply_backend_defaults("cuda", models);
  EXPECT_EQ(models[0].options.dtype, DType::kBFloat16);
  EXPECT_EQ(models[1].options.dtype, DType::kFloat32);
  apply_backend_defaults("cpu", models);
  EXPECT_EQ(models[0].options.dtype, DType::kFloat32);
}

TEST(Config, TheExampleConfigurationsAreValid) {
  for (const char* name : {"tiny-mixtral", "tiny-qwen3-moe"}) {
    const std::filesystem::path folder = std::filesystem::path(AURORA_SOURCE_DIR) / "launch";
    const auto model = read_model_configuration(folder / "configs" / (std::string(name) + ".cfg"));
    EXPECT_EQ(model.options.name, name);
    EXPECT_EQ(model.options.checkpoint, folder / "models" / name);
    EXPECT_TRUE(std::filesystem::exists(model.options.checkpoint / "config.json"));
  }
}

}  // namespace
}  // namespace aurora
