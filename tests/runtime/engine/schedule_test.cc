// The four schedules on models of unequal depth, width and load: the same tokens always, one order of
// submission on all ranks, and compute that never overlaps on a rank.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <random>
#include <set>

#include "kernels/error.h"
#include "runtime/engine_protocol.h"
#include "runtime/plan_io/plan_file.h"
#include "tests/support/device_thread_transport.h"
#include "tests/support/engine_harness.h"
#include "tests/support/random_checkpoint.h"
#include "tests/support/rank_threads.h"

namespace aurora {
namespace {

using test::EngineRun;

constexpr std::uint32_t kSeed = 20260131;

/// Three random models that differ in everything, on disk while it lives.
class UnequalModels {
 public:
  UnequalModels()
      : folder_(std::filesystem::temp_directory_path() / ("aurora-schedules-" + std::to_string(::getpid()))) {
    test::write_random_checkpoint(folder_ / "deep", {.num_layers = 5, .num_experts = 12, .top_k = 3});
    test::write_random_checkpoint(
        folder_ / "wide",
        {.num_layers = 2, .num_experts = 8, .top_k = 2, .hidden = 64, .expert_inner = 48, .seed = 2});
    test::write_random_checkpoint(folder_ / "flat",
                                  {.num_layers = 1, .num_experts = 6, .top_k = 1, .seed = 3});
  }
  UnequalModels(const UnequalModels&) = delete;
  UnequalModels& operator=(const UnequalModels&) = delete;
  ~UnequalModels() { std::filesystem::remove_all(folder_); }

  EngineOptions options(std::size_t num_models) const {
    EngineOptions options;
    for (std::size_t model = 0; model < num_models; ++model) {
      options.models.push_back(test::model_options(folder_ / kNames[model]));
      options.models.back().max_batch_tokens = 24;
      options.models.back().max_batch_requests = 6;
    }
    return options;
  }

  /// Prompts from one token to several chunks, answers from one token to many; sampled and greedy.
  static std::vector<GenerationRequest> requests(std::size_t num_models) {
    std::mt19937 random(kSeed);
    std::vector<GenerationRequest> requests;
    for (RequestId id = 0; id < 9 * num_models; ++id) {
      GenerationRequest& request = requests.emplace_back();
      request.id = id;
      request.model = kNames[random() % num_models];
      std::vector<TokenId> prompt(id % 4 == 0 ? 40 + random() % 60 : 1 + random() % 9);
      for (TokenId& token : prompt) token = static_cast<TokenId>(random() % 96);
      request.prompt_token_ids = std::move(prompt);
      request.sampling.max_tokens = static_cast<std::int32_t>(1 + random() % 14);
      request.sampling.ignore_eos = true;
      request.sampling.temperature = id % 2 == 0 ? 0.0F : 0.8F;
      request.sampling.seed = id;
    }
    return requests;
  }

