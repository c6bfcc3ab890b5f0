#include "benchmarks/calibrate_suite.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "benchmarks/layer/layer_bench.h"
#include "benchmarks/layer/least_squares.h"
#include "benchmarks/layer/reference.h"
#include "benchmarks/mpi_run.h"
#include "benchmarks/port_measurement.h"
#include "benchmarks/sampling.h"
#include "kernels/error.h"
#include "launch/output_file.h"
#include "runtime/plan_io/cluster_file.h"
#include "runtime/plan_io/traffic_file.h"
#include "runtime/serialization.h"
#include "runtime/transport/mpi_session.h"
#include "runtime/transport/mpi_transport.h"
#include "runtime/transport/wait.h"

namespace aurora::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Weights = const ExpertBank&;

constexpr std::uint32_t kExchangeTag = 1;
constexpr std::uint32_t kControlTag = 2;
constexpr std::chrono::minutes kSlowestRank(10);  // that the others wait for

[[noreturn]] void refuse(const std::string& text) { throw Error(ErrorKind::kInvalidArgument, text); }

// ---- The layer

/// A batch of the grid and what it took.
struct Cell {
  std::int64_t num_hit = 0;
  std::int64_t rows = 0;  // of each expert hit
  std::int64_t num_tokens = 0;
  std::int64_t num_pairs = 0;
  Quantiles experts_us, gate_us, aggregation_us;
  std::int64_t num_wrong = 0;
};

/// The numbers of experts hit, each once, ascending.
std::vector<std::int64_t> chosen_hits(const CalibrateOptions& options, const LayerShape& shape) {
  std::set<std::int64_t> hits(options.hit.begin(), options.hit.end());
  if (hits.empty()) {
    for (const std::int64_t part : {8, 4, 2, 1}) hits.insert(std::max(shape.num_experts / part, shape.top_k));
  }
  for (const std::int64_t hit : hits) {
    if (hit >= shape.top_k && hit <= shape.num_experts) continue;
    refuse("--hit " + std::to_string(hit) + ": tokens of " + shape.name + " hit " +
           std::to_string(shape.top_k) + " to " + std::to_string(shape.num_experts) + " experts");
  }
  if (hits.size() < 2) refuse("--hit needs two numbers at least, or start-up and costs by expert are one");
  const std::set<std::int64_t> rows(options.rows.begin(), options.rows.end());
  if (rows.size() < 2) refuse("--rows needs two numbers at least, or costs by row and by expert are one");
  return {hits.begin(), hits.end()};
}

// As on a rank among several, which is what plans are for.
void submit_expert_side(const LayerRun& run, Weights weights) {
  run.submit_row_grouping();
  run.submit_experts(weights);
  run.submit_results();
}

void submit_token_side(const LayerRun& run, Weights) {
  run.submit_router();
  run.submit_route();
  run.submit_assignment();
  run.submit_packing();
}

Cell measure_cell(LayerDevice& device, LayerInputs& inputs, std::int64_t num_hit, std::int64_t rows,
                  const LayerOptions& options) {
  const LayerShape& shape = inputs.shape();
  const LayerRouting routing = even_routing(shape, num_hit, rows);
  // Bytes do not depend on the ceilings.
  const LayerFloors floors =
      layer_floors(shape, routing.num_tokens, routing.pairs_by_expert(shape.num_experts), device.dtype(),
                   {.tflops = 1, .terabytes_per_s = 1, .source = ""});
  RotatedLayer layer(device, inputs, routing);
  layer.reserve(floors.bytes, options.rotate_bytes, true);
  layer.check_routing();
  Cell cell{.num_hit = num_hit,
            .rows = rows,
            .num_tokens = routing.num_tokens,
            .num_pairs = routing.num_pairs(),
            .experts_us = {},
            .gate_us = {},
            .aggregation_us = {}};
  std::int64_t num_checked = 0;
  cell.num_wrong = count_wrong_elements({.shape = shape,
                                         .routing = routing,
                                         .dtype = device.dtype(),
                                         .weights = inputs.weights(),
                                         .hidden = inputs.hidden(),
                                         .logits = layer.logits()},
                                        layer.output_once(), options.check_tokens, num_checked);
  cell.experts_us = layer.time(submit_expert_side).us;
  cell.gate_us = layer.time(submit_token_side).us;
  cell.aggregation_us = layer.time([](const LayerRun& run, Weights) { run.submit_result_sum(); }).us;
  return cell;
}

std::vector<Cell> measure_cells(LayerDevice& device, const LayerShape& shape,
                                const CalibrateOptions& options) {
  LayerInputs inputs(device, shape, options.layer.seed);
  std::vector<Cell> cells;
  for (const std::int64_t hit : chosen_hits(options, shape)) {
    for (const std::int64_t rows : options.rows) {
      cells.push_back(measure_cell(device, inputs, hit, rows, options.layer));
    }
  }
  return cells;
}

