// Rope tables against transformers, for every scaling.
#include "runtime/model/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/runtime/checkpoint/expect_error.h"
#include "tests/runtime/checkpoint/scratch_folder.h"

namespace aurora {
namespace {

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

nlohmann::json read_cases() {
  return nlohmann::json::parse(
      read_file(std::filesystem::path(AURORA_SOURCE_DIR) / "tests/fixtures/rope.json"));
}

ModelConfig config_of(const nlohmann::json& rope_case) {
  return parse_model_config(rope_case["config"].dump(), "", rope_case["name"].get<std::string>());
}

TEST(RopeTable, InverseFrequenciesAreThoseOfTransformersInEveryScaling) {
  const nlohmann::json file = read_cases();
  ASSERT_EQ(file["cases"].size(), 8U);
  for (const auto& rope_case : file["cases"]) {
    SCOPED_TRACE(rope_case["name"].get<std::string>());
    const ModelConfig config = config_of(rope_case);
    const auto frequencies = rope_inverse_frequencies(config.rope, config.head_width);
    ASSERT_EQ(frequencies.size(), rope_case["inverse_frequencies"].size());
    for (std::size_t j = 0; j < frequencies.size(); ++j) {
      const double expected = rope_case["inverse_frequencies"][j];
      // A power (1 unit in the last place in either implementation) and at most five rounded operations.
      EXPECT_NEAR(frequencies[j], expected, 6 * kEpsilon * expected) << "pair " << j;
    }
    EXPECT_NEAR(rope_attention_factor(config.rope), rope_case["attention_factor"].get<double>(), 1e-12);
  }
}

TEST(RopeTable, CosinesAndSinesAreThoseOfTransformersInEveryScaling) {
  const nlohmann::json file = read_cases();
  for (const auto& rope_case : file["cases"]) {
    SCOPED_TRACE(rope_case["name"].get<std::string>());
    const ModelConfig config = config_of(rope_case);
    const RopeTable table = make_rope_table(config.rope, config.head_width, config.max_positions);
    ASSERT_EQ(table.half_width, 32);
    ASSERT_EQ(table.cosine.size(), static_cast<std::size_t>(config.max_positions * table.half_width));
    const double magnitude = rope_case["attention_factor"];
    for (std::size_t p = 0; p < file["positions"].size(); ++p) {
      const auto position = file["positions"][p].get<std::size_t>();
      for (std::size_t j = 0; j < 32; ++j) {
        const std::size_t at = position * 32 + j;
        const double angle =
            static_cast<double>(position) * rope_case["inverse_frequencies"][j].get<double>();
        // The error of the frequency grows with the position; two more roundings for function and factor.
        const double tolerance = magnitude * (7 * kEpsilon * angle + 2 * kEpsilon);
        EXPECT_NEAR(table.cosine[at], rope_case["cosine"][p][j].get<double>(), tolerance)
            << position << ' ' << j;
        EXPECT_NEAR(table.sine[at], rope_case["sine"][p][j].get<double>(), tolerance) << position << ' ' << j;
      }
    }
  }
}

TEST(RopeTable, TheFirstPositionDoesNotTurnAndTheFirstPairTurnsByOneRadian) {
  const RopeTable table = make_rope_table(RopeConfig{}, 8, 3);
  for (std::size_t j = 0; j < 4; ++j) {
    EXPECT_EQ(table.cosine[j], 1.0F);
    EXPECT_EQ(table.sine[j], 0.0F);
  }
  EXPECT_NEAR(table.cosine[4], std::cos(1.0), kEpsilon);
  EXPECT_NEAR(table.sine[8], std::sin(2.0), kEpsilon);
}

TEST(RopeTable, WidthsAndLengthsThatCannotBeAreRefused) {
  expect_error([] { make_rope_table(RopeConfig{}, 7, 1); }, ErrorKind::kInvalidArgument, {"7"});
  expect_error([] { make_rope_table(RopeConfig{}, 0, 1); }, ErrorKind::kInvalidArgument, {"0"});
  expect_error([] { make_rope_table(RopeConfig{}, 8, -1); }, ErrorKind::kInvalidArgument, {"-1"});
  expect_error([] { make_rope_table(RopeConfig{}, 8, (1 << 24) + 1); }, ErrorKind::kInvalidArgument,
               {"16777217"});
}

}  // namespace
}  // namespace aurora
