// Whole engines over the thread transport, against the reference answers of Hugging Face transformers.
#include "runtime/engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "kernels/error.h"
#include "runtime/plan_io/routing_record.h"
#include "tests/support/engine_harness.h"
#include "tests/support/random_checkpoint.h"

namespace aurora {
namespace {

using test::EngineRun;
using test::ReferencePrompt;

void expect_references(const EngineRun& run, const std::map<RequestId, ReferencePrompt>& expected) {
  ASSERT_EQ(run.results.size(), expected.size());
  for (const auto& [id, prompt] : expected) {
    const GenerationResult& result = run.results.at(id);
    EXPECT_FALSE(result.error.has_value()) << *result.error;
    EXPECT_EQ(result.token_ids, prompt.greedy_ids) << result.model << ": " << prompt.prompt;
    EXPECT_EQ(result.prompt_tokens, static_cast<std::int64_t>(prompt.prompt_ids.size()));
    EXPECT_EQ(result.text, prompt.greedy_text);
    EXPECT_EQ(run.streamed_text.at(id), prompt.greedy_text);
  }
}

class EngineRanks : public ::testing::TestWithParam<int> {};

TEST_P(EngineRanks, AnswersAllReferencesOfBothModelsTogether) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  expect_references(test::run_engine(test::example_options(), GetParam(), requests), expected);
}

TEST_P(EngineRanks, AnswersThemOneAfterTheOther) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  EngineOptions options = test::example_options();
  options.schedule = Schedule::kSerial;
  for (ModelOptions& model : options.models) model.max_batch_requests = 1;
  expect_references(test::run_engine(options, GetParam(), requests, 1), expected);
}

INSTANTIATE_TEST_SUITE_P(Ranks, EngineRanks, ::testing::Values(1, 2, 3, 5, 8));

TEST(Engine, AnswersTheReferencesUnderEveryOrderAndOnWorkerStreams) {
  for (const OrderPolicy order : all_order_policies()) {
    std::map<RequestId, ReferencePrompt> expected;
    const auto requests = test::reference_requests(expected);
    EngineOptions options = test::example_options();
    options.order = order;
    SCOPED_TRACE(order_policy_name(order));
    expect_references(test::run_engine(options, 3, requests, 5, {.options = {.worker_streams = true}}),
                      expected);
  }
}

TEST(Engine, ChoosesAnOrderForEveryExchangeByTheFabricThatItMeasured) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  EngineOptions options = test::example_options();
  options.order = OrderPolicy::kAuto;
  const EngineRun run = test::run_engine(options, 3, requests);
  expect_references(run, expected);
  for (const EngineReport::Model& model : run.report.models) {
    std::int64_t num_chosen = 0;
    for (const auto& [order, times] : model.orders) num_chosen += times;
    EXPECT_EQ(num_chosen, model.num_exchanges);
    EXPECT_GT(model.predicted_seconds, 0);
    EXPECT_GT(model.planning_seconds, 0);
  }
}

/// Of a fabric on which a group of two peers ends late, and single messages cost nothing.
TEST(Engine, ChoosesByTheFabricFileThatItIsGiven) {
  const auto file =
      std::filesystem::temp_directory_path() / ("aurora-fabric-" + std::to_string(getpid()) + ".json");
  std::ofstream(file) << R"({"version": 1, "execution": "lanes", "ports_gbps": [10, 10, 10],
    "start_us": 0, "messages": [{"bytes": 1, "extra_us": 0}], "groups": [{"peers": 2, "start_us": 1e6, "stretch": 1}],
    "orders": [{"order": "group", "stretch": 1, "extra_us": 0, "full_us": 0}]})";
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  EngineOptions options = test::example_options();
  options.order = OrderPolicy::kAuto;
  options.fabric_file = file;
  const EngineRun run = test::run_engine(options, 3, requests);
  expect_references(run, expected);
  for (const EngineReport::Model& model : run.report.models) {
    EXPECT_LT(model.predicted_seconds, 1) << "one group of two peers alone is predicted to take a second";
    std::int64_t num_single = 0;
    for (const auto& [order, times] : model.orders) num_single += order == "group" ? 0 : times;
    EXPECT_GT(num_single, 0);
  }
  EXPECT_THROW(test::run_engine(options, 2, requests), Error) << "it was measured by three ranks";
  options.order = OrderPolicy::kGroup;
  EXPECT_THROW(test::run_engine(options, 3, requests), Error) << "a file that nothing is chosen by";
  std::filesystem::remove(file);
}