 private:
  static constexpr std::array<const char*, 3> kNames = {"deep", "wide", "flat"};
  std::filesystem::path folder_;
};

std::map<RequestId, std::vector<TokenId>> tokens_of(const EngineRun& run) {
  std::map<RequestId, std::vector<TokenId>> tokens;
  for (const auto& [id, result] : run.results) {
    EXPECT_FALSE(result.error.has_value()) << *result.error;
    tokens[id] = result.token_ids;
  }
  return tokens;
}

struct ScheduleCase {
  Schedule schedule;
  bool worker_streams;
};

class Schedules : public ::testing::TestWithParam<ScheduleCase> {};

TEST_P(Schedules, AnswerBitForBitAsOneRankDoesInSeries) {
  const UnequalModels models;
  for (const std::size_t num_models : {1U, 2U, 3U}) {
    EngineOptions options = models.options(num_models);
    options.deterministic = true;
    options.schedule = Schedule::kSerial;
    const auto requests = UnequalModels::requests(num_models);
    const auto expected = tokens_of(test::run_engine(options, 1, requests));
    options.schedule = GetParam().schedule;
    for (const int num_ranks : {1, 2, 3, 5}) {
      const EngineRun run = test::run_engine(options, num_ranks, requests, 4,
                                             {.options = {.worker_streams = GetParam().worker_streams}});
      EXPECT_EQ(tokens_of(run), expected)
          << schedule_name(options.schedule) << ", " << num_models << " models, " << num_ranks << " ranks";
    }
  }
}

TEST_P(Schedules, CountEveryRequestAndTokenOnce) {
  const UnequalModels models;
  EngineOptions options = models.options(3);
  options.schedule = GetParam().schedule;
  const auto requests = UnequalModels::requests(3);
  for (const int num_ranks : {2, 4}) {
    const EngineRun run = test::run_engine(options, num_ranks, requests, SIZE_MAX,
                                           {.options = {.worker_streams = GetParam().worker_streams}});
    for (const EngineReport::Model& model : run.report.models) {
      std::int64_t num_requests = 0;
      std::int64_t prompt_tokens = 0;
      std::int64_t generated_tokens = 0;
      for (const GenerationRequest& request : requests) {
        if (request.model != model.name) continue;
        ++num_requests;
        prompt_tokens += static_cast<std::int64_t>(request.prompt_token_ids->size());
        generated_tokens += request.sampling.max_tokens;
      }
      EXPECT_EQ(model.requests, num_requests);
      EXPECT_EQ(model.prompt_tokens, prompt_tokens);
      EXPECT_EQ(model.generated_tokens, generated_tokens);
      // Every token but the last of each request passes each layer once.
      const std::int64_t top_k = model.name == "deep" ? 3 : model.name == "wide" ? 2 : 1;
      for (const auto& layer : model.expert_tokens) {
        EXPECT_EQ(std::accumulate(layer.begin(), layer.end(), std::int64_t{0}),
                  (prompt_tokens + generated_tokens - num_requests) * top_k);
      }
    }
  }
}

std::string case_name(const ::testing::TestParamInfo<ScheduleCase>& info) {
  std::string name(schedule_name(info.param.schedule));
  std::erase(name, '-');
  return name + (info.param.worker_streams ? "_worker" : "_inline");
}

INSTANTIATE_TEST_SUITE_P(
    All, Schedules,
    ::testing::Values(ScheduleCase{Schedule::kSerial, false}, ScheduleCase{Schedule::kColocated, false},
                      ScheduleCase{Schedule::kTwoBatch, false}, ScheduleCase{Schedule::kExclusive, false},
                      ScheduleCase{Schedule::kSerial, true}, ScheduleCase{Schedule::kColocated, true},
                      ScheduleCase{Schedule::kTwoBatch, true}, ScheduleCase{Schedule::kExclusive, true}),
    case_name);

struct Span {
  double start_us;
  double end_us;
};

/// Compute of each rank as it was measured, from a trace of `num_models` models.
std::map<int, std::vector<Span>> compute_by_rank(const EngineRun& run, int num_models) {
  std::map<int, std::vector<Span>> spans;
  const auto trace = nlohmann::json::parse(run.trace);
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X" || event.at("cat") != "compute") continue;
    if (event.at("tid") >= 2 * num_models) continue;  // as planned
    const double start = event.at("ts");
    spans[event.at("pid")].push_back({start, start + event.at("dur").get<double>()});
  }
  return spans;
}

/// Two models' clocks are compared with the host's at different moments where streams run behind it, so only
/// inline streams give times that can be held against each other to the nanosecond.
TEST(Schedule, ComputeOfTwoModelsNeverOverlapsOnARank) {
  const UnequalModels models;
  for (const Schedule schedule : {Schedule::kColocated, Schedule::kTwoBatch}) {
    EngineOptions options = models.options(3);
    options.schedule = schedule;
    options.record_trace = true;
    const EngineRun run = test::run_engine(options, 2, UnequalModels::requests(3));
    auto by_rank = compute_by_rank(run, 3);
    EXPECT_EQ(by_rank.size(), 2U);
    for (auto& [rank, spans] : by_rank) {
      EXPECT_GT(spans.size(), 100U);
      std::ranges::sort(spans, {}, &Span::start_us);
      constexpr double kRounding = 0.0021;  // us: two ends rounded to a nanosecond each
      for (std::size_t i = 1; i < spans.size(); ++i) {
        EXPECT_LE(spans[i - 1].end_us, spans[i].start_us + kRounding) << "rank " << rank;
      }
    }
  }
}

/// Notes the tags of what is posted: of counts, and of batches between devices by peer.
class NotingTransport final : public Transport {
 public:
  explicit NotingTransport(Transport& inner) : inner_(&inner), device_tags_(inner.num_ranks()) {}

