// Engines that change their plan while they serve: every answer is what it would have been.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>

#include "kernels/error.h"
#include "runtime/engine.h"
#include "runtime/model/model_config.h"
#include "runtime/model/model_weights.h"
#include "tests/support/device_thread_transport.h"
#include "tests/support/engine_harness.h"
#include "tests/support/faulty_backend.h"
#include "tests/support/plan_changes.h"
#include "tests/support/random_checkpoint.h"
#include "tests/support/rank_threads.h"

namespace aurora {
namespace {

using test::EngineRun;
using test::ReferencePrompt;

constexpr std::int64_t kMebibyte = 1 << 20;

/// Changes to `next(current)` whenever it can, looking every three steps.
EngineOptions changing_options(std::function<std::optional<DeploymentPlan>(const DeploymentPlan&)> next) {
  EngineOptions options = test::example_options();
  options.decode_steps = 1;  // so that plans change often
  options.replan.mode = ReplanMode::kInterval;
  options.replan.interval_steps = 3;
  options.replan.bytes_per_step = 2 * kMebibyte;
  options.replan.propose = std::move(next);
  return options;
}

std::optional<DeploymentPlan> reshuffled_by_epoch(const DeploymentPlan& current) {
  return test::reshuffled(current, static_cast<std::uint32_t>(current.epoch));
}

void expect_references(const std::map<RequestId, GenerationResult>& results,
                       const std::map<RequestId, ReferencePrompt>& expected) {
  ASSERT_EQ(results.size(), expected.size());
  for (const auto& [id, prompt] : expected) {
    EXPECT_EQ(results.at(id).token_ids, prompt.greedy_ids) << results.at(id).model << ": " << prompt.prompt;
  }
}

std::map<RequestId, std::vector<TokenId>> tokens_of(const EngineRun& run) {
  std::map<RequestId, std::vector<TokenId>> tokens;
  for (const auto& [id, result] : run.results) tokens[id] = result.token_ids;
  return tokens;
}

class ReplanRanks : public ::testing::TestWithParam<int> {};

TEST_P(ReplanRanks, AnswersTheReferencesWhileAllExpertsMoveRound) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  const EngineRun run = test::run_engine(changing_options(test::rotated), GetParam(), requests, 5);
  expect_references(run.results, expected);
  const ReplanReport& report = run.report.replan;
  ASSERT_GE(report.switches.size(), 3U);
  EXPECT_TRUE(report.failed_moves.empty());
  for (std::size_t index = 0; index < report.switches.size(); ++index) {
    const PlanSwitch& change = report.switches[index];
    EXPECT_EQ(change.epoch, index + 2);
    EXPECT_LT(change.decided_step, change.switched_step);
    // 4 layers of 8 experts and 4 of 16, all of which go elsewhere where there is an elsewhere.
    EXPECT_EQ(change.experts_moved, GetParam() == 1 ? 0 : 4 * 8 + 4 * 16);
  }
}

TEST_P(ReplanRanks, AnswersTheReferencesWhileCopiesComeAndGo) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  const EngineRun run = test::run_engine(changing_options(reshuffled_by_epoch), GetParam(), requests);
  expect_references(run.results, expected);
  EXPECT_GE(run.report.replan.switches.size(), 2U);
}

TEST_P(ReplanRanks, DeterministicSamplingDoesNotDependOnTheChanges) {
  std::map<RequestId, ReferencePrompt> expected;
  auto requests = test::reference_requests(expected);
  for (GenerationRequest& request : requests) {
    request.sampling.temperature = 0.9F;
    request.sampling.seed = request.id;
  }
  EngineOptions still = test::example_options();
  still.deterministic = true;
  EngineOptions changing = changing_options(reshuffled_by_epoch);
  changing.deterministic = true;
  const EngineRun run = test::run_engine(changing, GetParam(), requests, 4);
  EXPECT_EQ(tokens_of(run), tokens_of(test::run_engine(still, 1, requests)));
  EXPECT_GE(run.report.replan.switches.size(), 2U);
}

INSTANTIATE_TEST_SUITE_P(Ranks, ReplanRanks, ::testing::Values(1, 2, 3, 5));

TEST(Replanning, GraphsOfDecodeStepsFollowThePlan) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  const EngineRun run = test::run_engine(changing_options(reshuffled_by_epoch), 3, requests, SIZE_MAX,
                                         {.options = {.worker_streams = true, .graphs = true}});
  expect_references(run.results, expected);
  EXPECT_GE(run.report.replan.switches.size(), 2U);
}

TEST(Replanning, WeightsTravelBetweenDevicesWhereTheTransportMovesThem) {
  std::map<RequestId, ReferencePrompt> expected;
  test::ListFeed feed(test::reference_requests(expected), 6);
  ThreadFabric device_fabric(3);
  EngineReport report;
  test::run_ranks(3, [&](Transport& host) {
    test::DeviceThreadTransport transport(host, device_fabric);
    const auto backend = create_backend("cpu", {.worker_streams = true});
    Engine engine(changing_options(test::rotated), transport, *backend);
    engine.run(transport.rank() == 0 ? &feed : nullptr);
    if (transport.rank() == 0) report = engine.report();
  });
  expect_references(feed.results(), expected);
  EXPECT_GE(report.replan.switches.size(), 3U);
}