TEST(Engine, AFloat8WireSavesBytesAndKeepsMostTokens) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  EngineOptions options = test::example_options();
  options.wire_dtype = DType::kBFloat16;
  const EngineRun wider = test::run_engine(options, 3, requests);
  options.wire_dtype = DType::kFloat8E4M3;
  const EngineRun run = test::run_engine(options, 3, requests);
  double num_tokens = 0, num_same = 0;
  for (const auto& [id, prompt] : expected) {
    const std::vector<TokenId>& found = run.results.at(id).token_ids;
    num_tokens += static_cast<double>(prompt.greedy_ids.size());
    for (std::size_t i = 0; i < std::min(found.size(), prompt.greedy_ids.size()); ++i) {
      num_same += found[i] == prompt.greedy_ids[i];
    }
  }
  std::cout << "share of greedy tokens that agree, each answer going its own way: " << num_same / num_tokens
            << '\n';
  EXPECT_GT(num_same / num_tokens, 0.5);
  for (std::size_t model = 0; model < run.report.models.size(); ++model) {
    EXPECT_GT(run.report.models[model].float8_saved_bytes, 0);
    EXPECT_LT(run.report.models[model].exchanged_bytes, wider.report.models[model].exchanged_bytes);
    EXPECT_EQ(wider.report.models[model].float8_saved_bytes, 0);
  }
}

TEST(Engine, AnswersTheReferencesWithDecodeStepsAsGraphs) {
  for (const bool worker_streams : {false, true}) {
    for (const int num_ranks : {1, 3}) {
      std::map<RequestId, ReferencePrompt> expected;
      const auto requests = test::reference_requests(expected);
      const BackendOptions backend{.worker_streams = worker_streams, .graphs = true};
      SCOPED_TRACE(std::to_string(num_ranks) + " ranks" + (worker_streams ? ", worker streams" : ""));
      EngineOptions options = test::example_options();
      for (const Schedule schedule : {Schedule::kColocated, Schedule::kSerial}) {
        options.schedule = schedule;
        const EngineRun run = test::run_engine(options, num_ranks, requests, SIZE_MAX, {.options = backend});
        expect_references(run, expected);
        for (const EngineReport::Model& model : run.report.models) {
          EXPECT_EQ(model.num_exchanges > 0, num_ranks > 1);
        }
      }
    }
  }
}

TEST(Engine, AnswersTheReferencesOnAGpuWithAndWithoutGraphs) {
  const auto backends = available_backends();
  if (std::ranges::find(backends, "cuda") == backends.end() || visible_devices("cuda").num_devices == 0) {
    GTEST_SKIP() << "no GPU";
  }
  for (const bool graphs : {false, true}) {
    std::map<RequestId, ReferencePrompt> expected;
    const auto requests = test::reference_requests(expected);
    SCOPED_TRACE(graphs ? "with graphs" : "without graphs");
    expect_references(test::run_engine(test::example_options(), 1, requests, SIZE_MAX,
                                       {.name = "cuda", .options = {.graphs = graphs}}),
                      expected);
  }
}

TEST(Engine, AnswersTheFixturesOfTheOtherArchitecturesTogether) {
  EngineOptions options;
  std::vector<GenerationRequest> requests;
  std::map<RequestId, std::vector<TokenId>> expected;
  for (const char* name : {"tiny-qwen2-moe", "tiny-olmoe", "tiny-mixtral-window"}) {
    const auto folder = std::filesystem::path(AURORA_SOURCE_DIR) / "tests" / "fixtures" / name;
    options.models.push_back(test::model_options(folder));
    for (const ReferencePrompt& prompt : test::read_reference(folder)) {
      GenerationRequest request;
      request.id = requests.size();
      request.model = name;
      request.prompt_token_ids = prompt.prompt_ids;
      request.sampling.max_tokens = static_cast<std::int32_t>(prompt.greedy_ids.size());
      expected[request.id] = prompt.greedy_ids;
      requests.push_back(std::move(request));
    }
  }
  for (const int num_ranks : {1, 3, 8}) {
    const EngineRun run = test::run_engine(options, num_ranks, requests);
    for (const auto& [id, ids] : expected)
      EXPECT_EQ(run.results.at(id).token_ids, ids) << run.results.at(id).model;
  }
}

