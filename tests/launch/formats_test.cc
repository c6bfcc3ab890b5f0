// launch/formats.md against the readers: its examples are read, and it names every key.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/config.h"
#include "launch/prompt_line.h"
#include "launch/report.h"
#include "runtime/plan_io/cluster_file.h"
#include "runtime/plan_io/matrix_file.h"
#include "runtime/plan_io/plan_file.h"
#include "runtime/plan_io/routing_record.h"
#include "runtime/plan_io/traffic_file.h"
#include "tests/launch/scratch_folder.h"

namespace aurora {
namespace {

/// The text of each section, by its title.
std::map<std::string, std::string> sections() {
  std::stringstream page(
      ScratchFolder::read(std::filesystem::path(AURORA_SOURCE_DIR) / "launch" / "formats.md"));
  std::map<std::string, std::string> all;
  std::string title;
  for (std::string line; std::getline(page, line);) {
    if (line.rfind("## ", 0) == 0) title = line.substr(3);
    all[title] += line + "\n";
  }
  return all;
}

/// The section's code block.
std::string example_of(const std::string& title) {
  const std::string text = sections().at(title);
  const std::size_t fence = text.find("\n```");
  const std::size_t start = text.find('\n', fence + 1) + 1;
  return text.substr(start, text.find("\n```", start) + 1 - start);
}

TEST(Formats, TheConfigurationExampleIsReadAndEveryKeyIsNamed) {
  ModelConfiguration model = parse_model_configuration(example_of("Model configuration"), "a.cfg");
  EXPECT_EQ(model.options.name, "tiny-mixtral");
  const std::string section = sections().at("Model configuration");
  for (const Field& field : model_fields(model)) {
    EXPECT_NE(section.find("| `" + field.key + "` |"), std::string::npos) << field.key;
  }
}

TEST(Formats, ThePromptExamplesAreRead) {
  std::stringstream lines(example_of("Prompts"));
  int num_lines = 0;
  for (std::string line; std::getline(lines, line); ++num_lines) {
    EXPECT_EQ(parse_prompt_line(line, 1, {"tiny-mixtral", "tiny-qwen3-moe"}).error, std::nullopt) << line;
  }
  EXPECT_EQ(num_lines, 2);
}

TEST(Formats, EveryFieldOfAPromptIsNamed) {
  // An unknown field that is near nothing makes the reader list what it knows.
  const std::string all =
      parse_prompt_line(R"({"model": "m", "prompt": "", "zzzzzzzzzzzzzzzz": 1})", 1, {"m"}).error.value();
  std::stringstream names(all.substr(all.find("known are ") + 10));
  const std::string section = sections().at("Prompts");
  int num_names = 0;
  for (std::string name; std::getline(names, name, ','); ++num_names) {
    name.erase(0, name.find_first_not_of(' '));
    EXPECT_NE(section.find("`" + name + "`"), std::string::npos) << name;
  }
  EXPECT_GT(num_names, 5);
}

TEST(Formats, EveryFieldOfAReportIsNamed) {
  EngineReport report;
  report.models.resize(1);
  report.models[0].expert_tokens = {{1}};
  report.replan.mode = ReplanMode::kDrift;
  report.replan.switches.resize(1);
  report.overlap.compute_seconds = 1;
  const std::string section = sections().at("Report");
  const std::function<void(const nlohmann::json&)> expect_named = [&](const nlohmann::json& json) {
    for (const auto& [key, value] : json.items()) {
      const bool is_named = !json.is_object() || section.find(key) != std::string::npos;
      EXPECT_TRUE(is_named) << key;
      if (key != "stamp" && value.is_structured()) expect_named(value);
    }
  };
  expect_named(nlohmann::json::parse(report_json(report, {}, {})));
}

TEST(Formats, TheJsonExamplesAreJson) {
  for (const char* title : {"Report", "Routing record", "Trace"}) {
    EXPECT_TRUE(nlohmann::json::accept(example_of(title))) << title;
  }
  std::stringstream answers(example_of("Answers"));
  for (std::string line; std::getline(answers, line);) {
    EXPECT_TRUE(nlohmann::json::accept(line)) << line;
  }
}

TEST(Formats, TheExamplesOfThePlannersFilesAreRead) {
  EXPECT_NO_THROW(static_cast<void>(parse_traffic(example_of("Traffic"), "formats.md")));
  EXPECT_NO_THROW(static_cast<void>(parse_plan(example_of("Plan"), "formats.md")));
  EXPECT_EQ(parse_cluster(example_of("Cluster"), "formats.md").num_gpus(), 8);
  EXPECT_EQ(parse_matrix(example_of("Traffic matrix"), "formats.md").at(0, 1), 4096);
}

TEST(Formats, TheRoutingRecordExampleIsReadWithItsData) {
  const ScratchFolder folder;
  const auto file = folder.write("r.json", example_of("Routing record"));
  std::string ids;
  for (int token = 0; token < 4 * 960; ++token) ids += {static_cast<char>(token % 7), '\7'};
  folder.write("r.topk.u8", ids);
  const RoutingRecord record = read_routing_record(file);
  EXPECT_EQ(record.num_tokens, 960);
  EXPECT_EQ(record.request_token_counts, (std::vector<std::int64_t>{480, 480}));
}

}  // namespace
}  // namespace aurora
