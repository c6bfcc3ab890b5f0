// The commands of aurora-plan: transmission orders, placements, and the import of published routing data.
// Each takes its options ready parsed and returns the text for standard output.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace aurora {

struct PlanOrderOptions {
  std::filesystem::path matrix;
  std::vector<double> ports_gbps;  // one per GPU; empty: see `cluster`
  std::filesystem::path cluster;   // empty and no ports: all ports alike, results in bytes
  std::string policy = "all";
  int max_rounds = 0;
  double round_cost_us = 10;
  bool is_json = false;
};

/// One row per policy: predicted makespan (without start-ups), bound, their ratio, pacing, rounds (without
/// barriers: messages at the busiest side of a port), planning time.
/// Makespan and bound are whole bytes through the busiest port when all ports are alike and no speed is
/// given, microseconds otherwise. Throws Error naming file, flag and value.
std::string plan_order_command(const PlanOrderOptions& options);

struct PlanPlaceOptions {
  std::filesystem::path cluster;
  std::vector<std::filesystem::path> traffic;  // one file per model
  std::vector<std::filesystem::path>
      evaluate;  // traffic of the same models to judge the plans by; empty: `traffic`
  std::string placement = "auto";
  int num_replicas = 0;
  double robustness_price = 0.02;  // of auto; 0: plan for exactly this traffic
  std::uint64_t seed = 1;
  std::filesystem::path out;    // plan file; empty: none
  std::filesystem::path trace;  // Chrome trace of the plan's predicted timeline; empty: none
  bool is_comparing = false;
  bool is_json = false;
};

/// Plans a placement, writes it to `out`, and returns layer time by the closed forms and by event simulation
/// and utilisation of it, or beside all other policies and, where that is feasible, brute force. Throws Error
/// naming file, flag and value.
std::string plan_place_command(const PlanPlaceOptions& options);

struct PlanImportOptions {
  std::filesystem::path data;  // routing record or expert popularity, told apart by their keys
  std::filesystem::path out;   // traffic file; empty: standard output
  std::string model;           // empty: as the data say
  int num_gpus = 8;
  int top_k = 2;  // of popularity counts; routing records have their own
  int max_samples = 512;
  double dispatch_bytes_per_token = 4096;
  double combine_bytes_per_token = 4096;
  double expert_bytes = 0;
  double attention_us = 0;
  double gate_us = 0;
  double expert_us_per_token = 0;
  double expert_us_per_hit = 0;
  double aggregate_us = 0;
};

/// Writes a traffic file; returns what was imported in a line, or the traffic itself when `out` is empty.
std::string plan_import_command(const PlanImportOptions& options);

}  // namespace aurora