/// Microseconds. Costs that grow with the number of tokens, and the start-up beside them.
struct LayerCosts {
  Fit experts;      // start-up, by expert hit, by row
  Fit gate;         // start-up, by token
  Fit aggregation;  // start-up, by token
};

LayerCosts fit_cells(const std::vector<Cell>& cells) {
  std::vector<std::vector<double>> by_rows, by_tokens;
  std::vector<double> experts_us, gate_us, aggregation_us;
  for (const Cell& cell : cells) {
    by_rows.push_back({1, static_cast<double>(cell.num_hit), static_cast<double>(cell.num_pairs)});
    by_tokens.push_back({1, static_cast<double>(cell.num_tokens)});
    experts_us.push_back(cell.experts_us.median);
    gate_us.push_back(cell.gate_us.median);
    aggregation_us.push_back(cell.aggregation_us.median);
  }
  return {fit_costs(by_rows, experts_us), fit_costs(by_tokens, gate_us),
          fit_costs(by_tokens, aggregation_us)};
}

void show_cells(const std::string& shape, const std::vector<Cell>& cells, const LayerCosts& costs,
                const RowVisitor& visit) {
  std::vector<double> off;
  std::int64_t num_wrong = 0;
  for (std::size_t index = 0; index < cells.size(); ++index) {
    const Cell& cell = cells[index];
    off.push_back(100 * std::fabs(costs.experts.off[index]));
    num_wrong += cell.num_wrong;
    Row row("calibrate", shape + " " + std::to_string(cell.num_hit) + "x" + std::to_string(cell.rows));
    row.set("hit", cell.num_hit).set("rows", cell.num_pairs).set("tokens", cell.num_tokens);
    row.set("median", cell.experts_us.median).set("p10", cell.experts_us.p10).set("p90", cell.experts_us.p90);
    row.set("predicted", cell.experts_us.median * (1 + costs.experts.off[index]));
    row.set("%off", 100 * costs.experts.off[index]);
    row.set("gate", cell.gate_us.median).set("aggregation", cell.aggregation_us.median);
    visit(row.set("wrong", cell.num_wrong));
  }
  Row fit("calibrate", shape + " fit");
  fit.set("median", quantiles_of(off).median).set("worst", *std::ranges::max_element(off));
  fit.set("start_us", costs.experts.coefficients[0]);
  fit.set("expert_us_per_hit", costs.experts.coefficients[1]);
  fit.set("expert_us_per_token", costs.experts.coefficients[2]);
  fit.set("gate_start_us", costs.gate.coefficients[0]).set("gate_us", costs.gate.coefficients[1]);
  fit.set("aggregate_start_us", costs.aggregation.coefficients[0]);
  fit.set("aggregate_us", costs.aggregation.coefficients[1]);
  visit(fit.set("wrong", num_wrong));
}

// ---- Files

/// The file to put costs into; none when no traffic is to be written.
std::optional<ModelTraffic> read_traffic(const CalibrateOptions& options, const LayerShape& shape) {
  if (options.traffic.empty() != options.traffic_out.empty()) {
    refuse("--traffic and --traffic-out go together: the costs of --traffic are replaced");
  }
  if (options.traffic.empty()) return std::nullopt;
  check_writable(options.traffic_out);
  ModelTraffic traffic = read_traffic_file(options.traffic);
  if (traffic.num_experts != shape.num_experts || traffic.top_k != shape.top_k) {
    refuse(options.traffic.string() + ": tokens choose " + std::to_string(traffic.top_k) + " of " +
           std::to_string(traffic.num_experts) + " experts, those of --shape " + shape.name + " " +
           std::to_string(shape.top_k) + " of " + std::to_string(shape.num_experts));
  }
  return traffic;
}

void write_file(const std::filesystem::path& path, const std::string& text) {
  OutputFile file(path);
  file.write(text);
  file.commit();
}

void write_traffic(ModelTraffic traffic, const LayerShape& shape, DType dtype, const LayerCosts& costs,
                   const std::filesystem::path& path) {
  const RowLayout layout(shape.hidden, dtype, static_cast<int>(shape.top_k));
  traffic.dispatch_bytes_per_token = static_cast<double>(layout.row_bytes());
  traffic.combine_bytes_per_token = static_cast<double>(layout.return_row_bytes());
  traffic.expert_bytes =
      static_cast<double>(shape.expert_elements()) * static_cast<double>(dtype_bytes(dtype));
  traffic.expert_us_per_hit = costs.experts.coefficients[1];
  traffic.expert_us_per_token = costs.experts.coefficients[2];
  traffic.gate_us = costs.gate.coefficients[1];
  traffic.aggregate_us = costs.aggregation.coefficients[1];
  write_file(path, traffic_text(traffic));
}

