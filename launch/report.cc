#include "launch/report.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "launch/build_stamp.h"

namespace aurora {
namespace {

using Json = nlohmann::ordered_json;

/// `a / b`, or null when there is nothing to divide by.
Json ratio(double a, double b) { return b > 0 ? Json(a / b) : Json(nullptr); }

Json stamp_json(const RunStamp& stamp) {
  return {{"program", std::string("aurora-serve ") + kVersion},
          {"commit", kCommit},
          {"compiler", kCompiler},
          {"build_type", kBuildType},
          {"started", stamp.started},
          {"backend", stamp.backend},
          {"processor", stamp.processor},
          {"num_cores", stamp.num_cores},
          {"transport", stamp.transport},
          {"placement", stamp.placement},
          {"order", stamp.order},
          {"schedule", stamp.schedule},
          {"wire_dtype", stamp.wire_dtype},
          {"deterministic", stamp.deterministic}};
}

Json percentiles_json(const Percentiles& seconds) {
  return {{"p50", seconds.p50}, {"p90", seconds.p90}, {"p99", seconds.p99}};
}

/// Null where nobody looked when the device computed.
Json overlap_json(const EngineReport::Overlap& overlap) {
  if (overlap.compute_seconds == 0) return nullptr;
  return {{"utilisation", overlap.utilisation},
          {"compute_seconds", overlap.compute_seconds},
          {"exchange_seconds", overlap.exchange_seconds},
          {"exposed_seconds", overlap.exposed_seconds},
          {"overlap_ratio", overlap.ratio}};
}

Json model_json(const EngineReport::Model& model) {
  Json phases = Json::object();
  for (const auto& [phase, seconds] : model.phase_seconds) phases[phase] = seconds;
  Json orders = Json::object();
  for (const auto& [order, times] : model.orders) orders[order] = times;
  Json planned = Json::object();
  for (const auto& [phase, seconds] : model.planned_seconds) planned[phase] = seconds;
  Json load = Json::array();
  for (std::size_t layer = 0; layer < model.expert_tokens.size(); ++layer) {
    load.push_back({{"moe_layer", layer},
                    {"hottest_over_mean", hottest_over_mean(model.expert_tokens[layer])},
                    {"tokens", model.expert_tokens[layer]}});
  }
  return {{"name", model.name},
          {"requests", model.requests},
          {"failed_requests", model.failed_requests},
          {"prompt_tokens", model.prompt_tokens},
          {"generated_tokens", model.generated_tokens},
          {"tokens_per_second", model.tokens_per_second},
          {"steps", model.steps},
          {"preemptions", model.preemptions},
          {"num_ranks", model.num_ranks},
          {"latency",
           {{"first_token_seconds", percentiles_json(model.first_token_seconds)},
            {"per_token_seconds", percentiles_json(model.per_token_seconds)}}},
          {"overlap", overlap_json(model.overlap)},
          {"phase_seconds", phases},
          {"planned_phase_seconds", planned},
          {"exchanges",
           {{"count", model.num_exchanges},
            {"bytes", model.exchanged_bytes},
            {"bytes_without_deduplication", model.bytes_without_deduplication},
            {"float8_saved_bytes", model.float8_saved_bytes},
            {"bound_seconds", model.bound_seconds},
            {"achieved_seconds", model.achieved_seconds},
            {"achieved_over_bound", ratio(model.achieved_seconds, model.bound_seconds)},
            {"predicted_seconds", model.predicted_seconds},
            {"planning_seconds", model.planning_seconds},
            {"orders", orders}}},
          {"expert_load", load}};
}

/// `before` and `after` in one object; null where they are not known.
Json change_json(double before, double after) {
  const auto known = [](double value) { return value > 0 ? Json(value) : Json(nullptr); };
  return {{"before", known(before)}, {"after", known(after)}};
}

Json replan_json(const ReplanReport& replan) {
  if (replan.mode == ReplanMode::kOff) return nullptr;
  Json switches = Json::array();
  for (const PlanSwitch& change : replan.switches) {
    switches.push_back(
        {{"epoch", change.epoch},
         {"decided_step", change.decided_step},
         {"switched_step", change.switched_step},
         {"layers_changed", change.layers_changed},
         {"experts_moved", change.experts_moved},
         {"bytes_moved", change.bytes_moved},
         {"move_us", change.move_us},
         {"predicted_step_us", change_json(change.predicted_before_us, change.predicted_after_us)},
         {"step_us_on_traffic_since", change_json(change.since_before_us, change.since_after_us)},
         {"measured_us_per_token",
          change_json(change.measured_before_us_per_token, change.measured_after_us_per_token)}});
  }
  return {{"mode", replan_mode_name(replan.mode)},
          {"looks", replan.num_looks},
          {"evaluations", replan.num_evaluations},
          {"last_drift", replan.last_drift},
          {"longest_pause_seconds", replan.longest_pause_seconds},
          {"pause_seconds", replan.pause_seconds},
          {"switches", switches},
          {"failed_moves", replan.failed_moves}};
}

std::int64_t total_generated(const EngineReport& report) {
  std::int64_t total = 0;
  for (const EngineReport::Model& model : report.models) total += model.generated_tokens;
  return total;
}

std::string model_summary(const EngineReport::Model& model) {
  std::string text = fmt::format(
      "{}: {} requests, {} prompt + {} generated tokens, {:.1f} tokens/s, {} steps", model.name,
      model.requests, model.prompt_tokens, model.generated_tokens, model.tokens_per_second, model.steps);
  if (model.failed_requests > 0) text += fmt::format(", {} failed", model.failed_requests);
  if (model.preemptions > 0) text += fmt::format(", {} preemptions", model.preemptions);
  return text;
}

std::string replan_summary(const ReplanReport& replan) {
  std::string text = fmt::format("re-planning ({}): {} looks at the traffic, {} plans sought, {} switches",
                                 replan_mode_name(replan.mode), replan.num_looks, replan.num_evaluations,
                                 replan.switches.size());
  if (!replan.failed_moves.empty()) text += fmt::format(", {} moves failed", replan.failed_moves.size());
  if (!replan.switches.empty()) {
    text += fmt::format(
        "; the last predicted {:.1f} -> {:.1f} us for the layers of a step; longest pause {:.1f} ms",
        replan.switches.back().predicted_before_us, replan.switches.back().predicted_after_us,
        replan.longest_pause_seconds * 1e3);
  }
  return text;
}

std::string exchange_summary(const EngineReport::Model& model) {
  constexpr double kMebibyte = 1 << 20;
  const auto bytes = static_cast<double>(model.exchanged_bytes);
  std::string text =
      fmt::format("{}: {} exchanges moved {:.2f} MiB", model.name, model.num_exchanges, bytes / kMebibyte);
  if (bytes > 0) {
    text += fmt::format(" ({:.2f}x less than copy by copy), {:.1f} ms, bound {:.1f} ms",
                        static_cast<double>(model.bytes_without_deduplication) / bytes,
                        model.achieved_seconds * 1e3, model.bound_seconds * 1e3);
  }
  if (!model.orders.empty()) {
    text += fmt::format(", predicted {:.1f} ms", model.predicted_seconds * 1e3);
    for (const auto& [order, times] : model.orders) text += fmt::format(", {}x {}", times, order);
  }
  double worst = 1;
  for (const auto& tokens : model.expert_tokens) worst = std::max(worst, hottest_over_mean(tokens));
  return text + fmt::format("; hottest expert {:.2f}x the mean of its layer", worst);
}

}  // namespace

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string processor_name() {
  std::ifstream stream("/proc/cpuinfo");
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string report_json(const EngineReport& report, const BatchProgress& progress, const RunStamp& stamp) {
  Json models = Json::array();
  for (const EngineReport::Model& model : report.models) models.push_back(model_json(model));
  const Json json = {
      {"version", kReportVersion},
      {"stamp", stamp_json(stamp)},
      {"num_ranks", report.num_ranks},
      {"wall_seconds", report.wall_seconds},
      {"prompts", {{"total", progress.num_prompts}, {"failed", progress.num_failed}}},
      {"generated_tokens", total_generated(report)},
      {"tokens_per_second", ratio(static_cast<double>(total_generated(report)), report.wall_seconds)},
      {"overlap", overlap_json(report.overlap)},
      {"models", models},
      {"replan", replan_json(report.replan)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::vector<std::string> report_summary(const EngineReport& report, const BatchProgress& progress) {
  const std::int64_t tokens = total_generated(report);
  std::vector<std::string> lines = {
      fmt::format("answered {} prompts on {} ranks in {:.2f} s: {} tokens, {:.1f} tokens/s",
                  progress.num_answered - progress.num_failed, report.num_ranks, report.wall_seconds, tokens,
                  report.wall_seconds > 0 ? static_cast<double>(tokens) / report.wall_seconds : 0.0)};
  if (report.overlap.compute_seconds > 0) {
    lines.push_back(
        fmt::format("computing {:.0f} % of the time; {:.0f} % of exchange time hidden under compute",
                    report.overlap.utilisation * 100, report.overlap.ratio * 100));
  }
  for (const EngineReport::Model& model : report.models) {
    lines.push_back(model_summary(model));
    lines.push_back(exchange_summary(model));
  }
  if (report.replan.mode != ReplanMode::kOff) lines.push_back(replan_summary(report.replan));
  if (progress.num_failed > 0) {
    lines.push_back(fmt::format("{} of {} prompts failed; the first: {}", progress.num_failed,
                                progress.num_prompts, progress.first_failure));
  }
  return lines;
}

double hottest_over_mean(const std::vector<std::int64_t>& expert_tokens) {
  const auto total = std::accumulate(expert_tokens.begin(), expert_tokens.end(), std::int64_t{0});
  if (total == 0) return 1;
  const auto hottest = static_cast<double>(*std::max_element(expert_tokens.begin(), expert_tokens.end()));
  return hottest * static_cast<double>(expert_tokens.size()) / static_cast<double>(total);
}

}  // namespace aurora
