// How long planning takes, by size and family of traffic, beside the bars that the planner was built to.
#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "benchmarks/sampling.h"
#include "benchmarks/suite.h"
#include "kernels/error.h"
#include "runtime/plan_io/import_traffic.h"
#include "scheduler/bounded_order.h"
#include "scheduler/fair_sharing.h"
#include "scheduler/layer_time.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/order_policy.h"
#include "scheduler/placement.h"
#include "scheduler/two_tier_order.h"
#include "tests/scheduler/random_models.h"
#include "tests/scheduler/traffic_families.h"

namespace aurora::bench {
namespace {

/// What a plan is worth, summed over the inputs of a row. Trivial: it crosses a pipe.
struct Outcome {
  double bytes = 0;   // planned
  double rounds = 0;  // or steps
  double bound = 0;   // of the makespan; 0: not known
  double makespan = 0;
  std::int64_t num_wrong = 0;
};

/// Inputs made ready, and what to do with them.
struct PreparedCase {
  std::size_t num_inputs = 0;
  std::function<void(std::size_t input)> plan;        // what is timed
  std::function<Outcome(std::size_t input)> examine;  // plans once more and checks the result
};

struct CaseOf {
  std::string name;
  int num_gpus = 0;
  double bar_us = 0;  // 0: none
  std::function<PreparedCase()> prepare;
};

// ---- Orders

using PlanOrder = std::function<TransmissionOrder(const TrafficMatrix& traffic)>;

/// How often somebody sends or receives twice in a round of an order that must not have that.
std::int64_t num_conflicts(const Round& round, int num_gpus) {
  std::vector<int> used(2 * static_cast<std::size_t>(num_gpus));
  std::int64_t conflicts = 0;
  for (const Transfer& transfer : round.transfers) {
    conflicts += used[transfer.source.value]++ > 0;
    conflicts += used[num_gpus + transfer.destination.value]++ > 0;
  }
  return conflicts;
}

std::int64_t num_differing(const TrafficMatrix& a, const TrafficMatrix& b) {
  std::int64_t differing = 0;
  for (int source = 0; source < a.num_gpus(); ++source) {
    for (int destination = 0; destination < a.num_gpus(); ++destination) {
      differing += a.at(source, destination) != b.at(source, destination);
    }
  }
  return differing;
}

/// Makespan in bytes on equal ports: of a one-to-one round its longest transfer; a concurrent group, with
/// which bounded orders end, is taken at the most that fair sharing can need, twice its bound.
Outcome examine_order(const TransmissionOrder& order, const TrafficMatrix& traffic, double most_of_bound) {
  Outcome outcome{.bytes = static_cast<double>(traffic.total()),
                  .rounds = static_cast<double>(num_rounds(order)),
                  .bound = static_cast<double>(makespan_bound_bytes(traffic))};
  for (const Round& round : order.rounds) {
    Bytes longest = 0;
    for (const Transfer& transfer : round.transfers) longest = std::max(longest, transfer.bytes);
    if (num_conflicts(round, traffic.num_gpus()) > 0) {
      longest = 2 * makespan_bound_bytes(carried_traffic({.rounds = {round}}, traffic.num_gpus()));
    }
    outcome.makespan += static_cast<double>(longest);
  }
  outcome.num_wrong = num_differing(carried_traffic(order, traffic.num_gpus()), traffic);
  outcome.num_wrong += outcome.makespan > outcome.bound * most_of_bound;
  return outcome;
}

/// `most_of_bound`: a makespan above this times the bound is a wrong result.
PreparedCase prepare_orders(std::vector<TrafficMatrix> matrices, const PlanOrder& plan,
                            double most_of_bound) {
  const auto inputs = std::make_shared<const std::vector<TrafficMatrix>>(std::move(matrices));
  return {inputs->size(), [=](std::size_t input) { plan((*inputs)[input]); },
          [=](std::size_t input) {
            return examine_order(plan((*inputs)[input]), (*inputs)[input], most_of_bound);
          }};
}

/// The makespan by the planner's own model, without start-ups; nothing is promised of it.
PreparedCase prepare_orders(std::vector<TrafficMatrix> matrices, const PlanOrder& plan,
                            const std::vector<double>& ports) {
  const auto inputs = std::make_shared<const std::vector<TrafficMatrix>>(std::move(matrices));
  return {inputs->size(), [=](std::size_t input) { plan((*inputs)[input]); },
          [=](std::size_t input) {
            const TrafficMatrix& traffic = (*inputs)[input];
            const TransmissionOrder order = plan(traffic);
            return Outcome{.bytes = static_cast<double>(traffic.total()),
                           .rounds = static_cast<double>(num_rounds(order)),
                           .bound = makespan_bound_us(traffic, {.ports = ports}),
                           .makespan = predicted_makespan_us(order, ports, 0),
                           .num_wrong = num_differing(carried_traffic(order, traffic.num_gpus()), traffic)};
          }};
}

std::vector<TrafficMatrix> matrices_of(test::Family family, int num_gpus, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const int count = num_gpus <= 8 ? 64 : num_gpus <= 64 ? 8 : num_gpus <= 320 ? 2 : 1;
  std::vector<TrafficMatrix> matrices;
  for (int index = 0; index < count; ++index) {
    matrices.push_back(test::random_traffic(family, num_gpus, random));
  }
  return matrices;
}

/// The dispatch of every layer of a routing record, experts placed in blocks, 4096 bytes a token.
std::vector<TrafficMatrix> routed_matrices(const std::string& file, int num_gpus) {
  ModelTraffic model = import_routing_record(file, {.num_sources = num_gpus});
  model.dispatch_bytes_per_token = model.combine_bytes_per_token = 4096;
  const ModelPlacement placement =
      plan_placement(PlacementPolicy::kContiguous, model, uniform_cluster(num_gpus, 100), {});
  std::vector<TrafficMatrix> matrices;
  for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
    matrices.push_back(dispatch_bytes(model, static_cast<int>(layer), placement.layers[layer], num_gpus));
  }
  return matrices;
}

TransmissionOrder plan_exact(const TrafficMatrix& traffic) {
  return plan_order(OrderPolicy::kExact, traffic, {});
}
constexpr double kExactly = 1.0;

void add_exact_orders(const SuiteOptions& options, std::vector<CaseOf>& cases) {
  struct Size {
    int num_gpus;
    double bar_us;
  };
  for (const Size size : {Size{8, 6}, {40, 150}, {64, 700}, {320, 40e3}, {1024, 1.5e6}}) {
    for (const test::Family family : test::all_families()) {
      cases.push_back({"exact " + std::to_string(size.num_gpus) + " " + test::family_name(family),
                       size.num_gpus, size.bar_us, [=, seed = options.seed] {
                         return prepare_orders(matrices_of(family, size.num_gpus, seed), plan_exact,
                                               kExactly);
                       }});
    }
  }
  for (const Size size : {Size{8, 6}, {64, 700}}) {
    cases.push_back({"exact " + std::to_string(size.num_gpus) + " Routing", size.num_gpus, size.bar_us,
                     [=, file = options.routing] {
                       return prepare_orders(routed_matrices(file, size.num_gpus), plan_exact, kExactly);
                     }});
  }
}

void add_bounded_orders(const SuiteOptions& options, std::vector<CaseOf>& cases) {
  constexpr int kNumGpus = 320;
  constexpr double kTolerance = 0.01;
  const PlanOrder plan = [](const TrafficMatrix& traffic) {
    return bounded_order(traffic, std::vector<double>(kNumGpus, 1250.0), kTolerance);
  };
  for (const test::Family family : test::all_families()) {
    cases.push_back({"bounded 320 " + test::family_name(family), kNumGpus, 40e3, [=, seed = options.seed] {
                       return prepare_orders(matrices_of(family, kNumGpus, seed), plan,
                                             1 + kTolerance + 1e-9);
                     }});
  }
}

/// The policy that Aurora uses, at 10 us per round: 320 equal ports of 100 Gbit/s, and few of four speeds.
void add_aurora_orders(const SuiteOptions& options, std::vector<CaseOf>& cases) {
  struct Setting {
    int num_gpus;
    bool has_equal_ports;
  };
  for (const Setting setting : {Setting{320, true}, {8, false}, {16, false}}) {
    OrderOptions order;
    for (int gpu = 0; gpu < setting.num_gpus; ++gpu) {
      constexpr std::array kSpeeds{12500.0, 10000.0, 6250.0, 5000.0};
      order.ports.push_back(kSpeeds[setting.has_equal_ports ? 0 : gpu % kSpeeds.size()]);
    }
    const PlanOrder plan = [=](const TrafficMatrix& traffic) {
      return plan_order(OrderPolicy::kAurora, traffic, order);
    };
    for (const test::Family family :
         {test::Family::kUniform, test::Family::kZipfBoth, test::Family::kBalancedUneven}) {
      cases.push_back({std::string("aurora ") + std::to_string(setting.num_gpus) +
                           (setting.has_equal_ports ? " " : " unequal ") + test::family_name(family),
                       setting.num_gpus, 0, [=, seed = options.seed] {
                         return prepare_orders(matrices_of(family, setting.num_gpus, seed), plan,
                                               order.ports);
                       }});
    }
  }
}

// ---- Two tiers

/// 40 nodes of 8 GPUs, 450 GB/s links and 400 Gbit/s ports, which FAST plans in 77 ms.
PreparedCase prepare_two_tiers(test::Family family, std::uint64_t seed) {
  ClusterSpec cluster = uniform_cluster(320, 400);
  cluster.link_gbps = 3600;
  for (int gpu = 0; gpu < 320; ++gpu) cluster.gpus[gpu].node = gpu / 8;
  const auto network = std::make_shared<const TwoTierNetwork>(two_tier_network(cluster));
  const auto inputs = std::make_shared<const std::vector<TrafficMatrix>>(matrices_of(family, 320, seed));
  const auto examine = [=](std::size_t input) {
    const TrafficMatrix& traffic = (*inputs)[input];
    const TwoTierOrder order = relayed_order(traffic, *network);
    TrafficMatrix carried(traffic.num_gpus());
    const auto add = [&](const Parcel& parcel) {
      carried.add(parcel.source.value, parcel.destination.value, parcel.bytes);
    };
    for (const auto& round : order.port_rounds) std::for_each(round.begin(), round.end(), add);
    for (const auto& step : order.local_parcels) std::for_each(step.begin(), step.end(), add);
    return Outcome{.bytes = static_cast<double>(traffic.total()),
                   .rounds = static_cast<double>(num_busy_steps(order)),
                   .bound = two_tier_bounds(traffic, *network).relayed_us(),
                   .makespan = predicted_two_tier_us(order, *network, 0),
                   .num_wrong = num_differing(carried, traffic)};
  };
  return {inputs->size(), [=](std::size_t input) { relayed_order((*inputs)[input], *network); }, examine};
}

void add_two_tiers(const SuiteOptions& options, std::vector<CaseOf>& cases) {
  for (const test::Family family :
       {test::Family::kUniform, test::Family::kZipfBoth, test::Family::kOneHotPair}) {
    cases.push_back({"two-tier 40x8 " + test::family_name(family), 320, 77e3,
                     [=, seed = options.seed] { return prepare_two_tiers(family, seed); }});
  }
}

// ---- Placement and colocation

struct PlacementCase {
  int num_gpus;
  bool is_heterogeneous;
  std::vector<test::RandomModelArgs> models;
};

PreparedCase prepare_placements(const PlacementCase& args, std::uint64_t seed) {
  constexpr std::size_t kNumInputs = 8;
  std::mt19937_64 random(seed);
  const auto inputs = std::make_shared<std::vector<std::vector<ModelTraffic>>>(kNumInputs);
  for (auto& models : *inputs) {
    for (const auto& model : args.models) models.push_back(test::random_model(model, random));
  }
  const ClusterSpec cluster = test::test_cluster(args.num_gpus, args.is_heterogeneous);
  const auto plan = [=](std::size_t input) {
    return plan_deployment((*inputs)[input], cluster, PlacementPolicy::kAuto, {});
  };
  const auto examine = [=](std::size_t input) {
    const DeploymentPlan deployment = plan(input);
    std::int64_t num_wrong = 0;
    for (std::size_t model = 0; model < deployment.models.size(); ++model) {
      const auto& layer = deployment.models[model].layers.front();
      num_wrong += layer.num_experts() != args.models[model].num_experts;
    }
    return Outcome{.num_wrong = num_wrong};
  };
  return {kNumInputs, plan, examine};
}

void add_placements(const SuiteOptions& options, std::vector<CaseOf>& cases) {
  const PlacementCase large{64, false, {{.num_experts = 128, .top_k = 8, .num_sources = 64}}};
  const PlacementCase colocated{8, true, {{.name = "a"}, {.name = "b"}}};
  cases.push_back({"placement 128 experts on 64", 64, 10e3,
                   [=, seed = options.seed] { return prepare_placements(large, seed); }});
  cases.push_back({"colocation 2 models on 8", 8, 5e3,
                   [=, seed = options.seed] { return prepare_placements(colocated, seed); }});
}

// ---- Measuring

template <class T>
std::string bytes_of(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

template <class T>
T parsed(const std::string& bytes) {
  static_assert(std::is_trivially_copyable_v<T>);
  check(bytes.size() == sizeof(T), "a measuring process returns what was measured");
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

struct Warm {
  Quantiles wall_us;
  Quantiles cpu_us;
  double num_inputs = 0;
  Outcome outcome;
};

Warm measure_warm(const CaseOf& subject, double seconds) {
  const PreparedCase prepared = subject.prepare();
  Warm warm;
  warm.num_inputs = static_cast<double>(prepared.num_inputs);
  std::vector<double> wall_us;
  std::vector<double> cpu_us;
  for (const Elapsed& elapsed : time_repeatedly(prepared.plan, prepared.num_inputs, seconds)) {
    wall_us.push_back(elapsed.wall_us);
    cpu_us.push_back(elapsed.cpu_us);
  }
  warm.wall_us = quantiles_of(wall_us);
  warm.cpu_us = quantiles_of(cpu_us);
  for (std::size_t input = 0; input < prepared.num_inputs; ++input) {
    const Outcome outcome = prepared.examine(input);
    warm.outcome.bytes += outcome.bytes;
    warm.outcome.rounds += outcome.rounds;
    warm.outcome.bound += outcome.bound;
    warm.outcome.makespan += outcome.makespan;
    warm.outcome.num_wrong += outcome.num_wrong;
  }
  return warm;
}

Row measured_row(const CaseOf& subject, double seconds) {
  constexpr int kNumColdProcesses = 3;
  std::vector<double> cold_us;
  std::vector<double> cold_cpu_us;
  for (int index = 0; index < kNumColdProcesses; ++index) {
    const auto first = parsed<Elapsed>(in_own_process([&] {
      const PreparedCase prepared = subject.prepare();
      return bytes_of(time_once([&] { prepared.plan(0); }));
    }));
    cold_us.push_back(first.wall_us);
    cold_cpu_us.push_back(first.cpu_us);
  }
  const auto warm = parsed<Warm>(in_own_process([&] { return bytes_of(measure_warm(subject, seconds)); }));
  Row row("planning", subject.name);
  row.set("median", warm.wall_us.median).set("p10", warm.wall_us.p10).set("p90", warm.wall_us.p90);
  row.set("cpu", warm.cpu_us.median).set("cpu_p10", warm.cpu_us.p10);
  row.set("cold", quantiles_of(cold_us).median).set("cold_cpu", quantiles_of(cold_cpu_us).median);
  if (subject.bar_us > 0) {
    row.set("bar", subject.bar_us).set("of_bar", warm.wall_us.median / subject.bar_us);
    row.set("cpu_of_bar", warm.cpu_us.median / subject.bar_us);
  }
  if (warm.outcome.bytes > 0)
    row.set("bytes", static_cast<std::int64_t>(warm.outcome.bytes / warm.num_inputs));
  if (warm.outcome.rounds > 0) {
    const double rounds = warm.outcome.rounds / warm.num_inputs;
    row.set("rounds", rounds).set("rounds/n", rounds / subject.num_gpus);
  }
  if (warm.outcome.bound > 0) row.set("of_bound", warm.outcome.makespan / warm.outcome.bound);
  return row.set("wrong", warm.outcome.num_wrong);
}

}  // namespace

void run_planning_suite(const SuiteOptions& options, const RowVisitor& visit) {
  std::vector<CaseOf> cases;
  add_exact_orders(options, cases);
  add_bounded_orders(options, cases);
  add_aurora_orders(options, cases);
  add_two_tiers(options, cases);
  add_placements(options, cases);
  for (const CaseOf& subject : cases) {
    if (options.wants(subject.name)) visit(measured_row(subject, options.seconds));
  }
}

}  // namespace aurora::bench