  std::string_view name() const override { return inner_->name(); }
  int rank() const override { return inner_->rank(); }
  int num_ranks() const override { return inner_->num_ranks(); }
  bool is_stream_ordered() const override { return inner_->is_stream_ordered(); }
  Ticket post(std::span<const Message> messages) override {
    const std::uint32_t tag = messages.empty() ? 0 : messages.front().tag;
    const bool is_of_exchange = tag >= kFirstExchangeTag;
    if (is_of_exchange && (tag - kFirstExchangeTag) % MoeBlock::kNumTags == 0) count_tags_.push_back(tag);
    return inner_->post(messages);
  }
  Ticket post_on_device(std::span<const Message> messages, const StreamOrder& order) override {
    for (const Message& message : messages) {
      std::vector<std::uint32_t>& tags = device_tags_[message.peer];
      if (tags.empty() || tags.back() != message.tag) tags.push_back(message.tag);
    }
    return inner_->post_on_device(messages, order);
  }
  bool test(Ticket ticket) override { return inner_->test(ticket); }
  void progress() override { inner_->progress(); }
  void abort(std::string_view reason) noexcept override { inner_->abort(reason); }

  const std::vector<std::uint32_t>& count_tags() const { return count_tags_; }
  /// [peer]
  const std::vector<std::vector<std::uint32_t>>& device_tags() const { return device_tags_; }