/// Tokens of every request, and the seeds and temperatures that make sampling matter.
std::vector<GenerationRequest> sampled_requests() {
  std::map<RequestId, ReferencePrompt> expected;
  auto requests = test::reference_requests(expected);
  for (GenerationRequest& request : requests) {
    request.sampling.temperature = request.id % 3 == 0 ? 0.0F : 0.9F;
    request.sampling.top_k = request.id % 2 == 0 ? 50 : 0;
    request.sampling.top_p = request.id % 4 == 0 ? 0.9F : 1.0F;
    request.sampling.seed = request.id;
    request.sampling.max_tokens = 24;
  }
  return requests;
}

std::map<RequestId, std::vector<TokenId>> tokens_of(const EngineRun& run) {
  std::map<RequestId, std::vector<TokenId>> tokens;
  for (const auto& [id, result] : run.results) tokens[id] = result.token_ids;
  return tokens;
}

TEST(Engine, DeterministicSamplingDoesNotDependOnRanksBatchesChunksOrPlacement) {
  EngineOptions options = test::example_options();
  options.deterministic = true;
  const auto baseline = tokens_of(test::run_engine(options, 1, sampled_requests()));
  for (const int num_ranks : {2, 3, 8}) {
    for (const char* placement : {"contiguous", "round-robin", "auto"}) {
      EngineOptions varied = options;
      varied.placement = placement;
      for (ModelOptions& model : varied.models) {
        model.max_batch_requests = num_ranks == 3 ? 2 : 64;
        model.max_batch_tokens = num_ranks == 8 ? 64 : 7 * num_ranks;
        model.max_batch_requests = std::min(model.max_batch_requests, model.max_batch_tokens);
      }
      EXPECT_EQ(tokens_of(test::run_engine(varied, num_ranks, sampled_requests(), 3)), baseline)
          << num_ranks << " ranks, " << placement;
    }
  }
}

TEST(Engine, PreemptedRequestsResumeWithTheSameAnswer) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  EngineOptions options = test::example_options();
  // Room for one long request and a little more: 196 + 32 tokens take 15 blocks of 16.
  for (ModelOptions& model : options.models) model.kv_cache_bytes = 18 * 2 * 4 * 16 * 2 * 32 * 4;
  const EngineRun run = test::run_engine(options, 1, requests);
  expect_references(run, expected);
  EXPECT_GT(run.report.models[0].preemptions + run.report.models[1].preemptions, 0);
}

TEST(Engine, StopsAtStopStringsAndAtTheEndOfText) {
  std::map<RequestId, ReferencePrompt> expected;
  auto requests = test::reference_requests(expected);
  requests.resize(1);
  const std::string text = expected[0].greedy_text;
  const std::string stop = text.substr(text.size() / 2, 5);
  requests[0].sampling.stop = {"never to be seen", stop};
  const EngineRun run = test::run_engine(test::example_options(), 2, requests);
  const GenerationResult& result = run.results.at(0);
  EXPECT_EQ(result.text, text.substr(0, text.find(stop)));
  EXPECT_EQ(run.streamed_text.at(0), result.text);
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_LT(result.token_ids.size(), expected[0].greedy_ids.size());
}

TEST(Engine, FailsBadRequestsAloneAndAnswersTheOthers) {
  std::map<RequestId, ReferencePrompt> expected;
  auto requests = test::reference_requests(expected);
  requests.resize(6);
  requests[1].model = "no-such-model";
  requests[2].prompt_token_ids = std::vector<TokenId>(2000, 5);
  requests[3].prompt_token_ids = std::vector<TokenId>{1, 4000};
  requests[4].prompt = "half a character \xc3";
  const EngineRun run = test::run_engine(test::example_options(), 2, requests);
  ASSERT_EQ(run.results.size(), 6U);
  EXPECT_EQ(run.results.at(0).token_ids, expected[0].greedy_ids);
  EXPECT_EQ(run.results.at(5).token_ids, expected[5].greedy_ids);
  EXPECT_NE(run.results.at(1).error.value().find("tiny-qwen3-moe"), std::string::npos)
      << "lists what is loaded";
  EXPECT_NE(run.results.at(2).error.value().find("2000"), std::string::npos);
  EXPECT_NE(run.results.at(2).error.value().find("1024"), std::string::npos);
  EXPECT_NE(run.results.at(3).error.value().find("4000"), std::string::npos);
  EXPECT_TRUE(run.results.at(4).error.has_value());
}