TEST(Replanning, ALowBudgetSpreadsTheMoveOverMoreSteps) {
  std::map<RequestId, ReferencePrompt> expected;
  const auto requests = test::reference_requests(expected);
  const auto steps_of_first_move = [&](std::int64_t budget) {
    EngineOptions options = changing_options(test::rotated);
    options.replan.bytes_per_step = budget;
    const EngineRun run = test::run_engine(options, 2, requests);
    expect_references(run.results, expected);
    const PlanSwitch& change = run.report.replan.switches.at(0);
    // Both ranks send half of all.
    const std::int64_t num_transfers = (change.bytes_moved / 2 + budget - 1) / budget;
    // Decided in one step, prepared in the next, transferred, and then switched.
    EXPECT_EQ(change.switched_step - change.decided_step, num_transfers + 2);
    return num_transfers;
  };
  EXPECT_GT(steps_of_first_move(kMebibyte), steps_of_first_move(8 * kMebibyte));
}

/// Whether an allocation is that of an expert of an example model, and not of a workspace.
bool is_expert(std::size_t size_bytes) {
  static const std::vector<std::int64_t> sizes = [] {
    std::vector<std::int64_t> all;
    for (const ModelOptions& model : test::example_options().models) {
      all.push_back(expert_bytes(read_model_config(model.checkpoint), model.dtype));
    }
    return all;
  }();
  return std::ranges::find(sizes, static_cast<std::int64_t>(size_bytes)) != sizes.end();
}

/// Runs the references on three ranks whose rank 1 computes on a backend that `break_backend` has prepared
/// once its engine stands. Leaves the plans of all ranks in `plans`.
EngineReport run_with_fault(const EngineOptions& options, test::ListFeed& feed,
                            const std::function<void(test::FaultyBackend&)>& break_backend,
                            std::vector<DeploymentPlan>& plans) {
  EngineReport report;
  plans.resize(3);
  test::run_ranks(3, [&](Transport& transport) {
    test::FaultyBackend backend(create_backend("cpu", {.deterministic = options.deterministic}));
    Engine engine(options, transport, backend);
    if (transport.rank() == 1) break_backend(backend);
    engine.run(transport.rank() == 0 ? &feed : nullptr);
    plans[transport.rank()] = engine.plan();
    if (transport.rank() == 0) report = engine.report();
  });
  return report;
}

TEST(Replanning, ARankWithoutMemoryLeavesTheOldPlanServingOnAllRanks) {
  std::map<RequestId, ReferencePrompt> expected;
  test::ListFeed feed(test::reference_requests(expected));
  std::vector<DeploymentPlan> plans;
  const EngineReport report = run_with_fault(
      changing_options(test::rotated), feed,
      [](test::FaultyBackend& backend) {
        // The first experts still fit.
        backend.before_allocate = [num_left = 5](std::size_t size_bytes) mutable {
          if (!is_expert(size_bytes) || num_left-- > 0) return;
          throw Error(ErrorKind::kOutOfMemory, "no room for " + std::to_string(size_bytes) + " bytes");
        };
      },
      plans);
  expect_references(feed.results(), expected);
  EXPECT_TRUE(report.replan.switches.empty());
  ASSERT_GE(report.replan.failed_moves.size(), 2U) << "it is tried again";
  EXPECT_EQ(report.replan.failed_moves[0].find("rank 1: no room for "), 0U) << report.replan.failed_moves[0];
  for (const DeploymentPlan& plan : plans) {
    EXPECT_EQ(plan.epoch, 1U);
    EXPECT_EQ(plan.models, plans[0].models);
  }
}

TEST(Replanning, AMoveAfterAFailedOneSucceeds) {
  std::map<RequestId, ReferencePrompt> expected;
  test::ListFeed feed(test::reference_requests(expected));
  std::vector<DeploymentPlan> plans;
  const EngineReport report = run_with_fault(
      changing_options(test::rotated), feed,
      [](test::FaultyBackend& backend) {
        backend.before_allocate = [has_failed = false](std::size_t size_bytes) mutable {
          if (!is_expert(size_bytes) || std::exchange(has_failed, true)) return;
          throw std::bad_alloc();
        };
      },
      plans);
  expect_references(feed.results(), expected);
  EXPECT_EQ(report.replan.failed_moves.size(), 1U);
  ASSERT_GE(report.replan.switches.size(), 1U);
  for (const DeploymentPlan& plan : plans) {
    EXPECT_EQ(plan.epoch, report.replan.switches.back().epoch);
    EXPECT_EQ(plan.models, plans[0].models);
  }
}

