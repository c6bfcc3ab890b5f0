#include "benchmarks/layer_suite.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>

#include "benchmarks/layer/layer_bench.h"
#include "benchmarks/layer/reference.h"
#include "kernels/error.h"
#include "runtime/plan_io/routing_record.h"

namespace aurora::bench {
namespace {

/// A part of the layer, and the bytes that it reads and writes at the least.
struct TimedStage {
  const char* name;
  double bytes;
  bool with_weights;
  RotatedLayer::Stage submit;
};

std::vector<TimedStage> stages_of(const LayerShape& shape, const LayerRouting& routing, DType dtype,
                                  const LayerFloors& floors, std::size_t row_bytes) {
  const auto tokens = static_cast<double>(routing.num_tokens);
  const auto pairs = static_cast<double>(routing.num_pairs());
  const auto hidden = static_cast<double>(shape.hidden);
  const auto element = static_cast<double>(dtype_bytes(dtype));
  const double word = 4;  // of a float32 or an int32
  const double header_bytes = 2 * word * pairs;
  const auto payload_bytes = tokens * static_cast<double>(row_bytes);
  using Weights = const ExpertBank&;
  return {
      {"route", word * tokens * static_cast<double>(shape.num_experts) + header_bytes, false,
       [](const LayerRun& run, Weights) { run.submit_route(); }},
      // Ids in; tokens and positions of pairs out.
      {"grouping", 3 * word * pairs + word * tokens, false,
       [](const LayerRun& run, Weights) { run.submit_grouping(); }},
      {"experts", floors.weight_bytes + tokens * hidden * element + pairs * hidden * element, true,
       [](const LayerRun& run, Weights weights) { run.submit_experts(weights); }},
      {"aggregation", pairs * hidden * element + 2 * tokens * hidden * word, false,
       [](const LayerRun& run, Weights) { run.submit_aggregation(); }},
      // Of a rank among several. Ids and weights in; headers, positions of pairs and rows out.
      {"assignment", 2 * header_bytes + word * pairs + 2 * word * tokens, false,
       [](const LayerRun& run, Weights) { run.submit_assignment(); }},
      {"packing", tokens * hidden * element + header_bytes + payload_bytes, false,
       [](const LayerRun& run, Weights) { run.submit_packing(); }},
      // Headers in; rows, positions and weights of pairs out.
      {"row-grouping", header_bytes + 3 * word * pairs + word * tokens, false,
       [](const LayerRun& run, Weights) { run.submit_row_grouping(); }},
      {"results", pairs * hidden * element + tokens * hidden * element, false,
       [](const LayerRun& run, Weights) { run.submit_results(); }},
      {"result-sum", tokens * hidden * (element + 2 * word), false,
       [](const LayerRun& run, Weights) { run.submit_result_sum(); }},
  };
}

std::int64_t num_changed(const std::vector<float>& before, const std::vector<float>& after) {
  std::int64_t changed = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    changed += std::memcmp(&before[i], &after[i], sizeof before[i]) != 0;
  }
  return changed;
}

class LayerSuite {
 public:
  LayerSuite(const LayerOptions& options, const RowVisitor& visit)
      : options_(options), visit_(visit), device_(options) {
    if (options.routing != "uniform") record_ = read_routing_record(options.routing);
    copy_gbps_ = device_.copy_gbps(options.rotate_bytes);
    ceilings_ = ceilings();
    device_name_ = device_.backend().memory().name;
    device_name_.erase(std::min(device_name_.find(" GPU-"), device_name_.size()));  // which one of several
  }

  void run() {
    const std::vector<LayerShape> shapes = parse_layer_shapes(options_.shapes);
    if (record_) refuse_foreign_record(shapes);
    std::fprintf(stderr, "ceilings: %.4g TFLOP/s, %.4g TB/s (%s); a copy moves %.4g GB/s\n", ceilings_.tflops,
                 ceilings_.terabytes_per_s, ceilings_.source.c_str(), copy_gbps_);
    for (const LayerShape& shape : shapes) {
      LayerInputs inputs(device_, shape, options_.seed);
      for (const std::int64_t tokens : options_.tokens) measure(inputs, tokens);
    }
  }

 private:
  DeviceCeilings ceilings();
  void refuse_foreign_record(const std::vector<LayerShape>& shapes) const;
  LayerRouting routing_of(const LayerShape& shape, std::int64_t tokens) const;
  void measure(LayerInputs& inputs, std::int64_t tokens);
  void measure_stages(RotatedLayer& layer, const std::vector<TimedStage>& stages, const std::string& name,
                      std::int64_t num_wrong);
  void tell_why_no_graph();