TEST(Engine, NamesTheModelThatIsThereTwice) {
  EngineOptions options = test::example_options();
  options.models[1].name = options.models[0].name;
  try {
    test::run_engine(options, 2, {});
    FAIL() << "two models of one name were accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("tiny-mixtral"), std::string::npos) << error.what();
  }
}

TEST(Engine, ReportsWhatItDid) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  EngineOptions options = test::example_options();
  options.record_trace = true;
  const EngineRun run = test::run_engine(options, 3, requests);
  ASSERT_EQ(run.report.models.size(), 2U);
  for (std::size_t index = 0; index < 2; ++index) {
    const EngineReport::Model& model = run.report.models[index];
    EXPECT_EQ(model.requests, 12);
    EXPECT_EQ(model.generated_tokens, 12 * 32);
    EXPECT_GT(model.exchanged_bytes, 0);
    EXPECT_GT(model.bytes_without_deduplication, model.exchanged_bytes);
    EXPECT_GT(model.bound_seconds, 0);
    EXPECT_GT(model.achieved_seconds, 0);
    // Every token but the last of each request passes the model once, in every layer, to top_k experts.
    const std::int64_t num_tokens = model.prompt_tokens + 12 * 31;
    for (const auto& layer : model.expert_tokens) {
      std::int64_t sum = 0;
      for (const std::int64_t tokens : layer) sum += tokens;
      EXPECT_EQ(sum, num_tokens * (index == 0 ? 2 : 4));
    }
    ASSERT_EQ(run.traffic[index].layers.size(), 4U);
    EXPECT_EQ(run.traffic[index].layers[0].dispatch.size(), 3U);
  }
  const auto trace = nlohmann::json::parse(run.trace);
  EXPECT_GT(trace.at("traceEvents").size(), 1000U);
}

/// A stream does one thing after the other. Where streams run behind the host the trace shows the device's
/// times, so that the events of one row and step follow each other in the order in which they are recorded,
/// each rounded to a nanosecond. The head ends a step; from one step to the next the clocks are compared
/// anew.
TEST(Engine, TracesWorkerStreamsByTheTimesOfTheirWork) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  EngineOptions options = test::example_options();
  options.record_trace = true;
  const EngineRun run =
      test::run_engine(options, 2, requests, SIZE_MAX, {.options = {.worker_streams = true}});
  constexpr double kRounding = 0.0021;                 // us
  std::map<std::pair<int, int>, double> previous_end;  // by row, within a step
  std::map<std::string, int> num_events;
  const auto trace = nlohmann::json::parse(run.trace);
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    if (event.at("tid") >= 4) continue;  // as planned
    ++num_events[event.at("name")];
    if (event.at("cat") != "compute") continue;
    const std::pair<int, int> row = {event.at("pid"), event.at("tid")};
    const double start = event.at("ts");
    const auto previous = previous_end.try_emplace(row, start).first;
    EXPECT_LE(previous->second, start + kRounding);
    previous->second = start + event.at("dur").get<double>();
    if (event.at("name") == "head") previous_end.erase(row);
  }
  EXPECT_TRUE(previous_end.empty()) << "every step ends with a head";
  // Every layer of every step has one attention, two parts of gate and of experts, and one aggregation.
  EXPECT_GT(num_events["attention"], 0);
  EXPECT_EQ(num_events["gate"], 2 * num_events["attention"]);
  EXPECT_EQ(num_events["experts"], 2 * num_events["attention"]);
  EXPECT_EQ(num_events["aggregation"], num_events["attention"]);
  EXPECT_EQ(num_events["counts"], num_events["attention"]);
}