/// Three decimals: more than was measured.
double rounded(double value) { return std::max(std::round(value * 1e3) * 1e-3, 1e-3); }

/// `us_of_ranks`: of every rank, its cells' times.
ClusterSpec cluster_of(const std::vector<double>& ports,
                       const std::vector<std::vector<double>>& us_of_ranks) {
  ClusterSpec cluster;
  for (std::size_t rank = 0; rank < ports.size(); ++rank) {
    double sum = 0;
    for (std::size_t cell = 0; cell < us_of_ranks[rank].size(); ++cell) {
      sum += std::log(us_of_ranks.front()[cell] / us_of_ranks[rank][cell]);
    }
    ClusterGpu gpu;
    gpu.compute = rounded(std::exp(sum / static_cast<double>(us_of_ranks[rank].size())));
    gpu.port_gbps = rounded(ports[rank] / kBytesPerUsOfGbps);
    cluster.gpus.push_back(gpu);
    std::fprintf(stderr, "rank %zu: port %.4g Gbit/s each way, compute %.4g\n", rank, gpu.port_gbps,
                 gpu.compute);
  }
  return cluster;
}

// ---- The job

/// One rank among others, or alone when there is no transport.
struct Job {
  Transport* control = nullptr;  // host memory
  Transport* data = nullptr;     // what ports are measured with
  bool is_first() const { return control == nullptr || control->rank() == 0; }
  int num_ranks() const { return control == nullptr ? 1 : control->num_ranks(); }
};

std::vector<std::vector<double>> gather_times(const Job& job, const std::vector<Cell>& cells) {
  ByteWriter writer;
  std::vector<double> own;
  for (const Cell& cell : cells) own.push_back(cell.experts_us.median);
  writer.write(own);
  std::vector<std::vector<double>> all;
  for (const auto& bytes :
       gather(*job.control, 0, writer.bytes(), kControlTag, Clock::now() + kSlowestRank, "measured times")) {
    all.push_back(ByteReader(bytes).read_vector<double>());
  }
  return all;
}

void calibrate(const CalibrateOptions& options, const Job& job, LayerDevice& device,
               const RowVisitor& visit) {
  const std::vector<LayerShape> shapes = parse_layer_shapes(options.layer.shapes);
  if (shapes.size() != 1) refuse("calibrate takes one --shape, the one that is served");
  const LayerShape& shape = shapes.front();
  if (!options.cluster_out.empty() && job.num_ranks() < 2) {
    refuse("--cluster-out needs ports, which are measured between ranks: start two or more with mpirun");
  }
  std::optional<ModelTraffic> traffic;
  if (job.is_first()) {
    traffic = read_traffic(options, shape);
    if (!options.cluster_out.empty()) check_writable(options.cluster_out);
  }
  const std::vector<Cell> cells = measure_cells(device, shape, options);
  std::vector<std::vector<double>> us_of_ranks;
  std::vector<double> ports;
  if (job.num_ranks() > 1) {
    us_of_ranks = gather_times(job, cells);
    ports = measure_ports(
        {.transport = *job.data,
         .backend = device.backend(),
         .exchange_tag = kExchangeTag,
         .control_tag = kControlTag,
         .deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(options.port_timeout_seconds))});
  }
  if (!job.is_first()) return;
  const LayerCosts costs = fit_cells(cells);
  show_cells(shape.name, cells, costs, visit);
  if (traffic) write_traffic(std::move(*traffic), shape, device.dtype(), costs, options.traffic_out);
  if (ports.empty()) return;
  const ClusterSpec cluster = cluster_of(ports, us_of_ranks);
  if (!options.cluster_out.empty()) write_file(options.cluster_out, cluster_text(cluster));
}

void calibrate_as_rank(CalibrateOptions options, const MpiSession& session, Transport& control,
                       const RowVisitor& visit) {
  std::unique_ptr<Transport> between_devices;
  if (options.layer.backend == "cuda" && control.num_ranks() > 1) {
    GpuPlace place = take_gpu_place(session, control);
    options.layer.device = place.device;
    between_devices = std::move(place.transport);
  }
  LayerDevice device(options.layer);
  calibrate(options, {&control, between_devices ? between_devices.get() : &control}, device, visit);
}

}  // namespace

void run_calibrate_suite(const CalibrateOptions& options, const RowVisitor& visit) {
  if (!options.is_under_mpi) {
    LayerDevice device(options.layer);
    return calibrate(options, {}, device, visit);
  }
  run_over_mpi_job(
      [&](MpiSession& session, Transport& control) { calibrate_as_rank(options, session, control, visit); });
}

}  // namespace aurora::bench
