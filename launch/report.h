// What a run came to: report.json for machines and a summary for people, the same numbers in both.
#pragma once

#include <string>
#include <vector>

#include "launch/batch_io.h"
#include "runtime/engine.h"

namespace aurora {

/// The version of report.json.
constexpr int kReportVersion = 1;

/// Under which circumstances the numbers arose.
struct RunStamp {
  std::string started;  // UTC, "2026-01-31T12:34:56Z"
  std::string backend;
  std::string processor;  // "AMD EPYC 9R14", or "unknown"
  int num_cores = 0;
  std::string transport;
  std::string placement;
  std::string order;
  std::string schedule;
  std::string wire_dtype;
  bool deterministic = false;
};

/// The time now as RunStamp::started has it.
std::string utc_now();
/// The processor's name from /proc/cpuinfo.
std::string processor_name();

/// report.json, indented, with a final line end. formats.md describes every field.
std::string report_json(const EngineReport& report, const BatchProgress& progress, const RunStamp& stamp);

/// A few lines: prompts, then tokens, speed, exchanges and the most uneven layer of each model.
std::vector<std::string> report_summary(const EngineReport& report, const BatchProgress& progress);

/// Hottest over mean; 1 when no expert got a token.
double hottest_over_mean(const std::vector<std::int64_t>& expert_tokens);

}  // namespace aurora
