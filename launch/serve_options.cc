#include "launch/serve_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <span>
#include <sstream>
#include <utility>

#include "kernels/error.h"
#include "launch/build_stamp.h"
#include "runtime/plan_io/nearest_name.h"
#include "runtime/transport/transport_registry.h"
#include "scheduler/placement.h"

namespace aurora {
namespace {

constexpr double kMaxReal = 1e12;
/// More copies than any layer has experts.
constexpr std::int64_t kMaxReplicas = 1 << 16;

ChoiceValue name_choice(std::string& value, std::vector<std::string> names) {
  return {std::move(names), [&value] { return value; }, [&value](const std::string& name) { value = name; }};
}

ChoiceValue order_choice(OrderPolicy& order) {
  ChoiceValue choice;
  choice.names = order_policy_names();
  choice.get = [&order] { return std::string(order_policy_name(order)); };
  choice.set = [&order](const std::string& name) { order = *parse_order_policy(name); };
  return choice;
}

std::vector<std::string> placement_names() {
  std::vector<std::string> names;
  for (const PlacementPolicy policy : all_placement_policies())
    names.emplace_back(placement_policy_name(policy));
  return names;
}

ChoiceValue schedule_choice(Schedule& schedule) {
  ChoiceValue choice;
  for (const Schedule each : kSchedules) choice.names.emplace_back(schedule_name(each));
  choice.get = [&schedule] { return std::string(schedule_name(schedule)); };
  choice.set = [&schedule](const std::string& name) {
    schedule = *std::ranges::find(kSchedules, std::string_view(name), schedule_name);
  };
  return choice;
}

ChoiceValue replan_choice(ReplanMode& mode) {
  ChoiceValue choice;
  for (const ReplanMode each : {ReplanMode::kOff, ReplanMode::kInterval, ReplanMode::kDrift})
    choice.names.emplace_back(replan_mode_name(each));
  choice.get = [&mode] { return std::string(replan_mode_name(mode)); };
  choice.set = [&mode](const std::string& name) {
    mode = name == "interval" ? ReplanMode::kInterval
           : name == "drift"  ? ReplanMode::kDrift
                              : ReplanMode::kOff;
  };
  return choice;
}

ChoiceValue wire_dtype_choice(std::optional<DType>& dtype) {
  return {{"auto", std::string(dtype_name(DType::kFloat32)), std::string(dtype_name(DType::kBFloat16)),
           std::string(dtype_name(DType::kFloat8E4M3))},
          [&dtype] { return wire_dtype_name(dtype); },
          [&dtype](const std::string& name) { dtype = parse_dtype(name); }};
}

std::vector<Field> planning_fields(ServeOptions& o) {
  return {
      {"placement", "how experts are placed on ranks", name_choice(o.placement, placement_names())},
      {"replicas", "copies of hot experts beyond one of each, per model and layer; placements auto and eplb",
       IntegerValue{&o.replicas, 0, kMaxReplicas}},
      {"plan", "read the deployment plan from this file instead of planning", &o.plan},
      {"plan_out", "write the deployment plan that is used to this file", &o.plan_out},
      {"order", "order of the transfers of an exchange", order_choice(o.order)},
      {"fabric", "read what exchanges cost from this file instead of measuring it; used by order auto",
       &o.fabric},
      {"round_cost_us", "start-up cost of one round of transfers, microseconds; used by order aurora",
       RealValue{&o.round_cost_us, 0, kMaxReal}},
      {"port_gbps", "bandwidth of one rank's port, Gbit/s in each direction",
       RealValue{&o.port_gbps, 0, kMaxReal, true}},
      {"cluster", "TOML file with the ports and speeds of the GPUs", &o.cluster},
      {"schedule",
       "how models share ranks: phases interleaved; one after the other, whole or in two halves; "
       "on ranks of their own",
       schedule_choice(o.schedule)},
      {"decode_steps",
       "of each model between two commands of rank 0 while no prompt waits; what comes meanwhile waits as "
       "long",
       IntegerValue{&o.decode_steps, 1, kMostStepsOfTurn}},
      {"wire_dtype",
       "element type of exchanged tokens; auto: what the model computes in; results come back as bfloat16 "
       "with "
       "float8_e4m3",
       wire_dtype_choice(o.wire_dtype)},
      {"deterministic", "results do not depend on ranks, placement and batch, bit for bit", &o.deterministic},
  };
}

std::vector<Field> replan_fields(ServeOptions& o) {
  constexpr std::int64_t kMostSteps = std::int64_t{1} << 40;
  constexpr std::int64_t kMostKibibytes = std::int64_t{1} << 20;
  constexpr std::int64_t kKibibyte = 1024;
  return {
      {"replan", "seek a better plan while serving: never, every interval, or when traffic has drifted",
       replan_choice(o.replan)},
      {"replan_interval", "steps from one look at the traffic to the next",
       IntegerValue{&o.replan_interval, 1, kMostSteps}},
      {"replan_horizon", "steps within which a move to another plan must pay",
       IntegerValue{&o.replan_horizon, 1, kMostSteps}},
      {"replan_half_life", "steps after which traffic counts half",
       IntegerValue{&o.replan_half_life, 1, kMostSteps}},
      {"replan_budget_kb", "most KiB of experts that a rank sends, and receives, in one step of a move",
       IntegerValue{&o.replan_budget, 1, kMostKibibytes, kKibibyte}},
      {"replan_drift", "part of tokens that go to other experts than before at which traffic has drifted",
       RealValue{&o.replan_drift, 0, 1}},
  };
}

/// The options of one flag as CLI11 fills them: the words after each occurrence.
struct FlagText {
  explicit FlagText(Field listed, bool is_of_model = false)
      : field(std::move(listed)), is_model_field(is_of_model) {}