TEST(Engine, ReplaysRealRoutingOfDeepSeekOnAModelOfItsShape) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("aurora-replay-" + std::to_string(::getpid()));
  test::write_random_checkpoint(folder / "shape-64-6", {.num_layers = 3});
  EngineOptions options;
  options.models = {test::model_options(folder / "shape-64-6")};
  const auto law = std::filesystem::path(AURORA_SOURCE_DIR) / "benchmarks" / "routing" / "law.json";
  options.models[0].replay_routing = law;
  const RoutingRecord record = read_routing_record(law);
  std::vector<std::vector<std::int64_t>> expected(3, std::vector<std::int64_t>(64, 0));
  std::vector<GenerationRequest> requests;
  for (RequestId id = 0; id < 6; ++id) {
    GenerationRequest request;
    request.id = id;
    request.model = "shape-64-6";
    request.prompt_token_ids = std::vector<TokenId>(10 + id, static_cast<TokenId>(id + 1));
    request.sampling.max_tokens = 8;
    request.sampling.ignore_eos = true;
    requests.push_back(request);
    // Token p of request r of the record; the last generated token is never run through the model.
    const auto counts = record.request_token_counts;
    const std::int64_t first =
        std::accumulate(counts.begin(), counts.begin() + static_cast<std::ptrdiff_t>(id), std::int64_t{0});
    for (std::int64_t layer = 0; layer < 3; ++layer) {
      for (std::int64_t position = 0; position < 10 + static_cast<std::int64_t>(id) + 7; ++position) {
        const std::int64_t token = first + position % counts[id];
        for (std::int64_t k = 0; k < 6; ++k)
          ++expected[layer][record.expert_ids[((layer * record.num_tokens) + token) * 6 + k]];
      }
    }
  }
  for (const int num_ranks : {1, 4}) {
    for (const bool worker_streams : {false, true}) {
      const EngineRun run = test::run_engine(options, num_ranks, requests, SIZE_MAX,
                                             {.options = {.worker_streams = worker_streams}});
      EXPECT_EQ(run.report.models[0].expert_tokens, expected);
    }
  }
  std::filesystem::remove_all(folder);
}

TEST(Engine, AnswersTheReferencesWithReplicasOfHotExperts) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  EngineOptions options = test::example_options();
  options.num_replicas = 4;
  for (const char* placement : {"auto", "eplb"}) {
    options.placement = placement;
    expect_references(test::run_engine(options, 5, requests), expected);
  }
}

TEST(Engine, ReplaysTheRecordsOfTwoModelsToTheSameAnswers) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("aurora-two-records-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  std::map<RequestId, ReferencePrompt> expected;
  auto requests = test::reference_requests(expected);
  // Requests of the two models in turn: a record numbers the requests of its own model only.
  std::ranges::stable_sort(requests, {}, [](const GenerationRequest& request) { return request.id % 12; });
  EngineOptions options = test::example_options();
  options.record_routing = folder / "r.json";
  test::run_engine(options, 2, requests);
  EngineOptions replaying = test::example_options();
  replaying.models[0].replay_routing = folder / "r.tiny-mixtral.json";
  replaying.models[1].replay_routing = folder / "r.tiny-qwen3-moe.json";
  for (const int num_ranks : {1, 3}) {
    expect_references(
        test::run_engine(replaying, num_ranks, requests, SIZE_MAX, {.options = {.worker_streams = true}}),
        expected);
  }
  std::filesystem::remove_all(folder);
}

TEST(Engine, RefusesMoreRanksThanExperts) {
  EngineOptions options = test::example_options();
  try {
    test::run_engine(options, 25, {});
    FAIL() << "25 ranks for 24 experts were accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("25"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("24"), std::string::npos) << error.what();
  }
}

TEST(Engine, ReplaysTheRoutingThatItRecorded) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("aurora-routing-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  std::map<RequestId, ReferencePrompt> expected;
  auto requests = test::reference_requests(expected);
  EngineOptions options = test::example_options();
  options.models.resize(1);
  requests.resize(12);
  options.record_routing = folder / "routing.json";
  test::run_engine(options, 3, requests);
  const RoutingRecord record = read_routing_record(options.record_routing);
  EXPECT_EQ(record.request_token_counts.size(), 12U);
  EXPECT_EQ(record.request_token_counts[0], static_cast<std::int64_t>(expected[0].prompt_ids.size()) + 31);

  EngineOptions replaying = test::example_options();
  replaying.models.resize(1);
  replaying.models[0].replay_routing = options.record_routing;
  const EngineRun same = test::run_engine(replaying, 2, requests);
  for (const auto& [id, result] : same.results) EXPECT_EQ(result.token_ids, expected[id].greedy_ids);

  // Everything to expert 0 and 1: the replay decides, not the gate.
  RoutingRecord skewed = record;
  for (std::size_t i = 0; i < skewed.expert_ids.size(); ++i)
    skewed.expert_ids[i] = static_cast<std::uint16_t>(i % 2);
  write_routing_record(folder / "skewed.json", skewed);
  replaying.models[0].replay_routing = folder / "skewed.json";
  const EngineRun run = test::run_engine(replaying, 2, requests);
  for (const auto& layer : run.report.models[0].expert_tokens) {
    EXPECT_GT(layer[0], 0);
    EXPECT_EQ(layer[0], layer[1]);
    EXPECT_EQ(layer[2], 0);
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace aurora
