#include "launch/report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/progress.h"

namespace aurora {
namespace {

EngineReport example_report() {
  EngineReport::Model model;
  model.name = "m";
  model.requests = 3;
  model.failed_requests = 1;
  model.prompt_tokens = 30;
  model.generated_tokens = 20;
  model.preemptions = 2;
  model.steps = 7;
  model.tokens_per_second = 10;
  model.num_exchanges = 14;
  model.exchanged_bytes = 1 << 20;
  model.bytes_without_deduplication = 3 << 19;
  model.float8_saved_bytes = 4096;
  model.bound_seconds = 0.5;
  model.predicted_seconds = 0.7;
  model.planning_seconds = 0.01;
  model.orders = {{"group", 12}, {"exact without barriers", 2}};
  model.achieved_seconds = 0.75;
  model.phase_seconds = {{"gate", 0.25}, {"experts", 1.5}};
  model.planned_seconds = {{"gate", 0.2}, {"experts", 1.25}};
  model.num_ranks = 2;
  model.first_token_seconds = {.p50 = 0.125, .p90 = 0.25, .p99 = 0.5};
  model.overlap = {.compute_seconds = 1.5,
                   .exchange_seconds = 0.5,
                   .exposed_seconds = 0.125,
                   .utilisation = 0.75,
                   .ratio = 0.75};
  model.expert_tokens = {{1, 2, 3, 2}, {0, 0, 0, 0}};
  EngineReport report;
  report.wall_seconds = 2;
  report.num_ranks = 4;
  report.models = {model};
  return report;
}

TEST(Report, TheJsonHasEveryNumberOfTheEnginesReport) {
  BatchProgress progress;
  progress.num_prompts = 5;
  progress.num_answered = 5;
  progress.num_failed = 2;
  RunStamp stamp;
  stamp.backend = "cpu";
  stamp.started = utc_now();
  const auto json = nlohmann::json::parse(report_json(example_report(), progress, stamp));
  EXPECT_EQ(json.at("version"), kReportVersion);
  EXPECT_EQ(json.at("stamp").at("backend"), "cpu");
  EXPECT_EQ(json.at("stamp").at("started").get<std::string>().size(),
            std::string("2026-01-31T12:34:56Z").size());
  EXPECT_EQ(json.at("num_ranks"), 4);
  EXPECT_EQ(json.at("wall_seconds"), 2.0);
  EXPECT_EQ(json.at("prompts"), nlohmann::json({{"total", 5}, {"failed", 2}}));
  EXPECT_EQ(json.at("generated_tokens"), 20);
  EXPECT_EQ(json.at("tokens_per_second"), 10.0);
  const auto& model = json.at("models").at(0);
  EXPECT_EQ(model.at("name"), "m");
  EXPECT_EQ(model.at("requests"), 3);
  EXPECT_EQ(model.at("failed_requests"), 1);
  EXPECT_EQ(model.at("prompt_tokens"), 30);
  EXPECT_EQ(model.at("generated_tokens"), 20);
  EXPECT_EQ(model.at("steps"), 7);
  EXPECT_EQ(model.at("num_ranks"), 2);
  EXPECT_EQ(model.at("latency").at("first_token_seconds"),
            nlohmann::json({{"p50", 0.125}, {"p90", 0.25}, {"p99", 0.5}}));
  EXPECT_EQ(model.at("planned_phase_seconds"), nlohmann::json({{"gate", 0.2}, {"experts", 1.25}}));
  EXPECT_EQ(model.at("overlap"), nlohmann::json({{"utilisation", 0.75},
                                                 {"compute_seconds", 1.5},
                                                 {"exchange_seconds", 0.5},
                                                 {"exposed_seconds", 0.125},
                                                 {"overlap_ratio", 0.75}}));
  EXPECT_TRUE(json.at("overlap").is_null()) << "nobody looked when anything computed";
  EXPECT_EQ(model.at("preemptions"), 2);
  EXPECT_EQ(model.at("phase_seconds"), nlohmann::json({{"gate", 0.25}, {"experts", 1.5}}));
  EXPECT_EQ(model.at("exchanges").at("count"), 14);
  EXPECT_EQ(model.at("exchanges").at("bytes"), 1 << 20);
  EXPECT_EQ(model.at("exchanges").at("bytes_without_deduplication"), 3 << 19);
  EXPECT_EQ(model.at("exchanges").at("float8_saved_bytes"), 4096);
  EXPECT_EQ(model.at("exchanges").at("bound_seconds"), 0.5);
  EXPECT_EQ(model.at("exchanges").at("achieved_seconds"), 0.75);
  EXPECT_EQ(model.at("exchanges").at("achieved_over_bound"), 1.5);
  EXPECT_EQ(model.at("exchanges").at("predicted_seconds"), 0.7);
  EXPECT_EQ(model.at("exchanges").at("planning_seconds"), 0.01);
  EXPECT_EQ(model.at("exchanges").at("orders"),
            nlohmann::json({{"group", 12}, {"exact without barriers", 2}}));
  EXPECT_EQ(model.at("expert_load").at(0).at("tokens"), (std::vector<int>{1, 2, 3, 2}));
  EXPECT_EQ(model.at("expert_load").at(0).at("hottest_over_mean"), 1.5);
  EXPECT_EQ(model.at("expert_load").at(1).at("hottest_over_mean"), 1.0);
}

TEST(Report, TheJsonHasWhatReplanningCameTo) {
  EngineReport report = example_report();
  EXPECT_TRUE(nlohmann::json::parse(report_json(report, {}, {})).at("replan").is_null());
  report.replan.mode = ReplanMode::kInterval;
  report.replan.num_looks = 5;
  report.replan.num_evaluations = 4;
  report.replan.last_drift = 0.25;
  report.replan.longest_pause_seconds = 0.5;
  report.replan.pause_seconds = 0.75;
  report.replan.failed_moves = {"rank 1: no memory"};
  PlanSwitch change;
  change.epoch = 2;
  change.decided_step = 100;
  change.switched_step = 104;
  change.layers_changed = 3;
  change.experts_moved = 6;
  change.bytes_moved = 6000;
  change.move_us = 12.5;
  change.predicted_before_us = 80;
  change.predicted_after_us = 60;
  change.measured_before_us_per_token = 9;
  report.replan.switches = {change};
  const auto json = nlohmann::json::parse(report_json(report, {}, {})).at("replan");
  EXPECT_EQ(json.at("mode"), "interval");
  EXPECT_EQ(json.at("looks"), 5);
  EXPECT_EQ(json.at("evaluations"), 4);
  EXPECT_EQ(json.at("last_drift"), 0.25);
  EXPECT_EQ(json.at("longest_pause_seconds"), 0.5);
  EXPECT_EQ(json.at("pause_seconds"), 0.75);
  EXPECT_EQ(json.at("failed_moves"), nlohmann::json({"rank 1: no memory"}));
  EXPECT_EQ(
      json.at("switches").at(0),
      nlohmann::json::parse(R"({"epoch": 2, "decided_step": 100, "switched_step": 104, "layers_changed": 3,
              "experts_moved": 6, "bytes_moved": 6000, "move_us": 12.5,
              "predicted_step_us": {"before": 80.0, "after": 60.0},
              "step_us_on_traffic_since": {"before": null, "after": null},
              "measured_us_per_token": {"before": 9.0, "after": null}})"));
  EXPECT_EQ(
      report_summary(report, {}).back(),
      "re-planning (interval): 5 looks at the traffic, 4 plans sought, 1 switches, 1 moves failed; the last "
      "predicted 80.0 -> 60.0 us for the layers of a step; longest pause 500.0 ms");
}

TEST(Report, ARunWithoutExchangesHasNoRatio) {
  EngineReport report = example_report();
  report.models[0].bound_seconds = 0;
  report.wall_seconds = 0;
  const auto json = nlohmann::json::parse(report_json(report, {}, {}));
  EXPECT_TRUE(json.at("models").at(0).at("exchanges").at("achieved_over_bound").is_null());
  EXPECT_TRUE(json.at("tokens_per_second").is_null());
}

TEST(Report, TheSummarySaysTheSame) {
  BatchProgress progress;
  progress.num_prompts = 5;
  progress.num_answered = 5;
  progress.num_failed = 2;
  progress.first_failure = "line 3: no model is named \"x\"";
  const std::vector<std::string> lines = report_summary(example_report(), progress);
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0], "answered 3 prompts on 4 ranks in 2.00 s: 20 tokens, 10.0 tokens/s");
  EXPECT_EQ(
      lines[1],
      "m: 3 requests, 30 prompt + 20 generated tokens, 10.0 tokens/s, 7 steps, 1 failed, 2 preemptions");
  EXPECT_EQ(lines[2],
            "m: 14 exchanges moved 1.00 MiB (1.50x less than copy by copy), 750.0 ms, bound 500.0 ms, "
            "predicted 700.0 ms, 12x group, 2x exact without barriers; hottest expert "
            "1.50x the mean of its layer");
  EXPECT_EQ(lines[3], "2 of 5 prompts failed; the first: line 3: no model is named \"x\"");
}

TEST(Progress, TextAndBarFollowTheCounts) {
  BatchProgress progress;
  progress.total_prompts = 40;
  progress.num_prompts = 20;
  progress.num_answered = 10;
  progress.num_tokens = 100;
  EXPECT_EQ(progress_text(progress, 2), "10 of 40 prompts, 100 tokens, 50.0 tokens/s");
  EXPECT_EQ(progress_bar(progress, 8), "[##......]");
  progress.num_answered = 40;
  progress.num_failed = 1;
  EXPECT_EQ(progress_bar(progress, 8), "[########]");
  progress.total_prompts = -1;
  progress.num_prompts = 60;
  EXPECT_EQ(progress_text(progress, 0), "40 of 60 prompts, 100 tokens, 1 failed");
  EXPECT_EQ(progress_bar(progress, 8), "");
}

}  // namespace
}  // namespace aurora
