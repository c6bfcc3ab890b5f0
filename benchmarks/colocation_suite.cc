#include "benchmarks/colocation_suite.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <random>

#include "benchmarks/mpi_run.h"
#include "benchmarks/paced_transport.h"
#include "benchmarks/sampling.h"
#include "kernels/backend_registry.h"
#include "kernels/error.h"
#include "launch/config.h"
#include "launch/field.h"
#include "runtime/engine.h"
#include "runtime/model/model_config.h"
#include "runtime/plan_io/nearest_name.h"
#include "runtime/plan_io/traffic_file.h"
#include "runtime/transport/transport_registry.h"
#include "runtime/transport/wait.h"
#include "scheduler/placement.h"
#include "tests/support/rank_threads.h"

namespace aurora::bench {
namespace {

constexpr double kMicroseconds = 1e6;
/// Of messages between two runs of engines.
constexpr std::uint32_t kControlTag = 2;

// Serial first: the others are compared with it. Lina packs experts of one model on ranks of that model; rec
// pairs one model's planned experts with the other's at random, rga places everything at random.
constexpr std::array kVariants{
    ColocationVariant{"serial", "serial", "auto"},       ColocationVariant{"colocated", "colocated", "auto"},
    ColocationVariant{"two-batch", "two-batch", "auto"}, ColocationVariant{"exclusive", "exclusive", "auto"},
    ColocationVariant{"lina", "exclusive", "lina"},      ColocationVariant{"rec", "colocated", "rec"},
    ColocationVariant{"rga", "colocated", "rga"},
};

std::vector<ColocationVariant> chosen_variants(const std::vector<std::string>& names) {
  if (names == std::vector<std::string>{"all"}) return {kVariants.begin(), kVariants.end()};
  std::vector<ColocationVariant> chosen = {kVariants.front()};
  std::vector<std::string> known = {"all"};
  for (const ColocationVariant& variant : kVariants) known.emplace_back(variant.name);
  for (const std::string& name : names) {
    const auto* const found = std::ranges::find(kVariants, name, [](const auto& each) { return each.name; });
    if (found == kVariants.end()) {
      throw Error(ErrorKind::kInvalidArgument,
                  "--variant: unknown variant \"" + name + "\"" + suggest_name(name, known));
    }
    if (found != kVariants.begin()) chosen.push_back(*found);
  }
  return chosen;
}

Schedule schedule_of(const ColocationVariant& variant) {
  return *std::ranges::find(kSchedules, std::string_view(variant.schedule), schedule_name);
}

using Tokens = std::map<RequestId, std::vector<TokenId>>;

/// All requests at once; keeps the tokens.
class BenchFeed final : public RequestFeed {
 public:
  explicit BenchFeed(const std::vector<GenerationRequest>& requests) : requests_(requests) {}

  std::vector<GenerationRequest> take(std::size_t limit) override {
    std::vector<GenerationRequest> taken;
    while (next_ < requests_.size() && taken.size() < limit) taken.push_back(requests_[next_++]);
    return taken;
  }
  bool is_exhausted() override { return next_ == requests_.size(); }
  void on_text(RequestId, const std::string&, const std::vector<TokenId>&) override {}
  void on_finished(GenerationResult result) override {
    if (result.error) throw Error(ErrorKind::kInvalidArgument, result.model + ": " + *result.error);
    tokens_[result.id] = std::move(result.token_ids);
  }
  Tokens take_tokens() { return std::move(tokens_); }

 private:
  const std::vector<GenerationRequest>& requests_;
  std::size_t next_ = 0;
  Tokens tokens_;
};

/// What one run leaves on rank 0.
struct RunResult {
  EngineReport report;
  std::vector<ModelTraffic> traffic;
  Tokens tokens;
  std::string trace;  // when recorded
};

std::int64_t num_different(const Tokens& expected, const Tokens& found) {
  return std::ranges::count_if(expected, [&](const auto& entry) {
    const auto other = found.find(entry.first);
    return other == found.end() || other->second != entry.second;
  });
}

/// What one run is made of; the same on every rank.
struct RunPlan {
  EngineOptions engine;
  std::vector<double> ports_gbps;  // threads: emulated; empty: no time passes in ports
};

/// This process's place in a job of several.
struct JobSeat {
  Transport& transport;
  Backend& backend;
};

std::chrono::milliseconds timeout_of(const ColocationOptions& options) {
  return std::chrono::milliseconds(std::llround(options.timeout_seconds * 1e3));
}

/// Runs engines over threads or over the ranks of a job.
class Bench {
 public:
  /// `job`: null for ranks that are threads.
  Bench(const ColocationOptions& options, const JobSeat* job) : options_(options), job_(job) {}

