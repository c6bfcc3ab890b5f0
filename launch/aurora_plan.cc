// aurora-plan: plans without a running server. `order` compares transmission orders of one exchange, `place`
// plans and compares placements, `import` turns published routing data into traffic files.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <functional>

#include "launch/build_stamp.h"
#include "launch/plan_commands.h"

namespace {

constexpr int kExitDone = 0;
constexpr int kExitFailed = 1;

void add_order(CLI::App& app, aurora::PlanOrderOptions& options) {
  CLI::App* order = app.add_subcommand("order", "compare transmission orders of one exchange");
  order->add_option("--matrix", options.matrix, "traffic matrix: white space, bytes, row = sender")
      ->required();
  auto* ports =
      order->add_option("--ports", options.ports_gbps, "port of each GPU, 10^9 bit/s, separated by commas");
  ports->delimiter(',');
  order->add_option("--cluster", options.cluster, "take the ports from this cluster file")->excludes(ports);
  order->add_option("--policy", options.policy, "name of a policy, or all")->capture_default_str();
  order->add_option("--max-rounds", options.max_rounds, "most rounds that aurora may use; 0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  order->add_option("--round-cost-us", options.round_cost_us, "start-up of a round, weighed by aurora")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  order->add_flag("--json", options.is_json, "JSON instead of a table");
}

void add_place(CLI::App& app, aurora::PlanPlaceOptions& options) {
  CLI::App* place = app.add_subcommand("place", "plan where experts live");
  place->add_option("--cluster", options.cluster, "cluster file")->required();
  place->add_option("--traffic", options.traffic, "traffic file of each model, separated by commas")
      ->required()
      ->delimiter(',');
  place
      ->add_option("--evaluate", options.evaluate,
                   "judge the plans by these traffic files of the same models, and show their regret")
      ->delimiter(',');
  place->add_option("--placement", options.placement, "placement policy")->capture_default_str();
  place
      ->add_option("--replicas", options.num_replicas,
                   "copies beyond one of each expert, per model and layer")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  place->add_option("--seed", options.seed, "seed of searches and random placements")->capture_default_str();
  place->add_option("--out", options.out, "write the plan to this file");
  place->add_option("--trace", options.trace, "write the plan's predicted timeline as a Chrome trace");
  place->add_flag("--compare", options.is_comparing,
                  "show all placement policies, and brute force where feasible");
  place->add_flag("--json", options.is_json, "JSON instead of a table");
}

void add_import(CLI::App& app, aurora::PlanImportOptions& options) {
  CLI::App* import = app.add_subcommand("import", "turn published routing data into a traffic file");
  import->add_option("data", options.data, "routing record or expert popularity counts, JSON")->required();
  import->add_option("--out", options.out, "traffic file; missing: standard output");
  import->add_option("--model", options.model, "name of the model; missing: as the data say");
  import->add_option("--gpus", options.num_gpus, "sources that the tokens are dealt to")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  import->add_option("--top-k", options.top_k, "experts per token, of popularity counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  import->add_option("--samples", options.max_samples, "expert sets kept per layer and source")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  const auto quantity = [&](const char* flag, double& value, const char* doc) {
    import->add_option(flag, value, doc)->check(CLI::NonNegativeNumber)->capture_default_str();
  };
  quantity("--dispatch-bytes", options.dispatch_bytes_per_token,
           "bytes of a token on its way to an expert's GPU");
  quantity("--combine-bytes", options.combine_bytes_per_token, "bytes of a token on its way back");
  quantity("--expert-bytes", options.expert_bytes, "weights of one expert");
  quantity("--attention-us", options.attention_us, "attention, microseconds per token on a GPU of compute 1");
  quantity("--gate-us", options.gate_us, "gate, microseconds per token");
  quantity("--expert-us-per-token", options.expert_us_per_token, "expert, microseconds per token");
  quantity("--expert-us-per-hit", options.expert_us_per_hit, "expert, microseconds once if it has any token");
  quantity("--aggregate-us", options.aggregate_us, "aggregation, microseconds per token");
}

int run(int argc, char** argv) {
  CLI::App app("Plans exchanges and placements of mixture-of-experts models.", "aurora-plan");
  app.set_version_flag("--version", std::string("aurora-plan ") + aurora::kVersion + " (commit " +
                                        aurora::kCommit + ", " + aurora::kCompiler + ", " +
                                        aurora::kBuildType + ")");
  app.require_subcommand(1);
  aurora::PlanOrderOptions order;
  aurora::PlanPlaceOptions place;
  aurora::PlanImportOptions import;
  add_order(app, order);
  add_place(app, place);
  add_import(app, import);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Also --help and --version, which it prints with code 0.
    return app.exit(error) == 0 ? kExitDone : kExitFailed;
  }
  std::string text;
  if (app.got_subcommand("order")) text = aurora::plan_order_command(order);
  if (app.got_subcommand("place")) text = aurora::plan_place_command(place);
  if (app.got_subcommand("import")) text = aurora::plan_import_command(import);
  std::fputs(text.c_str(), stdout);
  return std::fflush(stdout) == 0 ? kExitDone : kExitFailed;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "aurora-plan: %s\n", error.what());
    return kExitFailed;
  }
}
