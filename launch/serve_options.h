// The settings of one run of aurora-serve: flags and environment variables. A flag beats a variable, and both
// beat what a model's file says. The list of settings is serve_fields below; formats.md documents them.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend_registry.h"
#include "launch/config.h"
#include "launch/field.h"
#include "runtime/engine.h"

namespace aurora {

struct ServeOptions {
  std::vector<std::string> models;  // configuration files
  std::string backend = "auto";
  std::string cuda_graphs = "on";       // or "off"
  std::string worker_streams = "auto";  // or "on", "off"
  std::string transport = "auto";
  std::int64_t ranks = 0;  // threads only; 0: one

  std::string placement = EngineOptions{}.placement;
  std::filesystem::path plan;
  std::filesystem::path plan_out;
  std::int64_t replicas = EngineOptions{}.num_replicas;
  OrderPolicy order = EngineOptions{}.order;
  std::filesystem::path fabric;
  double round_cost_us = EngineOptions{}.round_cost_us;
  double port_gbps = EngineOptions{}.port_gbps;
  std::filesystem::path cluster;
  Schedule schedule = EngineOptions{}.schedule;
  std::int64_t decode_steps = EngineOptions{}.decode_steps;
  ReplanMode replan = ReplanOptions{}.mode;
  std::int64_t replan_interval = ReplanOptions{}.interval_steps;
  std::int64_t replan_horizon = ReplanOptions{}.horizon_steps;
  std::int64_t replan_half_life = ReplanOptions{}.half_life_steps;
  std::int64_t replan_budget = ReplanOptions{}.bytes_per_step;
  double replan_drift = ReplanOptions{}.drift_threshold;
  std::optional<DType> wire_dtype = EngineOptions{}.wire_dtype;
  bool deterministic = EngineOptions{}.deterministic;
  double timeout = std::chrono::duration<double>(EngineOptions{}.timeout).count();  // seconds

  std::filesystem::path prompts;
  std::filesystem::path output;
  std::filesystem::path report;
  std::filesystem::path record_traffic;
  std::filesystem::path record_routing;
  std::filesystem::path trace;
  std::string log_level = "info";
  bool quiet = false;

  bool check = false;
  bool dump_config = false;
};

/// Every setting, in the order of the documentation. Names of placements, orders and backends come from their
/// own tables.
std::vector<Field> serve_fields(ServeOptions& options);

/// Of the setting wire_dtype; "auto" where none is chosen.
std::string wire_dtype_name(std::optional<DType> chosen);

enum class CommandAction : std::uint8_t {
  kServe,
  kPrint,  // print `text` on standard output and leave with 0 (--help, --version)
};

/// What the variables of an MPI launcher (Open MPI, or MPICH and others through PMI or PMIx) say before MPI
/// is initialised.
struct LaunchedProcess {
  bool is_under_mpi = false;
  int rank = 0;
  int num_processes = 1;  // 1 also when the launcher does not say
};

struct CommandLine {
  CommandAction action = CommandAction::kServe;
  std::string text;
  ServeOptions options;
  SettingSources sources;
  std::vector<ModelOverride> overrides;  // variables first, so that flags win
  /// Variables that look like ours and are not, with what they may have meant: to be logged as warnings.
  std::vector<std::string> unknown_variables;
};

/// "NAME=value" lines, as in `environ`.
using Environment = std::vector<std::string>;

LaunchedProcess launched_process(const Environment& environment);

/// `arguments` without the program's name. Throws Error(kInvalidArgument) naming the flag or variable, what
/// it takes and what was found; an unknown flag names the nearest known one.
CommandLine parse_command_line(const std::vector<std::string>& arguments, const Environment& environment);

/// A choice and why it was made; `why` is empty when the user made it.
struct Resolved {
  std::string name;
  std::string why;
};

/// A backend of this build and the devices that it finds here.
struct BackendOffer {
  std::string name;
  DeviceCount devices;
};
/// All of them, in the order of the registry.
std::vector<BackendOffer> offered_backends();

/// Turns "auto" into a name, cuda where a GPU can be used, and refuses, with kUnsupported and the list of
/// what is there, what this build lacks.
Resolved resolve_backend(const std::string& wanted, const std::vector<BackendOffer>& offers);

/// `launched` is what the MPI launcher said about this process. Threads are refused when it started several
/// processes: each would do the whole work. Several ranks that compute on GPUs need NCCL: "auto" takes it,
/// and other transports are refused.
Resolved resolve_transport(const ServeOptions& options, const std::vector<BackendOffer>& offers,
                           const LaunchedProcess& launched);

/// What decides whether streams of the CPU backend get threads of their own.
struct WorkerStreamsTerms {
  std::string wanted;  // "on", "off" or "auto"
  std::string backend;
  std::string transport;
  Schedule schedule = Schedule::kColocated;
  std::size_t num_models = 1;
  int num_ranks = 1;
  int num_local_ranks = 1;  // on this machine
  int num_cores = 1;        // of this machine
};
/// "on" or "off". "auto" takes them where something computes while an exchange is under way that needs the
/// host, and where the threads find cores. Throws kInvalidArgument for "on" with another backend than cpu.
Resolved resolve_worker_streams(const WorkerStreamsTerms& terms);

/// The engine's options out of the run's and the models'. Throws Error(kInvalidArgument) for settings that
/// exclude each other.
EngineOptions engine_options(const ServeOptions& options, const std::vector<ModelConfiguration>& models);

/// The effective configuration as TOML, each value with who set it in a comment.
std::string dump_configuration(const CommandLine& command, std::vector<ModelConfiguration>& models,
                               const Resolved& backend, const Resolved& transport);

/// "aurora-serve 0.1.0 (commit 1a2b3c4, gcc 12.2.0, Release)".
std::string version_line();

}  // namespace aurora