  Field field;
  bool is_model_field;
  std::vector<std::string> words;
  CLI::Option* option = nullptr;
};

/// "x: y" where CLI11 found a flag without its value and the like.
Error flag_error(const std::string& text) { return Error(ErrorKind::kInvalidArgument, text); }

std::vector<FlagText> listed_flags(ServeOptions& options, ModelConfiguration& prototype) {
  std::vector<FlagText> flags;
  for (Field& field : serve_fields(options)) flags.emplace_back(std::move(field));
  for (Field& field : model_fields(prototype)) {
    if (is_overridable(field)) flags.emplace_back(std::move(field), true);
  }
  return flags;
}

void add_flags(CLI::App& app, std::vector<FlagText>& flags) {
  for (FlagText& flag : flags) {
    const Field& field = flag.field;
    const bool is_switch = std::holds_alternative<bool*>(field.value);
    const bool is_path = std::holds_alternative<std::filesystem::path*>(field.value);
    std::string doc = field.doc + " [" + variable_name(field) + "]";
    if (flag.is_model_field) doc += "; VALUE for every model, MODEL=VALUE for one";
    if (!is_switch && !is_path) doc += "; " + expected_value(field);
    if (is_switch) {
      // With a description that is not const, CLI11 takes it for the variable to write to.
      flag.option = app.add_flag(flag_name(field), std::as_const(doc));
    } else {
      flag.option = app.add_option(flag_name(field), flag.words, doc);
      flag.option->type_name("VALUE")->expected(1)->allow_extra_args(false);
    }
    flag.option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    flag.option->group(flag.is_model_field ? "Models (override their files)" : "Run");
  }
}

std::vector<std::string> flag_names(const std::vector<FlagText>& flags) {
  std::vector<std::string> names = {"--help", "--version"};
  for (const FlagText& flag : flags) names.push_back(flag_name(flag.field));
  return names;
}

void refuse_leftovers(const std::vector<std::string>& leftovers, const std::vector<FlagText>& flags) {
  if (leftovers.empty()) return;
  const std::string& word = leftovers.front();
  if (word.rfind('-', 0) != 0) {
    throw flag_error("unexpected argument \"" + word + "\"; models are given as --models a.cfg,b.cfg");
  }
  const std::string name = word.substr(0, word.find('='));
  const std::vector<std::string> names = flag_names(flags);
  std::string hint = suggest_name(name, names);
  if (hint.rfind("; did", 0) != 0) hint = "; --help lists the flags";
  throw flag_error("unknown flag " + name + hint);
}

std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  if (parts.empty()) parts.emplace_back();
  return parts;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ",") + word;
  return text;
}

/// Gives `text` to a field of the run, or keeps it as an override of the models' files.
void take_text(const FlagText& flag, const std::string& text, SettingSource source, CommandLine& command) {
  if (flag.is_model_field) {
    for (const std::string& part : split_at_commas(text)) {
      command.overrides.push_back({flag.field.key, part, source});
    }
    return;
  }
  try {
    set_field(flag.field, text);
  } catch (const Error& error) {
    const bool is_flag = source == SettingSource::kFlag;
    throw flag_error((is_flag ? flag_name(flag.field) : variable_name(flag.field)) + ": " + error.what());
  }
  command.sources[flag.field.key] = source;
}