 private:
  Transport* inner_;
  std::vector<std::uint32_t> count_tags_;
  std::vector<std::vector<std::uint32_t>> device_tags_;
};

struct NotedRun {
  std::map<RequestId, std::vector<TokenId>> tokens;
  std::vector<std::vector<std::uint32_t>> count_tags;                // [rank]
  std::vector<std::vector<std::vector<std::uint32_t>>> device_tags;  // [rank][peer]
};

/// On worker streams over a transport that is stream-ordered, as NCCL is, or over threads.
NotedRun run_noted(const EngineOptions& options, int num_ranks, bool stream_ordered) {
  NotedRun run;
  run.count_tags.resize(static_cast<std::size_t>(num_ranks));
  run.device_tags.resize(static_cast<std::size_t>(num_ranks));
  test::ListFeed feed(UnequalModels::requests(options.models.size()), 4);
  ThreadFabric device_fabric(num_ranks);
  test::run_ranks(num_ranks, [&](Transport& threads) {
    std::optional<test::DeviceThreadTransport> device;
    if (stream_ordered) device.emplace(threads, device_fabric);
    NotingTransport transport(stream_ordered ? static_cast<Transport&>(*device) : threads);
    const auto backend =
        create_backend("cpu", {.deterministic = options.deterministic, .worker_streams = true});
    {
      Engine engine(options, transport, *backend);
      engine.run(transport.rank() == 0 ? &feed : nullptr);
    }
    run.count_tags[transport.rank()] = transport.count_tags();
    run.device_tags[transport.rank()] = transport.device_tags();
  });
  for (const auto& [id, result] : feed.results()) run.tokens[id] = result.token_ids;
  return run;
}

TEST(Schedule, EveryLaneExchangesCounts) {
  const UnequalModels models;
  for (const Schedule schedule : {Schedule::kColocated, Schedule::kTwoBatch}) {
    EngineOptions options = models.options(3);
    options.schedule = schedule;
    const NotedRun run = run_noted(options, 3, /*stream_ordered=*/false);
    EXPECT_GT(run.count_tags[0].size(), 100U);
    EXPECT_EQ(run.count_tags[1].size(), run.count_tags[0].size());
    EXPECT_EQ(run.count_tags[2].size(), run.count_tags[0].size());
    const std::set<std::uint32_t> used(run.count_tags[0].begin(), run.count_tags[0].end());
    EXPECT_EQ(used.size(), schedule == Schedule::kTwoBatch ? 6U : 3U) << "every lane exchanges";
  }
}

TEST(Schedule, BothEndsOfAPairPostDeviceBatchesInOneOrderAndAnswersStayTheSame) {
  const UnequalModels models;
  EngineOptions options = models.options(2);
  options.deterministic = true;
  const auto expected = tokens_of(test::run_engine(options, 1, UnequalModels::requests(2)));
  for (const Schedule schedule : kSchedules) {
    SCOPED_TRACE(schedule_name(schedule));
    options.schedule = schedule;
    constexpr int kNumRanks = 4;
    const NotedRun run = run_noted(options, kNumRanks, /*stream_ordered=*/true);
    EXPECT_EQ(run.tokens, expected);
    for (int rank = 0; rank < kNumRanks; ++rank) {
      for (int peer = 0; peer < rank; ++peer) {
        EXPECT_EQ(run.device_tags[rank][peer], run.device_tags[peer][rank]) << rank << " and " << peer;
      }
    }
    EXPECT_FALSE(run.device_tags[0][1].empty());
  }
}

TEST(Schedule, ExclusiveKeepsEachModelOnItsOwnRanks) {
  const UnequalModels models;
  EngineOptions options = models.options(2);
  options.schedule = Schedule::kExclusive;
  options.models[1].weight = 2;
  options.record_trace = true;
  const EngineRun run = test::run_engine(options, 6, UnequalModels::requests(2));
  std::map<std::string, std::set<int>> ranks;
  const auto trace = nlohmann::json::parse(run.trace);
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("ph") == "X") ranks[event.at("args").at("model")].insert(event.at("pid").get<int>());
  }
  EXPECT_EQ(ranks["deep"], (std::set<int>{0, 1}));
  EXPECT_EQ(ranks["wide"], (std::set<int>{2, 3, 4, 5}));
  EXPECT_EQ(run.report.models[0].num_ranks, 2);
  EXPECT_EQ(run.report.models[1].num_ranks, 4);
}

TEST(Schedule, ExclusiveFailsABadRequestOfAnotherRanksModelAlone) {
  const UnequalModels models;
  EngineOptions options = models.options(2);
  options.schedule = Schedule::kExclusive;
  auto requests = UnequalModels::requests(2);
  requests[1].model = "wide";
  requests[1].prompt_token_ids = std::vector<TokenId>{1, 4000};
  requests[2].model = "none of them";
  const EngineRun run = test::run_engine(options, 2, requests);
  EXPECT_EQ(run.results.size(), requests.size());
  EXPECT_NE(run.results.at(1).error.value().find("4000"), std::string::npos);
  EXPECT_NE(run.results.at(2).error.value().find("none of them"), std::string::npos);
  for (const auto& [id, result] : run.results) EXPECT_EQ(result.error.has_value(), id == 1 || id == 2);
}

/// Every expert e of every layer on GPU e mod 2.
DeploymentPlan interleaved_plan() {
  DeploymentPlan plan;
  plan.num_gpus = 2;
  plan.placement_policy = "by hand";
  const auto add = [&](const char* name, int num_layers, int num_experts) {
    ModelPlacement& model = plan.models.emplace_back(ModelPlacement{name, {}});
    for (int layer = 0; layer < num_layers; ++layer) {
      LayerPlacement& placement = model.layers.emplace_back();
      for (int expert = 0; expert < num_experts; ++expert) placement.experts.push_back({{GpuId{expert % 2}}});
    }
  };
  add("deep", 5, 12);
  add("wide", 2, 8);
  return plan;
}