  const LayerOptions& options_;
  const RowVisitor& visit_;
  LayerDevice device_;
  std::optional<RoutingRecord> record_;
  double copy_gbps_ = 0;
  DeviceCeilings ceilings_;
  std::string device_name_;  // empty on a CPU
  std::string told_;
};

DeviceCeilings LayerSuite::ceilings() {
  DeviceCeilings found;
  if (device_.dtype() == DType::kBFloat16) {
    const DeviceCeilings* known = find_ceilings(device_.backend().memory().name);
    if (known != nullptr) found = *known;
  }
  if (found.source.empty()) {
    found.source = "measured in this run";
    found.tile_rows = device_.backend().name() == "cpu" ? 1 : kGpuTileRows;
  }
  if (options_.peak_tflops > 0 && options_.peak_terabytes_per_s > 0) {
    found.source = "as given";
  } else if (options_.peak_tflops > 0 || options_.peak_terabytes_per_s > 0) {
    found.source += ", one of them as given";
  }
  if (options_.peak_tflops > 0) found.tflops = options_.peak_tflops;
  if (options_.peak_terabytes_per_s > 0) found.terabytes_per_s = options_.peak_terabytes_per_s;
  if (found.tflops == 0) found.tflops = device_.product_tflops();
  if (found.terabytes_per_s == 0) found.terabytes_per_s = copy_gbps_ * 1e-3;
  return found;
}

void LayerSuite::refuse_foreign_record(const std::vector<LayerShape>& shapes) const {
  for (const LayerShape& shape : shapes) {
    if (fits(*record_, shape)) return;
  }
  throw Error(ErrorKind::kInvalidArgument, options_.routing + ": its tokens choose " +
                                               std::to_string(record_->top_k) + " of " +
                                               std::to_string(record_->num_experts) +
                                               " experts, which no chosen shape does; use --routing uniform");
}

LayerRouting LayerSuite::routing_of(const LayerShape& shape, std::int64_t tokens) const {
  if (!record_ || !fits(*record_, shape)) return uniform_routing(shape, tokens, options_.seed);
  LayerRouting routing = replayed_routing(*record_, tokens);
  routing.name = std::filesystem::path(options_.routing).stem().string();
  return routing;
}

void LayerSuite::measure(LayerInputs& inputs, std::int64_t tokens) {
  const LayerShape& shape = inputs.shape();
  const LayerRouting routing = routing_of(shape, tokens);
  const LayerFloors floors =
      layer_floors(shape, tokens, routing.pairs_by_expert(shape.num_experts), device_.dtype(), ceilings_);
  RotatedLayer layer(device_, inputs, routing);
  layer.reserve(floors.bytes, options_.rotate_bytes, true);
  layer.check_routing();
  const std::vector<float> output = layer.output_once();
  std::int64_t num_checked = 0;
  const std::int64_t num_wrong = count_wrong_elements({.shape = shape,
                                                       .routing = routing,
                                                       .dtype = device_.dtype(),
                                                       .weights = inputs.weights(),
                                                       .hidden = inputs.hidden(),
                                                       .logits = layer.logits()},
                                                      output, options_.check_tokens, num_checked);
  const Timing timing =
      layer.time([](const LayerRun& run, const ExpertBank& weights) { run.submit(weights); });
  tell_why_no_graph();
  const std::size_t num_copies = layer.num_turns();
  const std::string name = shape.name + " " + std::to_string(tokens) + " " + routing.name;
  Row row("layer", name + " aurora");
  row.set("median", timing.us.median).set("p10", timing.us.p10).set("p90", timing.us.p90);
  row.set("raw_floor", floors.raw_us).set("of_raw", timing.us.median / floors.raw_us);
  row.set("%raw", 100 * floors.raw_us / timing.us.median);
  row.set("floor", floors.attainable_us).set("of_floor", timing.us.median / floors.attainable_us);
  row.set("%floor", 100 * floors.attainable_us / timing.us.median);
  row.set("tflops", floors.flop / timing.us.median * 1e-6)
      .set("gbps", floors.bytes / timing.us.median * 1e-3);
  row.set("hit", floors.num_hit).set("copies", static_cast<std::int64_t>(num_copies));
  row.set("graph", std::string(timing.is_graph ? "yes" : "no"));
  row.set("dtype", std::string(dtype_name(device_.dtype())));
  if (!device_name_.empty()) row.set("device", device_name_);
  row.set("checked", num_checked).set("changed", num_changed(output, layer.output_once()));
  visit_(row.set("wrong", num_wrong));
  if (!options_.stages) return;
  measure_stages(layer, stages_of(shape, routing, device_.dtype(), floors, layer.first().row_bytes()), name,
                 num_wrong);
}

void LayerSuite::measure_stages(RotatedLayer& layer, const std::vector<TimedStage>& stages,
                                const std::string& name, std::int64_t num_wrong) {
  for (const TimedStage& stage : stages) {
    layer.reserve(stage.bytes, options_.rotate_bytes, stage.with_weights);
    const Timing timing = layer.time(stage.submit);
    const double gbps = stage.bytes / timing.us.median * 1e-3;
    Row row("layer", name + " " + stage.name);
    row.set("median", timing.us.median).set("p10", timing.us.p10).set("p90", timing.us.p90);
    row.set("bytes", static_cast<std::int64_t>(stage.bytes)).set("gbps", gbps);
    row.set("%copy", 100 * gbps / copy_gbps_);
    row.set("copies", static_cast<std::int64_t>(layer.num_turns()));
    row.set("graph", std::string(timing.is_graph ? "yes" : "no"));
    visit_(row.set("wrong", num_wrong));  // of the layer that the stages make up
  }
}

void LayerSuite::tell_why_no_graph() {
  const std::string& why = device_.timer().why_no_graph();
  if (why.empty() || why == told_) return;
  told_ = why;
  std::fprintf(stderr, "not recorded as a graph, submitted piece by piece: %s\n", why.c_str());
}

}  // namespace

void run_layer_suite(const LayerOptions& options, const RowVisitor& visit) {
  LayerSuite(options, visit).run();
}

}  // namespace aurora::bench
