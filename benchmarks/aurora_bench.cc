// aurora-bench: a command for each suite of suite.h, `layer` for one device, `alltoall` and `colocation` for
// the ranks of a job, and `compare` for two runs of a suite.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <variant>
#include <vector>

#include "benchmarks/alltoall_suite.h"
#include "benchmarks/calibrate_suite.h"
#include "benchmarks/colocation_suite.h"
#include "benchmarks/comparison.h"
#include "benchmarks/layer_commands.h"
#include "benchmarks/layer_suite.h"
#include "benchmarks/mpi_run.h"
#include "benchmarks/row.h"
#include "benchmarks/suite.h"
#include "kernels/error.h"
#include "launch/build_stamp.h"
#include "launch/nccl_environment.h"
#include "launch/serve_options.h"
#include "runtime/plan_io/text_file.h"
#include "scheduler/order_policy.h"

namespace {

namespace bench = aurora::bench;

constexpr int kExitDone = 0;
constexpr int kExitFailed = 1;

struct CompareOptions {
  std::string before;
  std::string after;
  double most_ratio = 1.1;
};

/// Prints rows as they come or, without --json, in the end.
class RowPrinter {
 public:
  RowPrinter(std::uint64_t seed, bool is_json) : stamp_(bench::stamp_now(seed)), is_json_(is_json) {}

  void add(const bench::Row& row) {
    const bench::Cell* wrong = row.find("wrong");
    aurora::check(wrong != nullptr && row.find("median") != nullptr,
                  "every row has a median and wrong results");
    num_wrong_ += std::get<std::int64_t>(*wrong);
    if (is_json_) {
      std::fputs(bench::json_line(row, stamp_).c_str(), stdout);
      std::fflush(stdout);
    }
    rows_.push_back(row);
  }
  bool is_empty() const { return rows_.empty(); }
  int finish() const {
    if (!is_json_) std::fputs(bench::table(rows_, stamp_).c_str(), stdout);
    return num_wrong_ == 0 ? kExitDone : kExitFailed;
  }

