// One safetensors file: what PyPI's writer made is read exactly, and whatever is wrong with a header is
// named.
#include "runtime/model/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "tests/runtime/checkpoint/expect_error.h"
#include "tests/runtime/checkpoint/scratch_folder.h"

namespace aurora {
namespace {

const std::filesystem::path kFixtures = std::filesystem::path(AURORA_SOURCE_DIR) / "tests/fixtures";

std::string file_of(const std::string& header, std::size_t num_data_bytes) {
  std::string file(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, sizeof(length));
  file += header;
  for (std::size_t i = 0; i < num_data_bytes; ++i) file += static_cast<char>(i * 7);
  return file;
}

Checkpoint parse(const std::string& file) {
  const auto* const bytes = reinterpret_cast<const std::byte*>(file.data());
  return Checkpoint::parse({bytes, bytes + file.size()}, "weights.safetensors");
}

void expect_bad(const std::string& header, std::size_t num_data_bytes,
                std::initializer_list<std::string_view> parts) {
  SCOPED_TRACE(header.substr(0, 200));
  expect_error([&] { parse(file_of(header, num_data_bytes)); }, ErrorKind::kFormat, parts);
  expect_error([&] { parse(file_of(header, num_data_bytes)); }, ErrorKind::kFormat, {"weights.safetensors"});
}

std::vector<float> read_floats(const Checkpoint& checkpoint, std::string_view name, std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  checkpoint.read(name, Tensor(values.data(), DType::kFloat32, {count}));
  return values;
}

TEST(Safetensors, FilesWrittenByThePythonPackageAreReadExactlyInEveryFloat) {
  const Checkpoint checkpoint = Checkpoint::open_file(kFixtures / "dtypes.safetensors");
  for (const std::string name : {"float16", "bfloat16"}) {
    const auto values = read_floats(checkpoint, name, 2048);
    const auto expected = read_floats(checkpoint, name + ".as_float32", 2048);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const bool both_nan = std::isnan(values[i]) && std::isnan(expected[i]);
      ASSERT_TRUE(both_nan ||
                  std::bit_cast<std::uint32_t>(values[i]) == std::bit_cast<std::uint32_t>(expected[i]))
          << name << " element " << i << ": " << values[i] << " instead of " << expected[i];
    }
  }
}

TEST(Safetensors, ReadingIntoBfloat16RoundsToNearestAsThePythonPackageDoes) {
  const Checkpoint checkpoint = Checkpoint::open_file(kFixtures / "dtypes.safetensors");
  std::vector<std::uint16_t> rounded(2048);
  std::vector<std::uint16_t> expected(2048);
  for (const std::string name : {"float32", "float16.finite"}) {
    checkpoint.read(name, Tensor(rounded.data(), DType::kBFloat16, {2048}));
    checkpoint.read(name + ".as_bfloat16", Tensor(expected.data(), DType::kBFloat16, {2048}));
    EXPECT_EQ(rounded, expected) << name;
  }
}

TEST(Safetensors, OtherDtypesDoNoHarmUntilTheyAreAskedFor) {
  const Checkpoint checkpoint = Checkpoint::open_file(kFixtures / "dtypes.safetensors");
  EXPECT_EQ(checkpoint.names().size(), 18U);
  for (const std::string name : {"bool", "uint8", "int8", "int16", "int64", "float64", "float8"}) {
    EXPECT_TRUE(checkpoint.contains(name)) << name;
    expect_error([&] { checkpoint.find(name); }, ErrorKind::kUnsupported,
                 {"dtypes.safetensors", '"' + name + '"'});
  }
  float value = 0;
  expect_error([&] { checkpoint.read("int32", Tensor(&value, DType::kFloat32, {1})); },
               ErrorKind::kUnsupported, {"int32", "I32"});
  EXPECT_EQ(checkpoint.find("int32").dtype, DType::kInt32);
}

TEST(Safetensors, ScalarsAndEmptyTensorsAreKept) {
  const Checkpoint checkpoint = Checkpoint::open_file(kFixtures / "dtypes.safetensors");
  EXPECT_TRUE(checkpoint.find("scalar").shape.empty());
  EXPECT_EQ(checkpoint.find("scalar").bytes.size(), 4U);
  EXPECT_EQ(checkpoint.find("empty").shape, (std::vector<std::int64_t>{3, 0}));
  checkpoint.read("empty", Tensor(nullptr, DType::kFloat32, {3, 0}));
}

TEST(Safetensors, AMappedFileAndTheSameBytesInMemoryAgree) {
  const auto file = kFixtures / "tiny-mixtral-window/model.safetensors";
  const Checkpoint mapped = Checkpoint::open_file(file);
  const Checkpoint in_memory = parse(read_file(file));
  ASSERT_EQ(mapped.names(), in_memory.names());
  ASSERT_EQ(mapped.names().size(), 69U);
  for (const std::string& name : mapped.names()) {
    const auto& left = mapped.find(name).bytes;
    const auto& right = in_memory.find(name).bytes;
    ASSERT_TRUE(std::equal(left.begin(), left.end(), right.begin(), right.end())) << name;
  }
}

TEST(Safetensors, AMissingTensorAndAMisshapenOneAreNamed) {
  const Checkpoint checkpoint =
      parse(file_of(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24));
  float values[6] = {};
  expect_error([&] { checkpoint.find("b"); }, ErrorKind::kNotFound, {"weights.safetensors", "\"b\""});
  expect_error(
      [&] {
        checkpoint.read("a", Tensor(values, DType::kFloat32, {3, 2}));
      },
      ErrorKind::kFormat, {"weights.safetensors", "\"a\"", "[2, 3]", "[3, 2]"});
  expect_error([&] { checkpoint.read("a", Tensor(values, DType::kFloat32, {6})); }, ErrorKind::kFormat,
               {"[2, 3]", "[6]"});
  expect_error(
      [&] {
        checkpoint.read("a", Tensor(values, DType::kInt32, {2, 3}));
      },
      ErrorKind::kInvalidArgument, {"int32"});
  EXPECT_NO_THROW(checkpoint.read("a", Tensor(values, DType::kFloat32, {2, 3})));
}

TEST(Safetensors, FilesTooShortForTheirHeaderAreRefused) {
  expect_error([] { parse(""); }, ErrorKind::kFormat, {"0 bytes"});
  expect_error([] { parse("short"); }, ErrorKind::kFormat, {"5 bytes"});
  std::string file = file_of(R"({})", 0);
  file[0] = 100;
  expect_error([&] { parse(file); }, ErrorKind::kFormat,
               {"header of 100 bytes", "2 bytes follow", "truncated"});
  file[7] = static_cast<char>(0xff);
  expect_error([&] { parse(file); }, ErrorKind::kFormat, {"limit is 100000000"});
}

TEST(Safetensors, HeadersThatAreNotTheFormatAreRefused) {
  expect_bad("", 0, {"malformed JSON"});
  expect_bad("[]", 0, {"not an object"});
  expect_bad(R"({"a":)", 0, {"malformed JSON at byte"});
  expect_bad("{\"\xff\":1}", 0, {"malformed JSON"});
  expect_bad(R"({"a":1})", 0, {"\"a\"", "not an object"});
  expect_bad(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, {"\"a\"", "has no dtype"});
  expect_bad(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, {"has no shape"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[1]}})", 4, {"has no data_offsets"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4, {"keys other than"});
  expect_bad(R"({"__metadata__":{"format":1}})", 0, {"__metadata__", "format", "not a string"});
  expect_bad(R"({"__metadata__":[]})", 0, {"__metadata__"});
  expect_bad(std::string(100, '[') + std::string(100, ']'), 0, {"deeper than 32"});
}