TEST(Schedule, RefusesAPlanThatPutsAModelOnAnothersRanks) {
  const UnequalModels models;
  const auto file = std::filesystem::temp_directory_path() / ("aurora-plan-" + std::to_string(::getpid()));
  std::ofstream(file) << plan_text(interleaved_plan());
  EngineOptions options = models.options(2);
  options.plan_file = file;
  EXPECT_EQ(test::run_engine(options, 2, {}).report.num_ranks, 2) << "colocated it may";
  options.schedule = Schedule::kExclusive;
  try {
    test::run_engine(options, 2, {});
    FAIL() << "a colocated plan was taken for exclusive ranks";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("exclusive"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("deep"), std::string::npos) << error.what();
  }
  std::filesystem::remove(file);
}

/// Counts the tokens that each request had got when another one got its first.
class OrderFeed final : public test::ListFeed {
 public:
  using ListFeed::ListFeed;
  void on_text(RequestId id, const std::string& text, const std::vector<TokenId>& token_ids) override {
    counts_when_first_.try_emplace(id, counts_);
    counts_[id] += static_cast<std::int64_t>(token_ids.size());
    ListFeed::on_text(id, text, token_ids);
  }
  std::int64_t tokens_of_before_first_of(RequestId other, RequestId first) const {
    const auto& counts = counts_when_first_.at(first);
    const auto found = counts.find(other);
    return found == counts.end() ? 0 : found->second;
  }

 private:
  std::map<RequestId, std::int64_t> counts_;
  std::map<RequestId, std::map<RequestId, std::int64_t>> counts_when_first_;
};

/// A prompt of 240 tokens takes ten chunks of 24; meanwhile the other model answers. Its steps take one token
/// each.
std::int64_t tokens_decoded_during_a_long_prompt(Schedule schedule, double weight_of_other) {
  const UnequalModels models;
  EngineOptions options = models.options(2);
  options.schedule = schedule;
  options.models[1].weight = weight_of_other;
  GenerationRequest prompt;
  prompt.id = 1;
  prompt.model = "deep";
  prompt.prompt_token_ids = std::vector<TokenId>(240, 7);
  prompt.sampling = {.max_tokens = 1, .stop = {}, .ignore_eos = true};
  GenerationRequest answer;
  answer.id = 2;
  answer.model = "wide";
  answer.prompt_token_ids = std::vector<TokenId>{3};
  answer.sampling = {.max_tokens = 200, .stop = {}, .ignore_eos = true};
  OrderFeed feed({prompt, answer});
  test::run_ranks(1, [&](Transport& transport) {
    const auto backend = create_backend("cpu", {});
    Engine engine(options, transport, *backend);
    engine.run(&feed);
  });
  EXPECT_EQ(feed.results().at(2).token_ids.size(), 200U);
  return feed.tokens_of_before_first_of(2, 1);
}

TEST(Fairness, ALongPromptDoesNotHoldUpTheOtherModelsDecoding) {
  // In series both step in turn: a token for each of the ten chunks, the last of which ends the prompt.
  EXPECT_LE(tokens_decoded_during_a_long_prompt(Schedule::kSerial, 1), 10);
  const std::int64_t even = tokens_decoded_during_a_long_prompt(Schedule::kColocated, 1);
  EXPECT_GE(even, 10);
  // The heavier the other model, the smaller the chunks and the more it decodes meanwhile.
  const std::int64_t heavy = tokens_decoded_during_a_long_prompt(Schedule::kColocated, 4);
  EXPECT_GE(heavy, 3 * even);
}

}  // namespace
}  // namespace aurora