void take_variables(const Environment& environment, const std::vector<FlagText>& flags,
                    CommandLine& command) {
  std::vector<std::string> known;
  for (const FlagText& flag : flags) known.push_back(variable_name(flag.field));
  for (const std::string& line : environment) {
    if (line.rfind("AURORA_", 0) != 0) continue;
    const std::size_t equals = std::min(line.find('='), line.size());
    const std::string name = line.substr(0, equals);
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end()) {
      std::string hint = suggest_name(name, known);
      if (hint.rfind("; did", 0) != 0) hint = "";
      command.unknown_variables.push_back("unknown variable " + name + hint);
    } else if (equals + 1 < line.size()) {  // an empty variable is as good as none
      take_text(flags[static_cast<std::size_t>(found - known.begin())], line.substr(equals + 1),
                SettingSource::kVariable, command);
    }
  }
}

void take_flags(const std::vector<FlagText>& flags, CommandLine& command) {
  for (const FlagText& flag : flags) {
    if (flag.option->count() == 0) continue;
    const bool is_list = flag.is_model_field || std::holds_alternative<ListValue>(flag.field.value);
    const std::vector<std::string> words = flag.option->results();
    if (words.size() > 1 && !is_list) {
      throw flag_error(flag_name(flag.field) + " is given " + std::to_string(words.size()) +
                       " times; give it once");
    }
    take_text(flag, joined(words), SettingSource::kFlag, command);
  }
}

std::optional<int> number_variable(const Environment& environment, std::string_view name) {
  for (const std::string& line : environment) {
    if (line.size() <= name.size() || line.rfind(name, 0) != 0 || line[name.size()] != '=') continue;
    int number = 0;
    const char* first = line.data() + name.size() + 1;
    if (std::from_chars(first, line.data() + line.size(), number).ec == std::errc()) return number;
  }
  return std::nullopt;
}

void append_line(std::string& text, const Field& field, const std::string& value, const std::string& why) {
  constexpr std::size_t kCommentColumn = 48;
  std::string line = field.key + " = " + value;
  line.resize(std::max(line.size() + 2, kCommentColumn), ' ');
  text += line + "# " + why + "\n";
}

std::string source_comment(SettingSource source, const Field& field) {
  switch (source) {
    case SettingSource::kFlag:
      return "flag " + flag_name(field);
    case SettingSource::kVariable:
      return "variable " + variable_name(field);
    default:
      return std::string(setting_source_name(source));
  }
}

void check_combinations(const CommandLine& command) {
  const auto is_given = [&](const char* key) {
    return source_of(command.sources, key) != SettingSource::kDefault;
  };
  if (command.options.models.empty()) {
    throw flag_error("no model: give at least one configuration file, as in --models a.cfg,b.cfg");
  }
  if (is_given("plan") && is_given("placement")) {
    throw flag_error(
        "--plan reads the placement from a file, so --placement cannot be given with it; drop one");
  }
  if (command.options.ranks > 0 && command.options.transport == "mpi") {
    throw flag_error("--ranks is for --transport threads; with MPI, mpirun -np gives the number of ranks");
  }
}

}  // namespace

std::string wire_dtype_name(std::optional<DType> chosen) {
  return chosen ? std::string(dtype_name(*chosen)) : "auto";
}

std::vector<Field> serve_fields(ServeOptions& o) {
  constexpr double kLongestTimeout = 86400;
  std::vector<Field> fields = {
      {"models", "configuration files of the models", ListValue{&o.models}},
      {"backend", "what computes", name_choice(o.backend, {"cpu", "cuda", "auto"})},
      {"cuda_graphs", "on GPUs, submit decode steps whose shape repeats as CUDA graphs",
       name_choice(o.cuda_graphs, {"on", "off"})},
      {"worker_streams", "on CPUs, compute on a thread beside the one that drives exchanges",
       name_choice(o.worker_streams, {"on", "off", "auto"})},
      {"transport", "what carries tokens between ranks",
       name_choice(o.transport, {"mpi", "threads", "nccl", "auto"})},
      {"ranks", "number of ranks with --transport threads; 0: one", IntegerValue{&o.ranks, 0, 4096}},
  };
  for (Field& field : planning_fields(o)) fields.push_back(std::move(field));
  for (Field& field : replan_fields(o)) fields.push_back(std::move(field));
  const std::vector<Field> rest = {
      {"timeout", "longest wait for another rank, seconds", RealValue{&o.timeout, 0, kLongestTimeout, true}},
      {"prompts", "JSON lines to answer; default: standard input, answered as they finish", &o.prompts},
      {"output", "write answers to this file; default: standard output", &o.output},
      {"report", "write the run's report to this JSON file", &o.report},
      {"record_traffic", "write the traffic of this run to this file, to plan from later", &o.record_traffic},
      {"record_routing", "write each token's expert ids to this routing record", &o.record_routing},
      {"trace", "write a Chrome trace of all phases to this JSON file", &o.trace},
      {"log_level", "least serious messages that are shown",
       name_choice(o.log_level, {"trace", "debug", "info", "warning", "error", "off"})},
      {"quiet", "no progress and no summary; warnings and errors only", &o.quiet},
      {"check", "validate everything, print the deployment plan and leave", &o.check},
      {"dump_config", "print the effective configuration and leave", &o.dump_config},
  };
  fields.insert(fields.end(), rest.begin(), rest.end());
  return fields;
}