 private:
  bench::Stamp stamp_;
  bool is_json_;
  std::vector<bench::Row> rows_;
  std::int64_t num_wrong_ = 0;
};

int run_suite(const bench::Suite& suite, const bench::SuiteOptions& options, bool is_json) {
  RowPrinter printer(options.seed, is_json);
  suite.run(options, [&](const bench::Row& row) { printer.add(row); });
  if (printer.is_empty()) {
    throw aurora::Error(aurora::ErrorKind::kInvalidArgument, "no row of suite " + std::string(suite.name) +
                                                                 " has \"" + options.only + "\" in its name");
  }
  return printer.finish();
}

int run_layer(const bench::LayerOptions& options, bool is_json) {
  RowPrinter printer(options.seed, is_json);
  bench::run_layer_suite(options, [&](const bench::Row& row) { printer.add(row); });
  return printer.finish();
}

int run_calibrate(const bench::CalibrateOptions& options, bool is_json) {
  RowPrinter printer(options.layer.seed, is_json);
  bench::run_calibrate_suite(options, [&](const bench::Row& row) { printer.add(row); });
  return printer.is_empty() ? kExitDone : printer.finish();  // rank 0 alone has rows
}

int run_alltoall(const bench::AlltoallOptions& options, bool is_json) {
  RowPrinter printer(options.seed, is_json);
  bench::run_alltoall_suite(options, [&](const bench::Row& row) { printer.add(row); });
  return printer.is_empty() ? kExitDone : printer.finish();  // rank 0 alone has rows
}

int run_colocation(const bench::ColocationOptions& options, bool is_json) {
  RowPrinter printer(options.seed, is_json);
  bench::run_colocation_suite(options, [&](const bench::Row& row) { printer.add(row); });
  return printer.is_empty() ? kExitDone : printer.finish();  // rank 0 alone has rows
}

int run_comparison(const CompareOptions& options) {
  const bench::Comparison comparison = bench::compare_runs(
      aurora::read_whole_file(options.before), aurora::read_whole_file(options.after), options.most_ratio);
  std::fputs(comparison.text.c_str(), stdout);
  return comparison.is_good ? kExitDone : kExitFailed;
}

CLI::App* add_alltoall(CLI::App& app, bench::AlltoallOptions& options, bool& is_json) {
  CLI::App* command = app.add_subcommand(
      "alltoall", "one exchange under every policy; start it with mpirun, a rank for each GPU");
  auto* matrix = command->add_option("--matrix", options.matrix, "file with the bytes between ranks");
  command->add_option("--family", options.families, "names of benchmarks/traffic/named_traffic.h, or all")
      ->delimiter(',')
      ->excludes(matrix);
  command
      ->add_option("--bytes-per-rank", options.bytes_per_rank,
                   "of the most loaded port, such as 256k,2m; default: a matrix as it is, families 2m")
      ->delimiter(',')
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber);
  command->add_option(
      "--matrices-out", options.matrices_out,
      "folder to write the matrices to, in bytes as --matrix reads them, for alltoall_peers.py");
  command->add_option("--policy", options.policies, "policies, or all")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--transport", options.transport)
      ->check(CLI::IsMember({"mpi", "nccl"}))
      ->capture_default_str();
  auto* cluster = command->add_option("--cluster", options.cluster, "cluster file with the ports");
  command->add_option("--ports", options.ports_gbps, "10^9 bit/s of each rank's port")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->excludes(cluster);
  command->add_option("--burst-bytes", options.burst_bytes, "that a shaped port lets pass at once")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::NonNegativeNumber);
  command->add_option("--fabric", options.fabric, "fabric file to predict by, instead of measuring");
  command->add_option("--fabric-out", options.fabric_out, "write what was measured to this fabric file");
  command->add_option("--round-cost-us", options.round_cost_us, "start-up of a round, weighed by aurora")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--repeats", options.repeats, "exchanges of each row that count")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--timeout", options.timeout_seconds, "seconds that one exchange may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--seed", options.seed, "seed of all random inputs")->capture_default_str();
  command->add_option("--routing", options.routing_folder, "folder of the recorded routing")
      ->capture_default_str();
  command->add_flag("--json", is_json, "JSON lines instead of the table");
  return command;
}

/// Where the ranks of a colocation run, and the network between them.
void add_colocation_network(CLI::App* command, bench::ColocationOptions& options) {
  command->add_option("--transport", options.transport)
      ->check(CLI::IsMember({"threads", "mpi", "nccl"}))
      ->capture_default_str();
  command->add_option("--ranks", options.num_ranks, "with --transport threads")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--ratio", options.ratios, "exchange over compute, by emulated ports; 0: no ports")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--ports", options.ports, "relative bandwidths of the ports, rank after rank")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--cluster", options.cluster,
                      "with mpi and nccl: cluster file with the ports of the network");
  command
      ->add_option_function<std::string>(
          "--order",
          [&options](const std::string& name) { options.order = *aurora::parse_order_policy(name); },
          "of the transfers of an exchange, for all variants; default aurora")
      ->check(CLI::IsMember(aurora::order_policy_names()));
  command->add_option("--fabric", options.fabric,
                      "fabric file for --order auto, instead of measuring at the start of each run");
}

CLI::App* add_colocation(CLI::App& app, bench::ColocationOptions& options, bool& is_json) {
  CLI::App* command =
      app.add_subcommand("colocation", "the four schedules and their rivals on the same requests");
  command->add_option("--models", options.models, "configuration files of the models")
      ->delimiter(',')
      ->capture_default_str();
  command
      ->add_option("--variant", options.variants,
                   "serial, colocated, two-batch, exclusive, lina, rec, rga, or all; serial always runs")
      ->delimiter(',')
      ->capture_default_str();
  command
      ->add_option("--assignments", options.num_assignments,
                   "so many random assignments of ranks to models besides, for exclusive and lina")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_colocation_network(command, options);
  command->add_option("--requests", options.num_requests, "of each model")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--prompt-tokens", options.prompt_tokens)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--max-tokens", options.max_tokens)->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--decode-steps", options.decode_steps, "as of aurora-serve")
      ->check(CLI::Range(std::int64_t{1}, aurora::kMostStepsOfTurn))
      ->capture_default_str();
  command->add_flag("--worker-streams", options.worker_streams, "compute beside the thread that exchanges");
  command->add_flag("--deterministic", options.deterministic,
                    "answers that no schedule changes, also on GPUs");
  command->add_option("--traces", options.traces, "folder for a trace of one more run of each variant")
      ->check(CLI::ExistingDirectory);
  command->add_option("--repeats", options.repeats)->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--timeout", options.timeout_seconds, "seconds that a rank waits for another")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--seed", options.seed, "seed of all random inputs")->capture_default_str();
  command->add_flag("--json", is_json, "JSON lines instead of the table");
  return command;
}