  int num_ranks() const { return job_ == nullptr ? options_.num_ranks : job_->transport.num_ranks(); }
  bool is_root() const { return job_ == nullptr || job_->transport.rank() == 0; }
  /// Whether ports take the time that the options ask for.
  bool has_emulated_ports() const { return job_ == nullptr; }

  /// The root's `indices`, on every rank.
  std::vector<std::size_t> as_root_has_it(const std::vector<std::size_t>& indices) const {
    if (job_ == nullptr) return indices;
    const auto* bytes = reinterpret_cast<const std::byte*>(indices.data());
    const auto received =
        broadcast(job_->transport, 0, {bytes, indices.size() * sizeof(std::size_t)}, kControlTag,
                  std::chrono::steady_clock::now() + timeout_of(options_), "which runs are traced");
    std::vector<std::size_t> result(received.size() / sizeof(std::size_t));
    std::memcpy(result.data(), received.data(), received.size());
    return result;
  }

  RunResult run(const RunPlan& plan, const std::vector<GenerationRequest>& requests) {
    RunResult result;
    BenchFeed feed(requests);
    if (job_ != nullptr) {
      run_rank(plan, job_->transport, job_->backend, feed, result);
    } else {
      std::optional<PacedPorts> ports;
      if (!plan.ports_gbps.empty()) ports.emplace(plan.ports_gbps);
      test::run_ranks(num_ranks(), [&](Transport& threads) {
        const auto backend = create_backend(
            "cpu", {.deterministic = options_.deterministic, .worker_streams = options_.worker_streams});
        if (!ports) return run_rank(plan, threads, *backend, feed, result);
        PacedTransport paced(threads, *ports);
        run_rank(plan, paced, *backend, feed, result);
      });
    }
    result.tokens = feed.take_tokens();
    return result;
  }

 private:
  static void run_rank(const RunPlan& plan, Transport& transport, Backend& backend, BenchFeed& feed,
                       RunResult& result) {
    Engine engine(plan.engine, transport, backend);
    engine.run(transport.rank() == 0 ? &feed : nullptr);
    if (transport.rank() != 0) return;
    result.report = engine.report();
    result.traffic = engine.traffic();
    if (plan.engine.record_trace) result.trace = engine.trace_json();
  }