CommandLine parse_command_line(const std::vector<std::string>& arguments, const Environment& environment) {
  CommandLine command;
  ModelConfiguration prototype;
  std::vector<FlagText> flags = listed_flags(command.options, prototype);
  CLI::App app("Serves mixture-of-experts language models: answers prompts in JSON lines.", "aurora-serve");
  app.set_version_flag("--version", version_line());
  app.allow_extras();
  app.footer("Exit status: 0 every line was answered, 2 some lines failed, 1 the run failed.");
  add_flags(app, flags);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    return {CommandAction::kPrint, app.help(), {}, {}, {}, {}};
  } catch (const CLI::CallForVersion&) {
    return {CommandAction::kPrint, version_line() + "\n", {}, {}, {}, {}};
  } catch (const CLI::ParseError& error) {
    throw flag_error(error.what());
  }
  refuse_leftovers(app.remaining(), flags);
  take_variables(environment, flags, command);
  take_flags(flags, command);
  check_combinations(command);
  return command;
}

std::vector<BackendOffer> offered_backends() {
  std::vector<BackendOffer> offers;
  for (const std::string& name : available_backends()) offers.push_back({name, visible_devices(name)});
  return offers;
}

Resolved resolve_backend(const std::string& wanted, const std::vector<BackendOffer>& offers) {
  std::vector<std::string> names;
  const BackendOffer* cuda = nullptr;
  for (const BackendOffer& offer : offers) {
    names.push_back(offer.name);
    if (offer.name == "cuda") cuda = &offer;
  }
  if (wanted == "auto") {
    if (cuda == nullptr) return {"cpu", "this build has no cuda backend"};
    const int num_gpus = cuda->devices.num_devices;
    if (num_gpus == 0) return {"cpu", "no GPU can be used: " + cuda->devices.why_none};
    return {"cuda", std::to_string(num_gpus) + (num_gpus == 1 ? " GPU is" : " GPUs are") + " visible"};
  }
  if (std::find(names.begin(), names.end(), wanted) != names.end()) return {wanted, ""};
  throw Error(ErrorKind::kUnsupported,
              "--backend " + wanted + ": not in this build, which has: " + joined(names));
}

namespace {

/// A backend that this build lacks is refused later, by all ranks together.
bool computes_on_gpus(const std::string& backend, const std::vector<BackendOffer>& offers) {
  const bool has_cuda = std::any_of(offers.begin(), offers.end(),
                                    [](const BackendOffer& offer) { return offer.name == "cuda"; });
  return has_cuda && (backend == "auto" ? resolve_backend(backend, offers).name : backend) == "cuda";
}

void refuse_staging(const std::string& transport, int num_ranks) {
  throw flag_error("--transport " + transport + " moves host memory only, and " + std::to_string(num_ranks) +
                   " ranks are to compute on GPUs; use --transport nccl under mpirun, or --backend cpu");
}

}  // namespace

Resolved resolve_transport(const ServeOptions& options, const std::vector<BackendOffer>& offers,
                           const LaunchedProcess& launched) {
  const std::string& wanted = options.transport;
  const bool is_on_gpus = computes_on_gpus(options.backend, offers);
  if (wanted == "auto" && launched.is_under_mpi) {
    if (is_on_gpus && launched.num_processes > 1) return {"nccl", "several MPI ranks compute on GPUs"};
    return {"mpi", "started by an MPI launcher"};
  }
  if (wanted != "auto") require_transport(wanted);
  if (wanted == "threads" && launched.num_processes > 1) {
    throw flag_error(
        "--transport threads: the launcher started " + std::to_string(launched.num_processes) +
        " processes, and each would do all the work; start one with --ranks N, or use --transport mpi");
  }
  const int num_ranks = wanted == "mpi" ? launched.num_processes : static_cast<int>(options.ranks);
  const std::string& name = wanted == "auto" ? "threads" : wanted;
  if (is_on_gpus && num_ranks > 1 && name != "nccl") refuse_staging(name, num_ranks);
  if (wanted == "auto") return {name, "not started by an MPI launcher"};
  return {name, ""};
}

