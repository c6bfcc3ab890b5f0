#include "launch/serve_options.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/launch/thrown_text.h"

namespace aurora {
namespace {

CommandLine parsed(std::vector<std::string> arguments, const Environment& environment = {}) {
  arguments.insert(arguments.begin(), {"--models", "a.cfg"});
  return parse_command_line(arguments, environment);
}

std::string failure_of(const std::vector<std::string>& arguments, const Environment& environment = {}) {
  return thrown_text([&] { parsed(arguments, environment); });
}

TEST(ServeOptions, DefaultsAreTheEngines) {
  const ServeOptions options = parsed({}).options;
  const EngineOptions engine = engine_options(options, {});
  const EngineOptions defaults;
  EXPECT_EQ(options.models, std::vector<std::string>{"a.cfg"});
  EXPECT_EQ(engine.placement, defaults.placement);
  EXPECT_EQ(engine.order, defaults.order);
  EXPECT_EQ(engine.round_cost_us, defaults.round_cost_us);
  EXPECT_EQ(engine.port_gbps, defaults.port_gbps);
  EXPECT_EQ(engine.schedule, defaults.schedule);
  EXPECT_EQ(engine.wire_dtype, defaults.wire_dtype);
  EXPECT_EQ(engine.deterministic, defaults.deterministic);
  EXPECT_EQ(engine.timeout, defaults.timeout);
  EXPECT_FALSE(engine.record_trace);
  EXPECT_FALSE(engine.check_only);
}

TEST(ServeOptions, EverySettingReachesTheEngine) {
  const CommandLine command = parsed({"--plan",
                                      "p.json",
                                      "--order",
                                      "auto",
                                      "--fabric",
                                      "f.json",
                                      "--round-cost-us=2.5",
                                      "--port-gbps",
                                      "100",
                                      "--cluster",
                                      "c.toml",
                                      "--schedule",
                                      "serial",
                                      "--wire-dtype",
                                      "float8_e4m3",
                                      "--deterministic",
                                      "--timeout",
                                      "1.5",
                                      "--record-routing",
                                      "r.json",
                                      "--trace",
                                      "t.json",
                                      "--check"});
  const EngineOptions engine = engine_options(command.options, {});
  EXPECT_EQ(engine.placement, "file");
  EXPECT_EQ(engine.plan_file, "p.json");
  EXPECT_EQ(engine.order, OrderPolicy::kAuto);
  EXPECT_EQ(engine.fabric_file, "f.json");
  EXPECT_EQ(engine.round_cost_us, 2.5);
  EXPECT_EQ(engine.port_gbps, 100);
  EXPECT_EQ(engine.cluster_file, "c.toml");
  EXPECT_EQ(engine.schedule, Schedule::kSerial);
  EXPECT_EQ(engine.wire_dtype, DType::kFloat8E4M3);
  EXPECT_TRUE(engine.deterministic);
  EXPECT_EQ(engine.timeout, std::chrono::milliseconds(1500));
  EXPECT_EQ(engine.record_routing, "r.json");
  EXPECT_TRUE(engine.record_trace);
  EXPECT_TRUE(engine.check_only);
}

TEST(ServeOptions, ReplanningIsOffUnlessAskedForAndItsSettingsReachTheEngine) {
  EXPECT_EQ(engine_options(parsed({}).options, {}).replan.mode, ReplanMode::kOff);
  const CommandLine command =
      parsed({"--replan", "drift", "--replan-interval", "7", "--replan-horizon", "70", "--replan-half-life",
              "14", "--replan-budget-kb", "64", "--replan-drift", "0.25"});
  const ReplanOptions replan = engine_options(command.options, {}).replan;
  EXPECT_EQ(replan.mode, ReplanMode::kDrift);
  EXPECT_EQ(replan.interval_steps, 7);
  EXPECT_EQ(replan.horizon_steps, 70);
  EXPECT_EQ(replan.half_life_steps, 14);
  EXPECT_EQ(replan.bytes_per_step, 65536);
  EXPECT_EQ(replan.drift_threshold, 0.25);
  EXPECT_EQ(engine_options(parsed({"--replan", "interval"}).options, {}).replan.mode, ReplanMode::kInterval);
  EXPECT_EQ(failure_of({"--replan-budget-kb", "0"}),
            "invalid argument: --replan-budget-kb: expected an integer from 1 to 1048576, found \"0\"");
}

TEST(ServeOptions, CudaGraphsAreOnUnlessTurnedOff) {
  EXPECT_EQ(parsed({}).options.cuda_graphs, "on");
  EXPECT_EQ(parsed({"--cuda-graphs", "off"}).options.cuda_graphs, "off");
  EXPECT_EQ(parsed({}, {"AURORA_CUDA_GRAPHS=off"}).options.cuda_graphs, "off");
  EXPECT_NE(failure_of({"--cuda-graphs", "maybe"}), "");
}

TEST(ServeOptions, AFlagBeatsAVariable) {
  const Environment environment = {"AURORA_ORDER=random", "AURORA_PORT_GBPS=40", "AURORA_DETERMINISTIC=1",
                                   "HOME=/x"};
  const CommandLine command = parsed({"--order", "exact", "--deterministic=false"}, environment);
  EXPECT_EQ(command.options.order, OrderPolicy::kExact);
  EXPECT_EQ(command.options.port_gbps, 40);
  EXPECT_FALSE(command.options.deterministic);
  EXPECT_EQ(source_of(command.sources, "order"), SettingSource::kFlag);
  EXPECT_EQ(source_of(command.sources, "port_gbps"), SettingSource::kVariable);
  EXPECT_EQ(source_of(command.sources, "schedule"), SettingSource::kDefault);
}

TEST(ServeOptions, EveryFlagHasAVariableThatSetsTheSame) {
  ServeOptions listed;
  std::set<std::string> keys;
  for (const Field& field : serve_fields(listed)) {
    EXPECT_TRUE(keys.insert(field.key).second) << field.key << " is listed twice";
    std::string text = "3";
    if (const auto* choice = std::get_if<ChoiceValue>(&field.value)) text = choice->names.front();
    if (std::holds_alternative<bool*>(field.value)) text = "true";
    if (field.key == "placement") text = "contiguous";
    if (field.key == "replan_drift") text = "0.5";
    const std::vector<std::string> flag = {flag_name(field) + "=" + text};
    const Environment variable = {variable_name(field) + "=" + text};
    CommandLine by_flag;
    CommandLine by_variable;
    try {
      by_flag = field.key == "models" ? parse_command_line(flag, {}) : parsed(flag);
      by_variable = field.key == "models" ? parse_command_line({}, variable) : parsed({}, variable);
    } catch (const Error& error) {
      FAIL() << field.key << ": " << error.what();
    }
    EXPECT_EQ(source_of(by_flag.sources, field.key), SettingSource::kFlag);
    EXPECT_EQ(source_of(by_variable.sources, field.key), SettingSource::kVariable);
    const auto flags = serve_fields(by_flag.options);
    const auto variables = serve_fields(by_variable.options);
    for (std::size_t i = 0; i < flags.size(); ++i) EXPECT_EQ(toml_value(flags[i]), toml_value(variables[i]));
  }
}

TEST(ServeOptions, ModelsAreSeparatedByCommasOrGivenAgain) {
  EXPECT_EQ(parse_command_line({"--models", "a.cfg,b.cfg"}, {}).options.models,
            (std::vector<std::string>{"a.cfg", "b.cfg"}));
  EXPECT_EQ(parse_command_line({"--models", "a.cfg", "--models=b.cfg"}, {}).options.models,
            (std::vector<std::string>{"a.cfg", "b.cfg"}));
  EXPECT_NE(thrown_text([] { parse_command_line({"--models", "a.cfg,,b.cfg"}, {}); }), "");
  const std::string none = thrown_text([] { parse_command_line({}, {}); });
  EXPECT_NE(none.find("no model"), std::string::npos) << none;
}

TEST(ServeOptions, ModelKeysAreFlagsAndVariablesToo) {
  const CommandLine command =
      parsed({"--kv-cache-mb", "m=32", "--replay-routing", "m=r.json,n=s.json"}, {"AURORA_KV_CACHE_MB=16"});
  ASSERT_EQ(command.overrides.size(), 4U);
  EXPECT_EQ(command.overrides[0].text, "16");
  EXPECT_EQ(command.overrides[0].source, SettingSource::kVariable);
  EXPECT_EQ(command.overrides[1].key, "kv_cache_mb");
  EXPECT_EQ(command.overrides[1].text, "m=32");
  EXPECT_EQ(command.overrides[3].text, "n=s.json");
}

TEST(ServeOptions, MistakesNameTheFlagAndTheRemedy) {
  EXPECT_EQ(failure_of({"--plcement", "auto"}),
            "invalid argument: unknown flag --plcement; did you mean \"--placement\"?");
  EXPECT_EQ(failure_of({"--order", "rotaton"}),
            "invalid argument: --order: unknown name \"rotaton\"; did you mean \"rotation\"?");
  EXPECT_EQ(failure_of({"--timeout", "soon"}),
            "invalid argument: --timeout: expected a number above 0 and at most 86400, found \"soon\"");
  EXPECT_EQ(failure_of({}, {"AURORA_RANKS=-3"}),
            "invalid argument: AURORA_RANKS: expected an integer from 0 to 4096, found \"-3\"");
  EXPECT_NE(failure_of({"b.cfg"}).find("unexpected argument \"b.cfg\""), std::string::npos);
  EXPECT_NE(failure_of({"--order", "exact", "--order", "random"}).find("2 times"), std::string::npos);
  EXPECT_NE(failure_of({"--order"}), "");
  EXPECT_NE(failure_of({"--deterministic=maybe"}), "");
  EXPECT_NE(failure_of({"--plan", "p", "--placement", "contiguous"}).find("drop one"), std::string::npos);
  EXPECT_NE(failure_of({"--transport", "mpi", "--ranks", "2"}).find("mpirun -np"), std::string::npos);
}

TEST(ServeOptions, AVariableThatLooksLikeOursIsReported) {
  const CommandLine command = parsed({}, {"AURORA_PLACMENT=auto", "AURORA_ORDER="});
  EXPECT_EQ(command.unknown_variables,
            std::vector<std::string>{"unknown variable AURORA_PLACMENT; did you mean \"AURORA_PLACEMENT\"?"});
  EXPECT_EQ(source_of(command.sources, "order"), SettingSource::kDefault);
}

TEST(ServeOptions, HelpAndVersionArePrintedAndListEverything) {
  const CommandLine help = parse_command_line({"--help"}, {});
  EXPECT_EQ(help.action, CommandAction::kPrint);
  ServeOptions listed;
  for (const Field& field : serve_fields(listed)) {
    EXPECT_NE(help.text.find(flag_name(field)), std::string::npos) << field.key;
    EXPECT_NE(help.text.find(variable_name(field)), std::string::npos) << field.key;
  }
  const CommandLine version = parse_command_line({"--version"}, {});
  EXPECT_EQ(version.action, CommandAction::kPrint);
  EXPECT_EQ(version.text.rfind("aurora-serve 0.", 0), 0U) << version.text;
}

TEST(ServeOptions, AutoSaysWhatItChoseAndAMissingChoiceSaysWhatIsThere) {
  const BackendOffer cpu{"cpu", {.num_devices = 1, .why_none = {}}};
  const BackendOffer two_gpus{"cuda", {.num_devices = 2, .why_none = {}}};
  const BackendOffer no_gpu{"cuda", {.num_devices = 0, .why_none = "no driver"}};
  EXPECT_EQ(resolve_backend("auto", {cpu}).name, "cpu");
  EXPECT_NE(resolve_backend("auto", {cpu}).why, "");
  EXPECT_EQ(resolve_backend("auto", {cpu, two_gpus}).name, "cuda");
  EXPECT_EQ(resolve_backend("auto", {cpu, two_gpus}).why, "2 GPUs are visible");
  EXPECT_EQ(resolve_backend("auto", {cpu, no_gpu}).name, "cpu");
  EXPECT_EQ(resolve_backend("auto", {cpu, no_gpu}).why, "no GPU can be used: no driver");
  EXPECT_EQ(resolve_backend("cuda", {cpu, no_gpu}).name, "cuda");  // refused when it is created
  EXPECT_EQ(resolve_backend("cpu", {cpu}).why, "");
  EXPECT_EQ(thrown_text([&] { resolve_backend("cuda", {cpu}); }),
            "unsupported: --backend cuda: not in this build, which has: cpu");
}

BackendOffer offer(const std::string& name, int num_devices) { return {name, {num_devices, "none"}}; }

std::string transport_for(const std::string& wanted, const std::string& backend,
                          const LaunchedProcess& launched, std::int64_t num_threads = 0) {
  ServeOptions options;
  options.transport = wanted;
  options.backend = backend;
  options.ranks = num_threads;
  return resolve_transport(options, {offer("cpu", 1), offer("cuda", 2)}, launched).name;
}

TEST(ServeOptions, TheTransportFollowsLauncherAndBackend) {
  const LaunchedProcess alone;
  const LaunchedProcess one_of_four{true, 1, 4};
  EXPECT_EQ(transport_for("auto", "cpu", one_of_four), "mpi");
  EXPECT_EQ(transport_for("auto", "cpu", alone), "threads");
  EXPECT_EQ(transport_for("threads", "cpu", {true, 0, 1}), "threads");
  EXPECT_EQ(transport_for("auto", "cuda", one_of_four), "nccl");
  EXPECT_EQ(transport_for("auto", "cuda", {true, 0, 1}), "mpi");
  EXPECT_EQ(transport_for("auto", "cuda", alone), "threads");
  EXPECT_EQ(transport_for("mpi", "cpu", one_of_four), "mpi");
  ServeOptions options;
  options.backend = "cuda";
  EXPECT_EQ(resolve_transport(options, {offer("cpu", 1)}, one_of_four).name, "mpi");  // refused later
  options.backend = "auto";
  EXPECT_EQ(resolve_transport(options, {offer("cpu", 1), offer("cuda", 0)}, one_of_four).name, "mpi");
}

TEST(ServeOptions, SeveralRanksOnGpusAreRefusedWithoutNccl) {
  for (const std::string& text : {thrown_text([] {
                                    transport_for("mpi", "cuda", {true, 1, 4});
                                  }),
                                  thrown_text([] { transport_for("threads", "cuda", {}, 4); }),
                                  thrown_text([] { transport_for("auto", "cuda", {}, 4); })}) {
    EXPECT_NE(text.find("moves host memory only, and 4 ranks"), std::string::npos) << text;
  }
}

TEST(ServeOptions, TheLauncherIsKnownByItsVariables) {
  const LaunchedProcess alone = launched_process({"PATH=/bin", "OMPI_COMM_WORLD_SIZE_X=2"});
  EXPECT_FALSE(alone.is_under_mpi);
  EXPECT_EQ(alone.rank, 0);
  EXPECT_EQ(alone.num_processes, 1);
  const LaunchedProcess second = launched_process({"OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK=1"});
  EXPECT_TRUE(second.is_under_mpi);
  EXPECT_EQ(second.rank, 1);
  EXPECT_EQ(second.num_processes, 2);
  EXPECT_EQ(launched_process({"PMI_RANK=3", "PMI_SIZE=8"}).num_processes, 8);
}

TEST(ServeOptions, ThreadsInSeveralProcessesAreRefused) {
  const std::string text = thrown_text([] { transport_for("threads", "cpu", {true, 0, 4}); });
  EXPECT_NE(text.find("the launcher started 4 processes"), std::string::npos) << text;
}

TEST(ServeOptions, TheDumpSaysWhoSetEachValue) {
  const CommandLine command = parsed({"--order", "exact"}, {"AURORA_PORT_GBPS=40"});
  std::vector<ModelConfiguration> models = {parse_model_configuration("path = 'tiny'", "a.cfg")};
  const std::string text =
      dump_configuration(command, models, {"cpu", "this build has no cuda backend"}, {"mpi", ""});
  const auto line_of = [&](const std::string& key) {
    const std::size_t start = text.find("\n" + key + " = ") + 1;
    return text.substr(start, text.find('\n', start) - start);
  };
  EXPECT_EQ(line_of("order"), "order = \"exact\"                                 # flag --order");
  EXPECT_EQ(line_of("port_gbps"),
            "port_gbps = 40.0                                # variable AURORA_PORT_GBPS");
  EXPECT_NE(line_of("schedule").find("# default"), std::string::npos);
  EXPECT_NE(line_of("backend").find("\"cpu\""), std::string::npos);
  EXPECT_NE(line_of("backend").find("# default, auto: this build has no cuda backend"), std::string::npos);
  EXPECT_NE(line_of("path").find("# file"), std::string::npos);
  EXPECT_NE(line_of("kv_cache_mb").find("# default"), std::string::npos);
}

WorkerStreamsTerms overlapping_terms() {
  return {.wanted = "auto",
          .backend = "cpu",
          .transport = "mpi",
          .schedule = Schedule::kColocated,
          .num_models = 2,
          .num_ranks = 4,
          .num_local_ranks = 2,
          .num_cores = 4};
}

TEST(WorkerStreams, AreTakenWhereSomethingOverlapsAndCoresAreFree) {
  EXPECT_EQ(resolve_worker_streams(overlapping_terms()).name, "on");
  WorkerStreamsTerms terms = overlapping_terms();
  terms.schedule = Schedule::kTwoBatch;
  terms.num_models = 1;
  EXPECT_EQ(resolve_worker_streams(terms).name, "on") << "a model overlaps with itself";
}

TEST(WorkerStreams, AreLeftOutWithAReasonWhereTheyGainNothing) {
  const auto reason_after = [](const auto& change) {
    WorkerStreamsTerms terms = overlapping_terms();
    change(terms);
    const Resolved resolved = resolve_worker_streams(terms);
    EXPECT_EQ(resolved.name, "off");
    return resolved.why;
  };
  EXPECT_NE(reason_after([](auto& terms) { terms.num_models = 1; }), "");
  EXPECT_NE(reason_after([](auto& terms) { terms.schedule = Schedule::kSerial; }), "");
  EXPECT_NE(reason_after([](auto& terms) { terms.schedule = Schedule::kExclusive; }), "");
  EXPECT_NE(reason_after([](auto& terms) { terms.num_ranks = 1; }), "");
  EXPECT_NE(reason_after([](auto& terms) { terms.transport = "threads"; }), "");
  EXPECT_NE(reason_after([](auto& terms) { terms.num_cores = 3; }).find("3 cores"), std::string::npos);
}

TEST(WorkerStreams, AreAsAskedForAndRefusedOnGpus) {
  WorkerStreamsTerms terms = overlapping_terms();
  terms.num_cores = 1;
  terms.wanted = "on";
  EXPECT_EQ(resolve_worker_streams(terms).name, "on");
  EXPECT_EQ(resolve_worker_streams(terms).why, "");
  terms.backend = "cuda";
  EXPECT_THROW(resolve_worker_streams(terms), Error);
  terms.wanted = "auto";
  EXPECT_EQ(resolve_worker_streams(terms).name, "off");
}

}  // namespace
}  // namespace aurora
