// aurora-plan: plans without a running server. `order` compares transmission orders of one exchange, `place`
// plans and compares placements, `import` turns published routing data into traffic files.
#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/error.h"
#include "launch/build_stamp.h"
#include "launch/plan_commands.h"
#include "runtime/plan_io/nearest_name.h"

namespace {

constexpr int kExitDone = 0;
constexpr int kExitFailed = 1;

template <class Number>
std::optional<Number> number_of(std::string_view text) {
  Number number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// What a flag's value must be; anything else is refused by name and value.
CLI::Validator whole_number_from(std::int64_t low, std::int64_t high = std::numeric_limits<int>::max()) {
  const auto complaint = [low, high](const std::string& text) -> std::string {
    const auto number = number_of<std::int64_t>(text);
    if (number && *number >= low && *number <= high) return "";
    return "\"" + text + "\" is not a whole number from " + std::to_string(low) + " to " +
           std::to_string(high);
  };
  return {complaint, ""};
}

CLI::Validator finite_from_zero() {
  const auto complaint = [](const std::string& text) -> std::string {
    const auto number = number_of<double>(text);
    if (number && std::isfinite(*number) && *number >= 0) return "";
    return "\"" + text + "\" is not a finite number of at least 0";
  };
  return {complaint, ""};
}

/// Ports "100,50,...". Split here, since the parser drops empty words and with them a typing mistake.
std::vector<double> ports_of(const std::string& text) {
  std::vector<double> ports;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, end - at);
    const auto port = number_of<double>(word);
    if (!port || !std::isfinite(*port) || *port <= 0) {
      throw CLI::ValidationError("--ports", "port " + std::to_string(ports.size()) + " is \"" + word +
                                                "\"; it must be a finite number above 0, in 10^9 bit/s");
    }
    ports.push_back(*port);
    at = end + 1;
  }
  return ports;
}

void add_order(CLI::App& app, aurora::PlanOrderOptions& options) {
  CLI::App* order = app.add_subcommand("order", "compare transmission orders of one exchange");
  order->add_option("--matrix", options.matrix, "traffic matrix: white space, bytes, row = sender")
      ->required();
  auto* ports = order->add_option_function<std::string>(
      "--ports", [&](const std::string& text) { options.ports_gbps = ports_of(text); },
      "port of each GPU, 10^9 bit/s, separated by commas");
  order->add_option("--cluster", options.cluster, "take the ports from this cluster file")->excludes(ports);
  order->add_option("--policy", options.policy, "name of a policy, or all")->capture_default_str();
  order->add_option("--max-rounds", options.max_rounds, "most rounds that aurora may use; 0: no limit")
      ->check(whole_number_from(0))
      ->capture_default_str();
  order->add_option("--round-cost-us", options.round_cost_us, "start-up of a round, weighed by aurora")
      ->check(finite_from_zero())
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
      ->add_option(
          "--evaluate", options.evaluate,
          "judge the plans by these traffic files of the same models, and show their regret per layer "
          "against plans made from them")
      ->delimiter(',');
  place->add_option("--placement", options.placement, "placement policy")->capture_default_str();
  place
      ->add_option("--replicas", options.num_replicas,
                   "copies beyond one of each expert, per model and layer")
      ->check(whole_number_from(0))
      ->capture_default_str();
  place
      ->add_option("--robustness-price", options.robustness_price,
                   "part of the layer time that auto may give up to be safe on other traffic than recorded")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  place->add_option("--seed", options.seed, "seed of searches and random placements")
      ->check(whole_number_from(0, std::numeric_limits<std::int64_t>::max()))
      ->capture_default_str();
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
      ->check(whole_number_from(1))
      ->capture_default_str();
  import->add_option("--top-k", options.top_k, "experts per token, of popularity counts")
      ->check(whole_number_from(1))
      ->capture_default_str();
  import->add_option("--samples", options.max_samples, "expert sets kept per layer and source")
      ->check(whole_number_from(0))
      ->capture_default_str();
  const auto quantity = [&](const char* flag, double& value, const char* doc) {
    import->add_option(flag, value, doc)->check(finite_from_zero())->capture_default_str();
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

/// The parser's complaint; of an unknown word also which known one it may stand for.
std::string complaint_of(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<const CLI::App*> commands = app.get_subcommands(nullptr);
  const std::vector<CLI::App*> chosen = const_cast<CLI::App&>(app).get_subcommands();
  const CLI::App* command = chosen.empty() ? nullptr : chosen.front();
  for (const std::string& word : app.remaining(true)) {
    if (command == nullptr && word.rfind('-', 0) != 0) {
      std::vector<std::string> names;
      for (const CLI::App* known : commands) names.push_back(known->get_name());
      return "unknown command \"" + word + "\"" + aurora::suggest_name(word, names);
    }
    if (word.rfind("--", 0) != 0) continue;
    std::vector<std::string> names;
    for (const CLI::Option* option : (command == nullptr ? &app : command)->get_options()) {
      names.push_back(option->get_name());
    }
    return "unknown flag " + word + aurora::suggest_name(word.substr(0, word.find('=')), names);
  }
  return error.what();
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
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    throw aurora::Error(aurora::ErrorKind::kInvalidArgument, complaint_of(app, error));
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