TEST(Safetensors, DuplicateNamesAreRefused) {
  expect_bad(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      4, {"\"a\"", "twice"});
  expect_bad(R"({"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}})", 4,
             {"\"dtype\"", "twice"});
}

TEST(Safetensors, WrongDtypesShapesAndOffsetsAreNamed) {
  expect_bad(R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4, {"\"a\"", "\"F33\""});
  expect_bad(R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", 4, {"\"a\"", "dtype is 4"});
  expect_bad(R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4, {"shape is 1"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, {"shape has -1"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4, {"shape has 1.5"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, {"data_offsets"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,-4]}})", 4, {"data_offsets"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, {"[4, 0)", "end before"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
             {"\"a\"", "[0, 4)", "[2]", "takes 8"});
  expect_bad(R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[0,4]}})", 4, {"F16", "takes 2"});
  expect_bad(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1, {"whole number of bytes"});
}

TEST(Safetensors, OffsetsOutsideTheFileAreNamed) {
  expect_bad(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4,
             {"\"a\"", "[0, 8)", "4 bytes", "truncated"});
  expect_bad(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551615]}})", 4,
      {"18446744073709551615"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999999999999]}})", 4,
             {"data_offsets"});
}

TEST(Safetensors, ShapesWhoseSizeOverflowsAreRefused) {
  expect_bad(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
             {"\"a\"", "more elements"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})", 4,
             {"more elements"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})", 4,
             {"more elements"});
  expect_bad(R"({"a":{"dtype":"F64","shape":[65536,65536,65536,65536],"data_offsets":[0,0]}})", 0,
             {"more elements"});
}

TEST(Safetensors, OverlapsHolesAndLeftoverBytesAreNamed) {
  expect_bad(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
      12, {"\"b\"", "[4, 12)", "overlap", "\"a\"", "8"});
  expect_bad(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
      12, {"\"b\"", "[8, 12)", "hole", "from 4"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, {"hole", "from 0"});
  expect_bad(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 9, {"end at byte 4", "holds 9"});
}

TEST(Safetensors, HostileNamesAreShortAndPrintableInMessages) {
  const std::string name(5000, 'x');
  try {
    parse(file_of("{\"\\u0007" + name + R"(":1})", 0));
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_LT(text.size(), 400U);
    EXPECT_EQ(text.find('\a'), std::string::npos);
    EXPECT_NE(text.find("\\x07"), std::string::npos);
  }
}

TEST(Safetensors, EveryTruncationOfAFileIsRefused) {
  const std::string file = read_file(kFixtures / "tiny-olmoe/model-00003-of-00003.safetensors");
  std::mt19937 random(1);
  for (int trial = 0; trial < 300; ++trial) {
    const std::size_t length = trial < 100 ? static_cast<std::size_t>(trial) : random() % file.size();
    expect_error([&] { parse(file.substr(0, length)); }, ErrorKind::kFormat, {"weights.safetensors"});
  }
}

TEST(Safetensors, FilesThatCannotBeOpenedAreNamed) {
  const ScratchFolder folder;
  const auto missing = folder.path() / "missing.safetensors";
  expect_error([&] { Checkpoint::open_file(missing); }, ErrorKind::kNotFound, {missing.string()});
  expect_error([&] { Checkpoint::open_file(folder.path()); }, ErrorKind::kIo, {folder.path().string()});
  const auto empty = folder.write("empty.safetensors", "");
  expect_error([&] { Checkpoint::open_file(empty); }, ErrorKind::kFormat, {empty.string(), "0 bytes"});
}

}  // namespace
}  // namespace aurora
