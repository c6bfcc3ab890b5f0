// aurora-bench: a command for each suite of suite.h, and `compare` for two runs of one.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <variant>
#include <vector>

#include "benchmarks/comparison.h"
#include "benchmarks/row.h"
#include "benchmarks/suite.h"
#include "kernels/error.h"
#include "launch/build_stamp.h"
#include "runtime/plan_io/text_file.h"

namespace {

namespace bench = aurora::bench;

constexpr int kExitDone = 0;
constexpr int kExitFailed = 1;

struct CompareOptions {
  std::string before;
  std::string after;
  double most_ratio = 1.1;
};

int run_suite(const bench::Suite& suite, const bench::SuiteOptions& options, bool is_json) {
  const bench::Stamp stamp = bench::stamp_now(options.seed);
  std::vector<bench::Row> rows;
  std::int64_t num_wrong = 0;
  suite.run(options, [&](const bench::Row& row) {
    const bench::Cell* wrong = row.find("wrong");
    aurora::check(wrong != nullptr && row.find("median") != nullptr,
                  "every row has a median and wrong results");
    num_wrong += std::get<std::int64_t>(*wrong);
    if (is_json) {
      std::fputs(bench::json_line(row, stamp).c_str(), stdout);
      std::fflush(stdout);
    }
    rows.push_back(row);
  });
  if (rows.empty()) {
    throw aurora::Error(aurora::ErrorKind::kInvalidArgument, "no row of suite " + std::string(suite.name) +
                                                                 " has \"" + options.only + "\" in its name");
  }
  if (!is_json) std::fputs(bench::table(rows, stamp).c_str(), stdout);
  return num_wrong == 0 ? kExitDone : kExitFailed;
}

int run_comparison(const CompareOptions& options) {
  const bench::Comparison comparison = bench::compare_runs(
      aurora::read_whole_file(options.before), aurora::read_whole_file(options.after), options.most_ratio);
  std::fputs(comparison.text.c_str(), stdout);
  return comparison.is_good ? kExitDone : kExitFailed;
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
  }
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
  for (const bench::Suite& suite : bench::all_suites()) {
    if (app.got_subcommand(suite.name)) return run_suite(suite, options, is_json);
  }
  return kExitFailed;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "aurora-bench: %s\n", error.what());
    return kExitFailed;
  }
}
