// Checkpoint folders: one file or shards with an index, and everything an index can get wrong.
#include <gtest/gtest.h>

#include <map>

#include "runtime/model/safetensors.h"
#include "tests/runtime/checkpoint/expect_error.h"
#include "tests/runtime/checkpoint/scratch_folder.h"

namespace aurora {
namespace {

const std::filesystem::path kSharded = std::filesystem::path(AURORA_SOURCE_DIR) / "tests/fixtures/tiny-olmoe";
const std::string kIndex = "model.safetensors.index.json";

// A copy of the sharded fixture that a test may damage.
void copy_shards(const std::filesystem::path& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(kSharded)) {
    if (entry.path().filename().string().starts_with("model")) {
      std::filesystem::copy_file(entry.path(), folder / entry.path().filename());
    }
  }
}

std::string replace_first(std::string text, const std::string& from, const std::string& to) {
  const std::size_t place = text.find(from);
  EXPECT_NE(place, std::string::npos) << from;
  return text.replace(place, from.size(), to);
}

TEST(ShardedCheckpoint, HoldsTheTensorsOfAllItsShards) {
  const Checkpoint checkpoint = Checkpoint::open(kSharded);
  std::map<std::string, int> tensors_by_file;
  for (const std::string& name : checkpoint.names())
    ++tensors_by_file[checkpoint.find(name).file.filename().string()];
  EXPECT_EQ(tensors_by_file.size(), 3U);
  EXPECT_EQ(checkpoint.names().size(), 102U);
  std::vector<float> norm(48);
  EXPECT_NO_THROW(checkpoint.read("model.norm.weight", Tensor(norm.data(), DType::kFloat32, {48})));
}

TEST(ShardedCheckpoint, AMissingShardIsNamedWithTheTensorsItShouldHold) {
  const ScratchFolder folder;
  copy_shards(folder.path());
  std::filesystem::remove(folder.path() / "model-00002-of-00003.safetensors");
  expect_error([&] { Checkpoint::open(folder.path()); }, ErrorKind::kNotFound,
               {"model-00002-of-00003.safetensors", kIndex, "tensors there, the first \"model.layers."});
}

TEST(ShardedCheckpoint, ATensorThatItsShardLacksIsNamed) {
  const ScratchFolder folder;
  copy_shards(folder.path());
  folder.write(kIndex,
               replace_first(read_file(kSharded / kIndex), "\"model.norm.weight\"", "\"model.norm.bias\""));
  expect_error([&] { Checkpoint::open(folder.path()); }, ErrorKind::kFormat,
               {"model-00003-of-00003.safetensors", "\"model.norm.bias\"", kIndex});
}

TEST(ShardedCheckpoint, ATruncatedShardIsNamed) {
  const ScratchFolder folder;
  copy_shards(folder.path());
  const auto shard = folder.path() / "model-00001-of-00003.safetensors";
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
  expect_error([&] { Checkpoint::open(folder.path()); }, ErrorKind::kFormat, {shard.string(), "truncated"});
}

TEST(ShardedCheckpoint, AnIndexThatIsNotOneIsRefused) {
  const ScratchFolder folder;
  const auto expect_bad = [&](const std::string& text, std::initializer_list<std::string_view> parts) {
    folder.write(kIndex, text);
    expect_error([&] { Checkpoint::open(folder.path()); }, ErrorKind::kFormat, parts);
    expect_error([&] { Checkpoint::open(folder.path()); }, ErrorKind::kFormat, {kIndex});
  };
  expect_bad("", {"malformed JSON"});
  expect_bad("{}", {"weight_map"});
  expect_bad("[1]", {"weight_map"});
  expect_bad(R"({"weight_map":{}})", {"empty"});
  expect_bad(R"({"weight_map":{"a":7}})", {"\"a\"", "7"});
  expect_bad(R"({"weight_map":{"a":"s.safetensors","a":"s.safetensors"}})", {"\"a\"", "twice"});
  expect_bad(R"({"weight_map":{"a":"s.bin"}})", {"\"a\"", "s.bin"});
  expect_bad(R"({"weight_map":{"a":"../s.safetensors"}})", {"\"a\"", "beside it"});
  expect_bad(R"({"weight_map":{"a":"/etc/s.safetensors"}})", {"beside it"});
}

TEST(ShardedCheckpoint, OneFileIsPreferredToAnIndex) {
  const ScratchFolder folder;
  folder.write(kIndex, "not JSON");
  std::filesystem::copy_file(kSharded / "model-00003-of-00003.safetensors",
                             folder.path() / "model.safetensors");
  EXPECT_EQ(Checkpoint::open(folder.path()).names().size(), 25U);
}

TEST(ShardedCheckpoint, AFolderWithoutWeightsIsNamed) {
  const ScratchFolder folder;
  expect_error([&] { Checkpoint::open(folder.path()); }, ErrorKind::kNotFound,
               {folder.path().string(), "model.safetensors", "converted"});
  expect_error([&] { Checkpoint::open(folder.path() / "none"); }, ErrorKind::kNotFound, {"none", "folder"});
}

}  // namespace
}  // namespace aurora
