#include "benchmarks/layer_commands.h"

#include <CLI/CLI.hpp>

namespace aurora::bench {
namespace {

/// What both commands measure layers with.
void add_device_options(CLI::App& command, LayerOptions& options, bool& is_json) {
  command.add_option("--backend", options.backend, "cpu or cuda")->capture_default_str();
  command.add_option("--device", options.device, "which GPU of those that are visible")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--dtype", options.dtype, "of weights and activations; default: bfloat16, on CPUs float32")
      ->check(CLI::IsMember({"bfloat16", "float32"}));
  command.add_option("--threads", options.num_threads, "of the CPU's BLAS library")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_flag("!--no-graphs", options.graphs, "submit piece by piece, as where work cannot be recorded");
  command.add_option("--seconds", options.seconds, "samples of a row are taken for this long")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--timeout", options.timeout_seconds, "seconds that one sample may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--rotate-bytes", options.rotate_bytes,
                  "as many runs in turn as touch this much, such as 400m; more than the caches hold")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--check-tokens", options.check_tokens, "of each row, compared with float64")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--seed", options.seed, "seed of all random inputs")->capture_default_str();
  command.add_flag("--json", is_json, "JSON lines instead of the table");
}

}  // namespace

CLI::App* add_layer(CLI::App& app, LayerOptions& options, bool& is_json) {
  CLI::App* command = app.add_subcommand("layer", "one MoE layer on one rank, beside what the device allows");
  command
      ->add_option("--shape", options.shapes,
                   "mixtral-8x7b, qwen3-30b-a3b, olmoe-1b-7b, deepseek-v2-lite, all, or experts, top-k, "
                   "hidden and inner as in 8x2x64x32")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--tokens", options.tokens, "sizes of the batch")
      ->delimiter(',')
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  command
      ->add_option("--routing", options.routing,
                   "uniform, or a routing record for the shapes that it fits (the others are uniform)")
      ->capture_default_str();
  command->add_flag("--stages", options.stages, "each stage alone too");
  command
      ->add_option("--peak-tflops", options.peak_tflops,
                   "ceiling for the floors; default: known by the GPU's name, else measured")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--peak-tbps", options.peak_terabytes_per_s,
                   "10^12 bytes per second; default: known by the GPU's name, else measured")
      ->check(CLI::PositiveNumber);
  add_device_options(*command, options, is_json);
  return command;
}

CLI::App* add_calibrate(CLI::App& app, CalibrateOptions& options, bool& is_json) {
  CLI::App* command = app.add_subcommand(
      "calibrate",
      "fits a layer's costs and, started by mpirun, measures ports: for traffic and cluster files");
  command->add_option("--shape", options.layer.shapes, "one shape, as layer takes it")
      ->required()
      ->expected(1);
  command->add_option("--hit", options.hit, "numbers of experts hit; default: an eighth up to all")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  command->add_option("--rows", options.rows, "of each expert hit; those that are served fit best")
      ->delimiter(',')
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  auto* traffic = command->add_option("--traffic", options.traffic, "traffic file to put the costs into");
  auto* traffic_out =
      command->add_option("--traffic-out", options.traffic_out, "where it goes with these costs");
  traffic->needs(traffic_out);
  traffic_out->needs(traffic);
  command->add_option("--cluster-out", options.cluster_out,
                      "cluster file with ports and compute of all ranks");
  command->add_option("--port-timeout", options.port_timeout_seconds, "seconds that all ports may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_device_options(*command, options.layer, is_json);
  return command;
}

}  // namespace aurora::bench