LaunchedProcess launched_process(const Environment& environment) {
  constexpr std::string_view kRanks[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"};
  constexpr std::string_view kSizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
  LaunchedProcess launched;
  const auto first_number = [&](std::span<const std::string_view> names, int& number) {
    for (const std::string_view name : names) {
      const std::optional<int> found = number_variable(environment, name);
      if (!found) continue;
      number = *found;
      return true;
    }
    return false;
  };
  launched.is_under_mpi = first_number(kRanks, launched.rank);
  launched.is_under_mpi |= first_number(kSizes, launched.num_processes);
  return launched;
}

Resolved resolve_worker_streams(const WorkerStreamsTerms& terms) {
  if (terms.backend != "cpu") {
    if (terms.wanted == "on") {
      throw flag_error("--worker-streams on: streams of backend " + terms.backend +
                       " run beside the host by themselves; leave it out");
    }
    return {"off", ""};
  }
  if (terms.wanted != "auto") return {terms.wanted, ""};
  const bool overlaps = terms.schedule == Schedule::kTwoBatch ||
                        (terms.schedule == Schedule::kColocated && terms.num_models > 1);
  if (!overlaps) return {"off", "nothing computes while an exchange is under way"};
  if (terms.num_ranks == 1) return {"off", "one rank exchanges nothing"};
  if (terms.transport != "mpi") return {"off", "exchanges between threads are copies that need no driving"};
  if (terms.num_cores < 2 * terms.num_local_ranks) {
    return {"off", std::to_string(terms.num_cores) + " cores are less than two for each of " +
                       std::to_string(terms.num_local_ranks) + " ranks here"};
  }
  return {"on", "exchanges go on while a model computes"};
}

EngineOptions engine_options(const ServeOptions& options, const std::vector<ModelConfiguration>& models) {
  EngineOptions engine;
  for (const ModelConfiguration& model : models) engine.models.push_back(model.options);
  engine.placement = options.plan.empty() ? options.placement : "file";
  engine.plan_file = options.plan;
  engine.num_replicas = static_cast<int>(options.replicas);
  engine.order = options.order;
  engine.fabric_file = options.fabric;
  engine.round_cost_us = options.round_cost_us;
  engine.port_gbps = options.port_gbps;
  engine.schedule = options.schedule;
  engine.decode_steps = options.decode_steps;
  engine.replan.mode = options.replan;
  engine.replan.interval_steps = options.replan_interval;
  engine.replan.horizon_steps = options.replan_horizon;
  engine.replan.half_life_steps = options.replan_half_life;
  engine.replan.bytes_per_step = options.replan_budget;
  engine.replan.drift_threshold = options.replan_drift;
  engine.wire_dtype = options.wire_dtype;
  engine.deterministic = options.deterministic;
  engine.record_trace = !options.trace.empty();
  engine.record_routing = options.record_routing;
  engine.timeout = std::chrono::milliseconds(std::max<std::int64_t>(1, std::llround(options.timeout * 1000)));
  engine.cluster_file = options.cluster;
  engine.check_only = options.check;
  return engine;
}

std::string dump_configuration(const CommandLine& command, std::vector<ModelConfiguration>& models,
                               const Resolved& backend, const Resolved& transport) {
  std::string text = "# " + version_line() + "\n[serve]\n";
  ServeOptions options = command.options;
  for (const Field& field : serve_fields(options)) {
    if (field.key == "dump_config" || field.key == "check") continue;
    const Resolved* resolved = field.key == "backend"     ? &backend
                               : field.key == "transport" ? &transport
                                                          : nullptr;
    std::string why = source_comment(source_of(command.sources, field.key), field);
    if (resolved != nullptr && !resolved->why.empty()) why += ", auto: " + resolved->why;
    append_line(text, field, resolved == nullptr ? toml_value(field) : toml_quoted(resolved->name), why);
  }
  for (ModelConfiguration& model : models) {
    text += "\n[[model]]  # " + model.file.string() + "\n";
    for (const Field& field : model_fields(model)) {
      append_line(text, field, toml_value(field), source_comment(source_of(model.sources, field.key), field));
    }
  }
  return text;
}

std::string version_line() {
  return std::string("aurora-serve ") + kVersion + " (commit " + kCommit + ", " + kCompiler + ", " +
         kBuildType + ")";
}

}  // namespace aurora