/// What mpirun has said of this process, if it started it.
aurora::LaunchedProcess this_process() {
  aurora::Environment lines;
  for (char** line = environ; *line != nullptr; ++line) lines.emplace_back(*line);
  return aurora::launched_process(lines);
}

int run(int argc, char** argv) {
  CLI::App app("Measures Aurora.", "aurora-bench");
  app.set_version_flag("--version",
                       std::string("aurora-bench ") + aurora::kVersion + " (commit " + aurora::kCommit + ")");
  app.require_subcommand(1);
  bench::SuiteOptions options;
  bool is_json = false;
  for (const bench::Suite& suite : bench::all_suites()) {
    CLI::App* command = app.add_subcommand(suite.name, suite.description);
    command->add_flag("--json", is_json, "JSON lines instead of the table");
    command->add_option("--only", options.only, "only rows with this in their name");
    command->add_option("--seconds", options.seconds, "warm calls of a row go on for this long")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command->add_option("--seed", options.seed, "seed of all random inputs")->capture_default_str();
    command->add_option("--routing", options.routing, "routing record of the rows on real routing")
        ->capture_default_str();
    command
        ->add_option("--later-routing", options.later_routing, "routing record that suite drift changes to")
        ->capture_default_str();
  }
  bench::AlltoallOptions alltoall_options;
  const CLI::App* alltoall = add_alltoall(app, alltoall_options, is_json);
  bench::LayerOptions layer_options;
  const CLI::App* layer = bench::add_layer(app, layer_options, is_json);
  bench::CalibrateOptions calibrate_options;
  calibrate_options.is_under_mpi = this_process().is_under_mpi;
  const CLI::App* calibrate = bench::add_calibrate(app, calibrate_options, is_json);
  bench::ColocationOptions colocation_options;
  const CLI::App* colocation = add_colocation(app, colocation_options, is_json);
  CompareOptions compare;
  CLI::App* command = app.add_subcommand("compare", "compares two runs; fails where the second is worse");
  command->add_option("before", compare.before, "JSON lines of the first run")->required();
  command->add_option("after", compare.after, "JSON lines of the second run")->required();
  command->add_option("--most-ratio", compare.most_ratio, "largest ratio of medians, after over before")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    throw aurora::Error(aurora::ErrorKind::kInvalidArgument, error.what());
  }
  if (command->parsed()) return run_comparison(compare);
  if (calibrate->parsed()) return run_calibrate(calibrate_options, is_json);
  if (layer->parsed()) return run_layer(layer_options, is_json);
  if (alltoall->parsed() && alltoall_options.matrix.empty() && alltoall_options.families.empty()) {
    throw aurora::Error(aurora::ErrorKind::kInvalidArgument, "alltoall needs --matrix or --family");
  }
  if (alltoall->parsed()) return run_alltoall(alltoall_options, is_json);
  if (colocation->parsed()) return run_colocation(colocation_options, is_json);
  for (const bench::Suite& suite : bench::all_suites()) {
    if (app.got_subcommand(suite.name)) return run_suite(suite, options, is_json);
  }
  return kExitFailed;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    aurora::set_cuda_environment(this_process().num_processes);
    return run(argc, argv);
  } catch (const bench::JobFailed&) {
    return kExitFailed;
  } catch (const std::exception& error) {
    // A rank that fails has told the others why.
    if (this_process().rank == 0) std::fprintf(stderr, "aurora-bench: %s\n", error.what());
    return kExitFailed;
  }
}