  const ColocationOptions& options_;
  const JobSeat* job_;
};

/// A folder for what the planner reads, gone with it. Of rank 0's process; the others name it only.
class PlanningFolder {
 public:
  PlanningFolder()
      : path_(std::filesystem::temp_directory_path() / ("aurora-colocation-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  PlanningFolder(const PlanningFolder&) = delete;
  PlanningFolder& operator=(const PlanningFolder&) = delete;
  ~PlanningFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

std::vector<double> ports_times(const ColocationOptions& options, int num_ranks, double gbps) {
  std::vector<double> ports;
  for (int rank = 0; rank < num_ranks; ++rank) {
    ports.push_back(gbps * options.ports[static_cast<std::size_t>(rank) % options.ports.size()]);
  }
  return ports;
}

std::string cluster_text(const std::vector<double>& ports_gbps) {
  std::string text;
  for (const double gbps : ports_gbps) text += "[[gpu]]\nport_gbps = " + real_text(gbps) + "\n";
  return text;
}

EngineOptions engine_options_of(const ColocationOptions& options) {
  std::vector<ModelConfiguration> models;
  for (const std::string& file : options.models) models.push_back(read_model_configuration(file));
  const bool is_on_gpus = options.transport == "nccl";
  apply_backend_defaults(is_on_gpus ? "cuda" : "cpu", models);
  EngineOptions engine;
  for (ModelConfiguration& model : models) engine.models.push_back(std::move(model.options));
  engine.order = options.order;
  engine.fabric_file = options.fabric;
  engine.timeout = timeout_of(options);
  // So that compute on worker streams is timed; the same for all.
  engine.record_trace = options.worker_streams;
  engine.deterministic = options.deterministic;
  engine.decode_steps = options.decode_steps;
  engine.cluster_file = options.cluster;
  return engine;
}

/// Prompts of random tokens, models in turn.
std::vector<GenerationRequest> random_requests(const ColocationOptions& options,
                                               const std::vector<ModelOptions>& models) {
  std::mt19937_64 random(options.seed);
  std::vector<std::int64_t> vocabularies;
  for (const ModelOptions& model : models) {
    vocabularies.push_back(read_model_config(model.checkpoint).vocabulary);
  }
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < options.num_requests; ++i) {
    for (std::size_t model = 0; model < models.size(); ++model) {
      GenerationRequest& request = requests.emplace_back();
      request.id = requests.size() - 1;
      request.model = models[model].name;
      std::vector<TokenId> prompt(static_cast<std::size_t>(options.prompt_tokens));
      for (TokenId& token : prompt) {
        token = static_cast<TokenId>(random() % static_cast<std::uint64_t>(vocabularies[model]));
      }
      request.prompt_token_ids = std::move(prompt);
      request.sampling.max_tokens = options.max_tokens;
      request.sampling.ignore_eos = true;
    }
  }
  return requests;
}

double bound_seconds(const EngineReport& report) {
  return std::accumulate(report.models.begin(), report.models.end(), 0.0,
                         [](double sum, const auto& model) { return sum + model.bound_seconds; });
}

std::int64_t generated_tokens(const EngineReport& report) {
  return std::accumulate(report.models.begin(), report.models.end(), std::int64_t{0},
                         [](std::int64_t sum, const auto& model) { return sum + model.generated_tokens; });
}

/// A variant, and with a rank sequence one random assignment of ranks to models.
struct Contender {
  ColocationVariant variant;
  std::vector<int> rank_sequence;  // empty: ascending
};

/// All repetitions of one contender.
struct Measured {
  Contender contender;
  std::vector<EngineReport> reports;
  std::vector<EngineReport> traced;  // the same where they say when compute ran, or one run more that does
  std::int64_t num_changed = 0;      // answers, over all repetitions
};

double median_of(const std::vector<EngineReport>& reports,
                 const std::function<double(const EngineReport&)>& value) {
  std::vector<double> values;
  for (const EngineReport& report : reports) values.push_back(value(report));
  return quantiles_of(std::move(values)).median;
}

double median_wall_seconds(const Measured& measured) {
  return median_of(measured.reports, [](const EngineReport& report) { return report.wall_seconds; });
}

Row row_of(const ColocationOptions& options, const Measured& measured, const std::string& name,
           double serial_median_us) {
  const auto& [contender, reports, traced, num_changed] = measured;
  std::vector<double> wall_us;
  for (const EngineReport& report : reports) wall_us.push_back(report.wall_seconds * kMicroseconds);
  const Quantiles wall = quantiles_of(wall_us);
  // No schedule ends before its compute, nor before its bytes have passed the ports.
  const double bound_us = kMicroseconds * median_of(traced, [](const EngineReport& report) {
                            return std::max(report.overlap.compute_seconds, bound_seconds(report));
                          });
  Row row("colocation", name);
  row.set("median", wall.median).set("p10", wall.p10).set("p90", wall.p90);
  row.set("bound", bound_us).set("%", 100 * bound_us / wall.median);
  row.set("x_serial", serial_median_us / wall.median);
  row.set("tokens/s", static_cast<double>(generated_tokens(reports.front())) * kMicroseconds / wall.median);
  row.set("util%", 100 * median_of(traced, [](const auto& report) { return report.overlap.utilisation; }));
  row.set("hidden%", 100 * median_of(traced, [](const auto& report) { return report.overlap.ratio; }));
  row.set("exposed_ms",
          1e3 * median_of(traced, [](const auto& report) { return report.overlap.exposed_seconds; }));
  row.set("exchange/compute", median_of(traced, [](const EngineReport& report) {
            return bound_seconds(report) / std::max(report.overlap.compute_seconds, 1e-9);
          }));
  row.set("ttft_ms", 1e3 * median_of(reports, [](const EngineReport& report) {
                       double slowest = 0;
                       for (const auto& model : report.models)
                         slowest = std::max(slowest, model.first_token_seconds.p50);
                       return slowest;
                     }));
  // On GPUs which kernels run depends on how many rows meet, and a near tie may then fall the other way.
  const bool is_exact = options.transport != "nccl" || options.deterministic;
  row.set("changed", num_changed).set("wrong", is_exact ? num_changed : 0);
  return row;
}

/// The chosen variants, and random assignments of those that give each model ranks of its own. The same on
/// every rank.
std::vector<Contender> contenders_of(const ColocationOptions& options, int num_ranks) {
  std::vector<Contender> contenders;
  for (const ColocationVariant& variant : chosen_variants(options.variants))
    contenders.push_back({variant, {}});
  std::mt19937_64 random(options.seed);
  std::vector<int> sequence(static_cast<std::size_t>(num_ranks));
  std::iota(sequence.begin(), sequence.end(), 0);
  const std::size_t num_variants = contenders.size();
  for (int assignment = 0; assignment < options.num_assignments; ++assignment) {
    std::shuffle(sequence.begin(), sequence.end(), random);
    for (std::size_t index = 0; index < num_variants; ++index) {
      const ColocationVariant variant = contenders[index].variant;
      if (schedule_of(variant) == Schedule::kExclusive) contenders.push_back({variant, sequence});
    }
  }
  return contenders;
}

/// One setting of the ports, all variants in turns.
class Comparison {
 public:
  Comparison(const ColocationOptions& options, Bench& bench)
      : options_(options),
        bench_(bench),
        contenders_(contenders_of(options, bench.num_ranks())),
        base_(engine_options_of(options)),
        requests_(random_requests(options, base_.models)) {}

  /// The reference: in series, ports that take no time, bounds at 1 Gbit/s.
  void calibrate() {
    RunPlan plan{base_, {}};
    plan.engine.schedule = Schedule::kSerial;
    if (bench_.has_emulated_ports()) {
      plan.engine.cluster_file =
          folder_.write("unit.toml", cluster_text(ports_times(options_, bench_.num_ranks(), 1)));
    }
    bench_.run(plan, requests_);      // touches memory and code for the first time
    plan.engine.record_trace = true;  // plans are made from what compute costs, which GPUs tell traces only
    reference_ = bench_.run(plan, requests_);
    if (!bench_.is_root()) return;
    for (std::size_t model = 0; model < base_.models.size(); ++model) {
      base_.models[model].traffic =
          folder_.write("traffic" + std::to_string(model) + ".json", traffic_text(reference_.traffic[model]));
    }
  }

  void measure(double ratio, const RowVisitor& visit) {
    RunPlan plan{base_, {}};
    if (bench_.has_emulated_ports() && ratio > 0) {
      const double gbps =
          bound_seconds(reference_.report) / (ratio * reference_.report.overlap.compute_seconds);
      plan.ports_gbps = ports_times(options_, bench_.num_ranks(), gbps);
      plan.engine.cluster_file = folder_.write("cluster.toml", cluster_text(plan.ports_gbps));
    }
    std::vector<Measured> all;
    for (const Contender& contender : contenders_) all.push_back({contender, {}, {}, 0});
    std::mt19937_64 random(options_.seed);  // every rank shuffles alike
    std::vector<std::size_t> sequence(all.size());
    std::iota(sequence.begin(), sequence.end(), 0U);
    for (int repeat = 0; repeat < options_.repeats; ++repeat) {
      std::shuffle(sequence.begin(), sequence.end(), random);
      for (const std::size_t index : sequence) run_once(plan, all[index]);
    }
    const std::vector<RowChoice> rows = choose_rows(all);
    std::vector<std::size_t> traced;
    for (const RowChoice& row : rows) {
      if (!std::ranges::count(traced, row.index)) traced.push_back(row.index);
    }
    for (const std::size_t index : bench_.as_root_has_it(traced)) trace_if_wanted(plan, all[index]);
    const std::string label = bench_.has_emulated_ports() ? "ratio " + real_text(ratio) + " " : "";
    for (const RowChoice& row : rows) {
      visit(row_of(options_, all[row.index], label + row.name, kMicroseconds * median_wall_seconds(all[0])));
    }
  }

 private:
  /// A contender that the table shows.
  struct RowChoice {
    std::size_t index;
    std::string name;
  };
  /// Each variant, and of the random assignments of one that of the median and that of the best. On the root,
  /// which has the times.
  std::vector<RowChoice> choose_rows(const std::vector<Measured>& all) const {
    std::vector<RowChoice> rows;
    if (!bench_.is_root()) return rows;
    std::map<std::string, std::vector<std::size_t>> assignments;
    for (std::size_t index = 0; index < all.size(); ++index) {
      const Contender& contender = all[index].contender;
      if (contender.rank_sequence.empty()) {
        rows.push_back({index, contender.variant.name});
      } else {
        assignments[contender.variant.name].push_back(index);
      }
    }
    for (auto& [name, of_variant] : assignments) {
      std::ranges::sort(of_variant, {}, [&](std::size_t index) { return median_wall_seconds(all[index]); });
      rows.push_back({of_variant[of_variant.size() / 2], name + "-random-median"});
      rows.push_back({of_variant.front(), name + "-random-best"});
    }
    return rows;
  }
  RunResult run(RunPlan plan, const Contender& contender) {
    plan.engine.schedule = schedule_of(contender.variant);
    plan.engine.placement = contender.variant.placement;
    plan.engine.rank_sequence = contender.rank_sequence;
    return bench_.run(plan, requests_);
  }
  void run_once(const RunPlan& plan, Measured& measured) {
    const RunResult result = run(plan, measured.contender);
    if (!bench_.is_root()) return;
    measured.reports.push_back(result.report);
    measured.num_changed += num_different(reference_.tokens, result.tokens);
  }
  /// Traces time what runs behind the host, and cost time: no CUDA graphs. So they have a run of their own.
  void trace_if_wanted(RunPlan plan, Measured& measured) {
    const bool is_behind_host = options_.transport == "nccl";
    if (!is_behind_host && options_.traces.empty()) {
      measured.traced = measured.reports;
      return;
    }
    plan.engine.record_trace = true;
    const RunResult result = run(plan, measured.contender);
    if (!bench_.is_root()) return;
    measured.traced = {result.report};
    if (options_.traces.empty() || !measured.contender.rank_sequence.empty()) return;
    const auto path = options_.traces / (std::string(measured.contender.variant.name) + ".json");
    std::ofstream file(path);
    file << result.trace;
    if (!file.flush()) throw Error(ErrorKind::kIo, "cannot write " + path.string());
  }

  const ColocationOptions& options_;
  Bench& bench_;
  std::vector<Contender> contenders_;
  EngineOptions base_;
  std::vector<GenerationRequest> requests_;
  PlanningFolder folder_;
  RunResult reference_;
};

void compare_schedules(const ColocationOptions& options, const JobSeat* job,
                       const std::vector<double>& ratios, const RowVisitor& visit) {
  Bench bench(options, job);
  Comparison comparison(options, bench);
  comparison.calibrate();
  for (const double ratio : ratios) comparison.measure(ratio, visit);
}

/// The ports are what they are.
void compare_in_job(const ColocationOptions& options, const JobSeat& job, const RowVisitor& visit) {
  compare_schedules(options, &job, {0}, visit);
}

void run_over_nccl(const ColocationOptions& options, const MpiSession& session, Transport& control,
                   const RowVisitor& visit) {
  const GpuPlace place = take_gpu_place(session, control);
  const auto backend =
      create_backend("cuda", {.deterministic = options.deterministic, .device = place.device});
  compare_in_job(options, {*place.transport, *backend}, visit);
}

void run_over_mpi(const ColocationOptions& options, const MpiSession&, Transport& control,
                  const RowVisitor& visit) {
  const auto backend = create_backend(
      "cpu", {.deterministic = options.deterministic, .worker_streams = options.worker_streams});
  compare_in_job(options, {control, *backend}, visit);
}

}  // namespace

void run_colocation_suite(const ColocationOptions& options, const RowVisitor& visit) {
  if (options.transport == "threads") return compare_schedules(options, nullptr, options.ratios, visit);
  require_transport(options.transport);
  const auto run_over = options.transport == "nccl" ? run_over_nccl : run_over_mpi;
  run_over_mpi_job(
      [&](MpiSession& session, Transport& control) { run_over(options, session, control, visit); });
}

}  // namespace aurora::bench
