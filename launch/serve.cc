#include "launch/serve.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <thread>

#include "kernels/backend_registry.h"
#include "kernels/error.h"
#include "launch/batch_io.h"
#include "launch/exit_deadline.h"
#include "launch/interrupt.h"
#include "launch/logging.h"
#include "launch/plan_table.h"
#include "launch/progress.h"
#include "launch/rank_transport.h"
#include "launch/report.h"
#include "runtime/agreement.h"
#include "runtime/plan_io/plan_file.h"
#include "runtime/plan_io/traffic_file.h"

namespace aurora {
namespace {

/// How long a rank that has said why it failed may take to give its memory back: a GPU that does not end its
/// work lets nothing go.
constexpr std::chrono::seconds kTeardownTime(10);

/// Files that rank 0 writes after the run, opened before it so that an unwritable one costs no work.
struct Outputs {
  std::unique_ptr<BatchFeed> feed;
  std::unique_ptr<OutputFile> report;
  std::unique_ptr<OutputFile> trace;
  std::vector<std::unique_ptr<OutputFile>> traffic;  // [model]
  std::unique_ptr<OutputFile> plan;
};

/// What a rank knows once configured.
struct Setup {
  std::vector<ModelConfiguration> models;
  Resolved backend;
  EngineOptions engine;
  Outputs outputs;  // rank 0's
};

/// A rank at work. It outlives a failure, so that the cause is told before the memory is given back.
struct Serving {
  Setup setup;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Engine> engine;
};

std::vector<std::string> model_names(const std::vector<ModelConfiguration>& models) {
  std::vector<std::string> names;
  for (const ModelConfiguration& model : models) names.push_back(model.options.name);
  return names;
}

std::unique_ptr<OutputFile> open_output(const std::filesystem::path& path) {
  return path.empty() ? nullptr : std::make_unique<OutputFile>(path);
}

void open_outputs(const ServeOptions& options, Setup& setup) {
  if (options.check) {
    // Answers go nowhere: the lines are judged, and what would be written must be writable.
    for (const auto& path : {options.output, options.report, options.trace, options.record_traffic,
                             options.plan_out, options.record_routing}) {
      if (!path.empty()) check_writable(path);
    }
    if (!options.prompts.empty()) {
      setup.outputs.feed =
          std::make_unique<BatchFeed>(BatchOptions{options.prompts, "/dev/null", model_names(setup.models)});
    }
    return;
  }
  if (!options.record_routing.empty()) check_writable(options.record_routing);
  setup.outputs.report = open_output(options.report);
  setup.outputs.trace = open_output(options.trace);
  for (const ModelConfiguration& model : setup.models) {
    if (options.record_traffic.empty()) break;
    const auto path = path_for_model(options.record_traffic, model.options.name, setup.models.size());
    setup.outputs.traffic.push_back(open_output(path));
  }
  setup.outputs.plan = open_output(options.plan_out);
  setup.outputs.feed =
      std::make_unique<BatchFeed>(BatchOptions{options.prompts, options.output, model_names(setup.models)});
}

Setup configured(const CommandLine& command, int rank) {
  const ServeOptions& options = command.options;
  Setup setup;
  setup.backend = resolve_backend(options.backend, offered_backends());
  for (const std::string& file : options.models) setup.models.push_back(read_model_configuration(file));
  check_distinct_names(setup.models);
  apply_overrides(command.overrides, setup.models);
  apply_backend_defaults(setup.backend.name, setup.models);
  setup.engine = engine_options(options, setup.models);
  if (!options.plan.empty() && source_of(command.sources, "order") == SettingSource::kDefault) {
    setup.engine.order = read_plan_file(options.plan).order_policy;
  }
  if (rank == 0 && !options.dump_config) open_outputs(options, setup);
  return setup;
}

void log_choices(const CommandLine& command, const Setup& setup, const Resolved& transport, int num_ranks) {
  for (const std::string& warning : command.unknown_variables) spdlog::warn("{}", warning);
  if (!setup.backend.why.empty())
    spdlog::info("backend auto: {} ({})", setup.backend.name, setup.backend.why);
  if (!transport.why.empty()) spdlog::info("transport auto: {} ({})", transport.name, transport.why);
  spdlog::info("{}; {} ranks", version_line(), num_ranks);
  for (const ModelConfiguration& model : setup.models) {
    spdlog::info("model {} from {}", model.options.name, model.options.checkpoint.string());
  }
}

RunStamp run_stamp(const CommandLine& command, const Setup& setup, const Resolved& transport,
                   const DeploymentPlan& plan) {
  const ServeOptions& options = command.options;
  return {.started = utc_now(),
          .backend = setup.backend.name,
          .processor = processor_name(),
          .num_cores = static_cast<int>(std::thread::hardware_concurrency()),
          .transport = transport.name,
          .placement = plan.placement_policy,
          .order = std::string(order_policy_name(setup.engine.order)),
          .schedule = std::string(schedule_name(options.schedule)),
          .wire_dtype = wire_dtype_name(options.wire_dtype),
          .deterministic = options.deterministic};
}

std::vector<PlannedModel> planned_models(const Setup& setup) {
  std::vector<PlannedModel> models;
  for (const ModelOptions& options : setup.engine.models) {
    PlannedModel model{options, read_model_config(options.checkpoint), {}};
    if (!options.traffic.empty()) {
      for (const LayerTraffic& layer : read_traffic_file(options.traffic).layers) {
        std::vector<double>& tokens = model.expert_tokens.emplace_back();
        for (const std::vector<double>& row : layer.dispatch) {
          tokens.resize(std::max(tokens.size(), row.size()), 0.0);
          for (std::size_t expert = 0; expert < row.size(); ++expert) tokens[expert] += row[expert];
        }
      }
    }
    models.push_back(std::move(model));
  }
  return models;
}

void write_whole(std::unique_ptr<OutputFile>& file, const std::string& text) {
  if (file == nullptr) return;
  file->write(text);
  file->commit();
}

/// Rank 0, with --check: the lines of the prompts file, and the plan.
int print_check(Setup& setup, const DeploymentPlan& plan) {
  std::fputs(plan_table(plan, planned_models(setup), setup.engine.wire_dtype).c_str(), stdout);
  std::fflush(stdout);
  BatchFeed* feed = setup.outputs.feed.get();
  if (feed == nullptr) return kExitAnswered;
  while (!feed->is_exhausted() && interrupting_signal() == 0) feed->take(SIZE_MAX);
  const BatchProgress& progress = feed->progress();
  if (progress.num_failed == 0) {
    spdlog::info("{} prompts are well-formed", progress.num_prompts);
    return kExitAnswered;
  }
  spdlog::error("{} of {} prompts would be refused; the first: {}", progress.num_failed, progress.num_prompts,
                progress.first_failure);
  return kExitSomeFailed;
}

/// Rank 0, after a run that went well.
int write_outputs(const CommandLine& command, Setup& setup, const Engine& engine, const RunStamp& stamp) {
  Outputs& outputs = setup.outputs;
  const BatchProgress& progress = outputs.feed->progress();
  outputs.feed->commit();
  write_whole(outputs.report, report_json(engine.report(), progress, stamp));
  if (outputs.trace != nullptr) write_whole(outputs.trace, engine.trace_json());
  if (!outputs.traffic.empty()) {
    const std::vector<ModelTraffic> traffic = engine.traffic();
    check(traffic.size() == outputs.traffic.size(), "the engine recorded every model's traffic");
    for (std::size_t i = 0; i < traffic.size(); ++i)
      write_whole(outputs.traffic[i], traffic_text(traffic[i]));
  }
  if (!command.options.quiet) {
    for (const std::string& line : report_summary(engine.report(), progress)) spdlog::info("{}", line);
  }
  return progress.num_failed > 0 ? kExitSomeFailed : kExitAnswered;
}

void start_engine(const CommandLine& command, const RankPlace& place, Transport& transport,
                  Serving& serving) {
  const ServeOptions& options = command.options;
  const Resolved& transport_choice = place.transport_choice;
  Setup& setup = serving.setup;
  const bool is_root = transport.rank() == 0;
  if (is_root) {
    setup.engine.replan.on_note = [](const ReplanNote& note) {
      spdlog::log(note.is_routine ? spdlog::level::debug : spdlog::level::info, "{}", note.line);
    };
  }
  const Resolved worker_streams =
      resolve_worker_streams({.wanted = options.worker_streams,
                              .backend = setup.backend.name,
                              .transport = transport_choice.name,
                              .schedule = options.schedule,
                              .num_models = setup.models.size(),
                              .num_ranks = transport.num_ranks(),
                              .num_local_ranks = place.num_local_ranks,
                              .num_cores = static_cast<int>(std::thread::hardware_concurrency())});
  if (is_root && !worker_streams.why.empty()) {
    spdlog::info("worker streams auto: {} ({})", worker_streams.name, worker_streams.why);
  }
  serving.backend = create_backend(setup.backend.name,
                                   {.deterministic = options.deterministic,
                                    .worker_streams = worker_streams.name == "on",
                                    .graphs = setup.backend.name == "cuda" && options.cuda_graphs == "on",
                                    .device = place.device});
  serving.engine = std::make_unique<Engine>(setup.engine, transport, *serving.backend);
}

int serve(const CommandLine& command, const RankPlace& place, Transport& transport, Serving& serving) {
  Setup& setup = serving.setup;
  const Resolved& transport_choice = place.transport_choice;
  const ServeOptions& options = command.options;
  const bool is_root = transport.rank() == 0;
  agree(transport, engine_options(options, {}).timeout, "configuration",
        [&] { setup = configured(command, transport.rank()); });
  if (options.dump_config) {
    if (is_root) {
      std::fputs(dump_configuration(command, setup.models, setup.backend, transport_choice).c_str(), stdout);
    }
    return kExitAnswered;
  }
  if (is_root) log_choices(command, setup, transport_choice, transport.num_ranks());
  start_engine(command, place, transport, serving);
  Engine& engine = *serving.engine;
  int exit_code = kExitAnswered;
  if (options.check) {
    agree(transport, setup.engine.timeout, "check", [&] {
      if (is_root) exit_code = print_check(setup, engine.plan());
    });
    return exit_code;
  }
  const RunStamp stamp = run_stamp(command, setup, transport_choice, engine.plan());
  std::optional<ProgressDisplay> display;
  if (is_root) {
    write_whole(setup.outputs.plan, plan_text(engine.plan()));
    spdlog::info("ready: placement {}, order {}", engine.plan().placement_policy, stamp.order);
    if (!options.quiet) display.emplace(isatty(STDERR_FILENO) != 0);
    setup.outputs.feed->observe([&](const BatchProgress& progress) {
      if (display) display->update(progress);
    });
  }
  engine.run(setup.outputs.feed.get());
  display.reset();
  agree(transport, setup.engine.timeout, "outputs", [&] {
    if (is_root) exit_code = write_outputs(command, setup, engine, stamp);
  });
  return exit_code;
}

/// True for the first of the ranks of this process that has something to say.
bool is_first_to_report() {
  static std::atomic<bool> is_reported = false;
  return !is_reported.exchange(true);
}

/// What remains of "rank 2 failed: rank 0: no such file" without who passed it on: "rank 0: no such file".
std::string without_messengers(std::string text) {
  constexpr std::string_view kRank = "rank ";
  constexpr std::string_view kFailed = " failed: ";
  while (text.rfind(kRank, 0) == 0) {
    const std::size_t digits_end = text.find_first_not_of("0123456789", kRank.size());
    if (digits_end == std::string::npos || text.compare(digits_end, kFailed.size(), kFailed) != 0) break;
    text.erase(0, digits_end + kFailed.size());
  }
  return text;
}

/// Logs the failure on the rank that has the cause, and on no other. A cause that the ranks agreed upon names
/// its rank, and may come back to it as the abort of a rank that heard of it first.
void report_failure(const Error& error, int rank) {
  std::string text = without_messengers(error.what());
  const std::string own_prefix = "rank " + std::to_string(rank) + ": ";
  const bool names_us = text.rfind(own_prefix, 0) == 0;
  if (names_us) text.erase(0, own_prefix.size());  // the log line has it
  // An interruption has no culprit among the ranks: rank 0 speaks for all.
  const bool is_interruption = text.find("interrupted by SIG") != std::string::npos;
  const bool is_ours = is_interruption ? rank == 0 : names_us || error.kind() != ErrorKind::kAborted;
  if (is_ours && is_first_to_report()) {
    spdlog::error("{}", text);
  } else {
    spdlog::debug("{}", text);
  }
}

Error error_of(const std::exception& failure) {
  if (const auto* error = dynamic_cast<const Error*>(&failure)) return *error;
  if (dynamic_cast<const std::bad_alloc*>(&failure) != nullptr) {
    return Error(ErrorKind::kOutOfMemory, "out of host memory");
  }
  return Error(ErrorKind::kInternal, failure.what());
}

/// Tells the other ranks unless they have told us, and logs the cause on the rank that has it.
void spread_failure(Error failure, RankTransport& transport) {
  // Who only heard of a failure adds no noise: the rank that has the cause may not have learnt yet that it
  // has it.
  if (failure.kind() != ErrorKind::kAborted || interrupting_signal() != 0) transport.abort(failure.what());
  if (transport.earlier_abort()) failure = Error(ErrorKind::kAborted, *transport.earlier_abort());
  report_failure(failure, transport.rank());
}

int failed_exit_code() {
  const int signal = interrupting_signal();
  return signal != 0 ? 128 + signal : static_cast<int>(kExitFailed);
}

}  // namespace

int serve_rank(const CommandLine& command, const RankPlace& place, Transport& transport) noexcept {
  set_log_rank(transport.rank());
  RankTransport rank_transport(transport);
  std::optional<ExitDeadline> teardown;
  Serving serving;
  try {
    return serve(command, place, rank_transport, serving);
  } catch (const std::exception& failure) {
    spread_failure(error_of(failure), rank_transport);
  }
  teardown.emplace(kTeardownTime, failed_exit_code());
  if (BatchFeed* feed = serving.setup.outputs.feed.get()) {
    const std::filesystem::path partial = feed->keep_partial();
    if (!partial.empty()) {
      spdlog::warn("{} answers are kept in {}", feed->progress().num_answered, partial.string());
    }
  }
  return failed_exit_code();
}

int fail_rank(const std::exception& failure, Transport& transport) noexcept {
  set_log_rank(transport.rank());
  RankTransport rank_transport(transport);
  spread_failure(error_of(failure), rank_transport);
  return failed_exit_code();
}

}  // namespace aurora