TEST(Replanning, ARankThatFailsWhileWeightsTravelEndsAllRanksWithItsReason) {
  std::map<RequestId, ReferencePrompt> expected;
  test::ListFeed feed(test::reference_requests(expected));
  EngineOptions options = changing_options(test::rotated);
  options.replan.bytes_per_step = kMebibyte / 64;  // the move outlasts the run
  std::vector<DeploymentPlan> plans;
  try {
    run_with_fault(
        options, feed,
        [](test::FaultyBackend& backend) {
          backend.before_allocate = [&backend, is_moving = false](std::size_t size_bytes) mutable {
            if (!is_expert(size_bytes) || std::exchange(is_moving, true)) return;
            // Some steps later, in the middle of one.
            backend.before_copy = [num_left = 100]() mutable {
              if (--num_left == 0) throw Error(ErrorKind::kDevice, "the device of this test is gone");
            };
          };
        },
        plans);
    FAIL() << "the run went on without rank 1";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the device of this test is gone"), std::string::npos)
        << error.what();
  }
}

/// A model of DeepSeek's routing shape that replays `law`, planned while it serves.
class Replay {
 public:
  Replay()
      : folder_(std::filesystem::temp_directory_path() / ("aurora-replan-" + std::to_string(::getpid()))) {
    test::write_random_checkpoint(folder_ / "shape-64-6", {.num_layers = 3});
    options.models = {test::model_options(folder_ / "shape-64-6")};
    options.models[0].replay_routing =
        std::filesystem::path(AURORA_SOURCE_DIR) / "benchmarks" / "routing" / "law.json";
    options.deterministic = true;
    options.placement = "contiguous";
    options.port_gbps = 0.1;  // exchanges are worth a move
    options.replan.interval_steps = 8;
    options.replan.horizon_steps = 100000;
    options.replan.plans_in_background = false;
    for (RequestId id = 0; id < 60; ++id) {
      GenerationRequest request;
      request.id = id;
      request.model = "shape-64-6";
      request.prompt_token_ids = std::vector<TokenId>(10 + id % 7, static_cast<TokenId>(id + 1));
      request.sampling.max_tokens = 12;
      request.sampling.ignore_eos = true;
      requests.push_back(request);
    }
  }
  ~Replay() { std::filesystem::remove_all(folder_); }
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  EngineOptions options;
  std::vector<GenerationRequest> requests;

 private:
  std::filesystem::path folder_;
};

TEST(Replanning, ThePlannerFindsABetterPlanFromWhatIsServed) {
  Replay replay;
  const auto baseline = tokens_of(test::run_engine(replay.options, 4, replay.requests, 2));
  for (const ReplanMode mode : {ReplanMode::kInterval, ReplanMode::kDrift}) {
    EngineOptions options = replay.options;
    options.replan.mode = mode;
    std::vector<std::string> notes;
    options.replan.on_note = [&](const ReplanNote& note) { notes.push_back(note.line); };
    const EngineRun run = test::run_engine(options, 4, replay.requests, 2);
    EXPECT_EQ(tokens_of(run), baseline) << replan_mode_name(mode);
    const ReplanReport& report = run.report.replan;
    ASSERT_GE(report.switches.size(), 1U) << replan_mode_name(mode);
    const PlanSwitch& first = report.switches[0];
    EXPECT_LT(first.predicted_after_us, 0.99 * first.predicted_before_us);
    EXPECT_GT(first.experts_moved, 0);
    EXPECT_GT(first.measured_before_us_per_token, 0);
    EXPECT_GT(report.num_looks, 3);
    const PlanSwitch& last = report.switches.back();
    EXPECT_GT(last.since_before_us, 0) << "steps came after it";
    EXPECT_GT(last.measured_after_us_per_token, 0);
    EXPECT_TRUE(std::ranges::any_of(
        notes, [](const std::string& note) { return note.find("plan 2 serves from step") == 0; }));
    EXPECT_LE(report.num_evaluations, report.num_looks);
  }
}

TEST(Replanning, AHorizonThatIsTooShortLeavesThePlan) {
  Replay replay;
  replay.options.replan.mode = ReplanMode::kInterval;
  replay.options.replan.horizon_steps = 1;
  const EngineRun run = test::run_engine(replay.options, 4, replay.requests, 2);
  EXPECT_TRUE(run.report.replan.switches.empty());
  EXPECT_GT(run.report.replan.num_evaluations, 0);
}

TEST(Replanning, PlanningInTheBackgroundChangesNoAnswer) {
  Replay replay;
  const auto baseline = tokens_of(test::run_engine(replay.options, 3, replay.requests, 3));
  replay.options.replan.mode = ReplanMode::kInterval;
  replay.options.replan.plans_in_background = true;
  EXPECT_EQ(tokens_of(test::run_engine(replay.options, 3, replay.requests, 3)), baseline);
}

TEST(Replanning, RefusesToChangePlansWhereModelsHaveRanksOfTheirOwn) {
  EngineOptions options = changing_options(test::rotated);
  options.schedule = Schedule::kExclusive;
  try {
    test::run_engine(options, 2, {});
    FAIL() << "models on ranks of their own were to change plans";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("schedule exclusive"), std::string::npos) << error.what();
  }
}

TEST(Replanning, RefusesABudgetOfNothing) {
  EngineOptions options = changing_options(test::rotated);
  options.replan.bytes_per_step = 0;
  try {
    test::run_engine(options, 2, {});
    FAIL() << "a move without a budget was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("bytes_per_step is 0"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace aurora
