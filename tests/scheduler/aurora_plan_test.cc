// The commands of aurora-plan on files, and the import of real routing against matrices that its publisher's
// reader computed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "kernels/error.h"
#include "launch/plan_commands.h"
#include "runtime/plan_io/import_traffic.h"
#include "runtime/plan_io/matrix_file.h"
#include "runtime/plan_io/plan_file.h"
#include "runtime/plan_io/traffic_file.h"
#include "scheduler/baseline_placements.h"
#include "scheduler/expert_load.h"
#include "scheduler/order_policy.h"
#include "scheduler/placement_problem.h"
#include "scheduler/plan_evaluation.h"
#include "tests/scheduler/order_simulation.h"
#include "tests/scheduler/traffic_families.h"

namespace aurora {
namespace {

using nlohmann::json;

std::filesystem::path data_file(const std::string& name) {
  return std::filesystem::path(AURORA_SOURCE_DIR) / "tests/scheduler/data" / name;
}

class AuroraPlan : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() /
        ("aurora_plan_test." + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) +
         "." + std::to_string(reinterpret_cast<std::uintptr_t>(this)));
    std::filesystem::create_directories(folder_);
    write("cluster.toml", "[[gpu]]\ncount = 8\nport_gbps = 100\n");
    write("matrix.txt", "0 5 9\n4 0 1\n7 2 0\n");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path path(const std::string& name) const { return folder_ / name; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path(name)) << text; }
  template <class Options, class Command>
  static std::string refusal(const Options& options, Command command) {
    try {
      command(options);
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  std::filesystem::path folder_;
};

TEST_F(AuroraPlan, OrderGivesExactIntegersInBytes) {
  PlanOrderOptions options;
  options.matrix = path("matrix.txt");
  options.is_json = true;
  const json result = json::parse(plan_order_command(options));
  EXPECT_EQ(result.at("unit"), "bytes");
  ASSERT_EQ(result.at("orders").size(), 9u);
  for (const json& row : result.at("orders")) {
    EXPECT_TRUE(row.at("makespan").is_number_integer());
    EXPECT_EQ(row.at("bound"), 14);
    EXPECT_GE(row.at("makespan"), 14);
    if (row.at("policy") == "exact" || row.at("policy") == "paced") {
      EXPECT_EQ(row.at("makespan"), 14);
    }
    if (row.at("policy") == "rotation") {
      EXPECT_EQ(row.at("makespan"), 7 + 9);
      EXPECT_EQ(row.at("rounds"), 2);
    }
  }
}

/// Against a simulation of the same order that shares nothing with the command. Sums stay below 2^53, so that
/// its doubles are exact.
TEST_F(AuroraPlan, OrderWithoutBarriersIsToldAsSuchWithItsOwnMakespan) {
  constexpr int kNumGpus = 8;
  std::mt19937_64 random(31);
  int num_without_barriers = 0;
  for (int instance = 0; instance < 20; ++instance) {
    SCOPED_TRACE("seed 31, instance " + std::to_string(instance));
    const TrafficMatrix traffic = test::random_traffic(test::Family::kOneHotPair, kNumGpus, random);
    std::string text;
    for (int source = 0; source < kNumGpus; ++source) {
      for (const Bytes bytes : traffic.row(source)) text += std::to_string(bytes) + " ";
      text += "\n";
    }
    write("matrix.txt", text);
    PlanOrderOptions options;
    options.matrix = path("matrix.txt");
    options.policy = "aurora";
    options.round_cost_us = 0;
    options.is_json = true;
    const json row = json::parse(plan_order_command(options)).at("orders").at(0);
    const TransmissionOrder order = plan_order(OrderPolicy::kAurora, traffic, {.round_cost_us = 0});
    if (order.pacing == Pacing::kRounds) {
      EXPECT_EQ(row.at("pacing"), "rounds");
      EXPECT_EQ(row.at("rounds"), order.rounds.size());
      continue;
    }
    ++num_without_barriers;
    const std::vector<Transfer>& starts = order.rounds.front().transfers;
    std::vector<int> messages(2 * kNumGpus);
    for (const Transfer& transfer : starts) {
      ++messages[static_cast<std::size_t>(transfer.source.value)];
      ++messages[static_cast<std::size_t>(kNumGpus + transfer.destination.value)];
    }
    EXPECT_EQ(row.at("pacing"), "ports");
    EXPECT_EQ(row.at("rounds"), *std::max_element(messages.begin(), messages.end()));
    EXPECT_EQ(row.at("makespan").get<double>(),
              test::naive_port_order_us(starts, std::vector<double>(kNumGpus, 1.0), 0));
  }
  EXPECT_GT(num_without_barriers, 0);
}

TEST_F(AuroraPlan, OrderTakesPortsAndNamesWhatIsWrong) {
  PlanOrderOptions options;
  options.matrix = path("matrix.txt");
  options.policy = "exact";
  options.ports_gbps = {8, 8, 8};  // 1000 bytes per microsecond
  options.is_json = true;
  const json result = json::parse(plan_order_command(options));
  EXPECT_EQ(result.at("unit"), "us");
  EXPECT_NEAR(result.at("orders")[0].at("makespan").get<double>(), 0.014, 1e-12);
  options.ports_gbps = {8, 8};
  EXPECT_NE(refusal(options, plan_order_command).find("--ports: 2 ports, but"), std::string::npos);
  options.ports_gbps = {8, 0, 8};
  EXPECT_NE(refusal(options, plan_order_command).find("bandwidth of port 1 is 0"), std::string::npos);
  options.ports_gbps.clear();
  options.policy = "exakt";
  EXPECT_NE(refusal(options, plan_order_command).find("did you mean \"exact\""), std::string::npos);
  options.policy = "all";
  options.matrix = path("none.txt");
  EXPECT_NE(refusal(options, plan_order_command).find("none.txt"), std::string::npos);
}

TEST_F(AuroraPlan, ImportsRealRoutingAsItsPublisherReadsIt) {
  for (const std::string workload : {"law", "summary"}) {
    const ModelTraffic model =
        import_routing_record(data_file(workload + "_layer0.json"), {.max_samples = 1 << 20});
    EXPECT_EQ(model.num_experts, 64);
    EXPECT_EQ(model.top_k, 6);
    const LayerPlacement contiguous = placement_of(contiguous_assignment(64, std::vector<int>(8, 64)));
    const std::vector<double> rows = exchange_rows(LayerDemand(model.layers[0], model, 8), contiguous);
    TrafficMatrix ours(8);
    for (int i = 0; i < 64; ++i) ours.set(i / 8, i % 8, std::llround(rows[static_cast<std::size_t>(i)]));
    EXPECT_EQ(ours, read_matrix_file(data_file(workload + "_layer0.R8.txt"))) << workload;
  }
}

TEST_F(AuroraPlan, SamplesOfRealRoutingEstimateItsRowsClosely) {
  const ModelTraffic model = import_routing_record(data_file("law_layer0.json"), {.max_samples = 256});
  EXPECT_LE(model.layers[0].samples[0].size(), 256u);
  const LayerPlacement contiguous = placement_of(contiguous_assignment(64, std::vector<int>(8, 64)));
  const std::vector<double> rows = exchange_rows(LayerDemand(model.layers[0], model, 8), contiguous);
  const TrafficMatrix exact = read_matrix_file(data_file("law_layer0.R8.txt"));
  for (int source = 0; source < 8; ++source) {
    for (int gpu = 0; gpu < 8; ++gpu) {
      if (source == gpu) continue;
      // The mean of 256 numbers of pairs per row (1 to 6) is within a few per cent.
      EXPECT_NEAR(
          rows[static_cast<std::size_t>(source * 8 + gpu)] / static_cast<double>(exact.at(source, gpu)), 1,
          0.1);
    }
  }
}

TEST_F(AuroraPlan, PlacesRealRoutingAndComparesPolicies) {
  PlanImportOptions import;
  import.data = data_file("law_layer0.json");
  import.out = path("law.json");
  import.model = "a";
  import.expert_us_per_token = 0.3;
  EXPECT_NE(plan_import_command(import).find("1 layers of 64 experts, top_k 6, 8 sources"),
            std::string::npos);
  PlanPlaceOptions place;
  place.cluster = path("cluster.toml");
  place.traffic = {path("law.json")};
  place.out = path("plan.json");
  place.trace = path("trace.json");
  place.is_comparing = true;
  place.is_json = true;
  const json result = json::parse(plan_place_command(place));
  ASSERT_EQ(result.at("placements").size(), 8u);
  std::set<std::string> names;
  for (const json& row : result.at("placements")) names.insert(row.at("placement"));
  EXPECT_EQ(names, (std::set<std::string>{"auto", "contiguous", "eplb", "lina", "paper", "rec", "rga",
                                          "round-robin"}));
  const double ours = result.at("placements")[0].at("layer_time_us");
  EXPECT_GT(result.at("bound_us").get<double>(), 0);
  EXPECT_LE(result.at("bound_us").get<double>(), ours);
  for (const json& row : result.at("placements")) {
    EXPECT_GE(row.at("layer_time_us").get<double>(), ours * (1 - 1e-9)) << row.at("placement");
  }
  const json trace = json::parse(std::ifstream(path("trace.json")));
  EXPECT_EQ(trace.at("traceEvents").size(), 8u * 5) << "five phases on each GPU";
  const DeploymentPlan plan = read_plan_file(path("plan.json"));
  const ModelTraffic traffic = read_traffic_file(path("law.json"));
  EXPECT_NEAR(evaluate_plan(plan, {&traffic, 1}, uniform_cluster(8, 100)).mean_layer_time_us, ours,
              1e-9 * ours);
}

TEST_F(AuroraPlan, TellsTheRegretOfAPlanOnAnotherWorkload) {
  for (const std::string workload : {"law", "summary"}) {
    PlanImportOptions import;
    import.data = data_file(workload + "_layer0.json");
    import.out = path(workload + ".json");
    import.model = "a";
    import.expert_us_per_token = 0.3;
    plan_import_command(import);
  }
  for (const int num_replicas : {0, 8}) {
    PlanPlaceOptions place;
    place.cluster = path("cluster.toml");
    place.traffic = {path("law.json")};
    place.evaluate = {path("summary.json")};
    place.num_replicas = num_replicas;
    place.is_json = true;
    const json row = json::parse(plan_place_command(place)).at("placements")[0];
    const double regret = row.at("regret");
    // The same policy on the other workload itself is the plan made with hindsight.
    place.traffic = place.evaluate;
    place.evaluate.clear();
    const json hindsight = json::parse(plan_place_command(place)).at("placements")[0];
    ASSERT_EQ(row.at("layers_regret").size(), 1u);
    EXPECT_EQ(row.at("hindsight_layers_us"), hindsight.at("layers_us"));
    const double layer_regret =
        row.at("layers_us")[0].get<double>() / hindsight.at("layers_us")[0].get<double>();
    EXPECT_NEAR(row.at("layers_regret")[0].get<double>(), layer_regret, 1e-12);
    EXPECT_NEAR(regret, layer_regret, 1e-12) << "one layer";
    EXPECT_FALSE(hindsight.contains("regret"));
    std::printf("planned on law, served on summary, layer 0, %d replicas: %.1f us, regret %.3f\n",
                num_replicas, row.at("layer_time_us").get<double>(), regret);
    EXPECT_GE(regret, 1 - 1e-3) << "a plan made with hindsight should not lose";
    EXPECT_LE(regret, 2);
  }
}

TEST_F(AuroraPlan, ImportsPopularityCountsAndRefusesBrokenRecords) {
  write("popularity.json", R"({"total_input_tokens": 4, "expert_popularity": [[4, 2, 2], [3, 3, 2]]})");
  PlanImportOptions import;
  import.data = path("popularity.json");
  import.num_gpus = 2;
  const ModelTraffic traffic = parse_traffic(plan_import_command(import), "imported");
  EXPECT_EQ(traffic.layers.size(), 2u);
  EXPECT_EQ(traffic.layers[0].dispatch[1], (std::vector<double>{2, 1, 1}));
  write("popularity.json", R"({"total_input_tokens": 4, "expert_popularity": [[9, 2, 2]]})");
  EXPECT_NE(refusal(import, plan_import_command).find("popularity.json"), std::string::npos);
  write(
      "r.json",
      R"({"layers":1,"experts":4,"topk":2,"tokens":2,"dtype":"uint8","layout":"[layer][token][k] row-major"})");
  import.data = path("r.json");
  write("r.topk.u8", std::string("\x00\x01\x02", 3));
  EXPECT_NE(refusal(import, plan_import_command).find("has 3 bytes"), std::string::npos);
  write("r.topk.u8", std::string("\x00\x01\x02\x07", 4));
  EXPECT_NE(refusal(import, plan_import_command).find("layer 0, token 1: expert 7 of 4"), std::string::npos);
  write("r.topk.u8", std::string("\x00\x01\x02\x02", 4));
  EXPECT_NE(refusal(import, plan_import_command).find("expert 2 twice"), std::string::npos);
}

}  // namespace
}  // namespace aurora
