#include "runtime/executor/trace.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "kernels/error.h"

namespace aurora {
namespace {

using Json = nlohmann::json;

TraceEvent event(std::int32_t model, std::int32_t layer, Phase phase, std::int64_t start_ns,
                 std::int64_t end_ns, std::int64_t bytes = 0) {
  return {model, layer, phase, start_ns, end_ns, bytes};
}

// Events that tell themselves apart: the index is the layer.
std::vector<TraceEvent> random_events(std::uint32_t seed, int count, int num_models) {
  std::mt19937 random(seed);
  std::vector<TraceEvent> events;
  for (int i = 0; i < count; ++i) {
    const auto start = static_cast<std::int64_t>(random());
    events.push_back(event(static_cast<std::int32_t>(random() % static_cast<unsigned>(num_models)), i,
                           static_cast<Phase>(random() % kNumPhases), start,
                           start + static_cast<std::int64_t>(random()), random() % 1000));
  }
  return events;
}

TEST(TraceRecorder, SumsSecondsBytesAndEventsByModelAndPhaseWithoutKeepingEvents) {
  TraceRecorder recorder(2, 0);
  recorder.record(event(0, 0, Phase::kDispatch, 1000, 3000, 10));
  recorder.record(event(0, 1, Phase::kDispatch, 5000, 9000, 20));
  recorder.record(event(1, 1, Phase::kExperts, 0, 500'000'000));
  // Sums of powers of ten round; a few units in the last place are owed to that.
  EXPECT_DOUBLE_EQ(recorder.total(0, Phase::kDispatch).seconds, 6e-6);
  EXPECT_EQ(recorder.total(0, Phase::kDispatch).bytes, 30);
  EXPECT_EQ(recorder.total(0, Phase::kDispatch).num_events, 2);
  EXPECT_DOUBLE_EQ(recorder.total(1, Phase::kExperts).seconds, 0.5);
  EXPECT_EQ(recorder.total(1, Phase::kDispatch), PhaseTotal{});
  EXPECT_FALSE(recorder.keeps_events());
  EXPECT_TRUE(recorder.events().empty());
  EXPECT_EQ(recorder.num_lost_events(), 0);
}

TEST(TraceRecorder, NamesPhasesInTheOrderOfAStep) {
  TraceRecorder recorder(1, 0);
  recorder.record(event(0, 0, Phase::kGate, 0, 2'000'000'000));
  std::vector<std::string> names;
  for (const auto& [name, seconds] : recorder.phase_seconds(0)) {
    names.push_back(name);
    EXPECT_DOUBLE_EQ(seconds, name == "gate" ? 2.0 : 0.0);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"attention", "gate", "counts", "dispatch", "experts", "combine",
                                             "aggregation", "head"}));
}

TEST(TraceRecorder, KeepsTheLastEventsInOrderAndCountsTheOthers) {
  for (const std::size_t capacity : {1U, 2U, 7U, 100U}) {
    for (const int count : {0, 1, 6, 7, 8, 14, 99, 100, 101, 250}) {
      SCOPED_TRACE("capacity " + std::to_string(capacity) + ", " + std::to_string(count) + " events");
      TraceRecorder recorder(3, capacity);
      const std::vector<TraceEvent> all = random_events(5, count, 3);
      for (const TraceEvent& each : all) recorder.record(each);
      const std::size_t num_kept = std::min(capacity, all.size());
      const std::vector<TraceEvent> last(all.end() - static_cast<std::ptrdiff_t>(num_kept), all.end());
      EXPECT_EQ(recorder.events(), last);
      EXPECT_EQ(recorder.num_lost_events(), static_cast<std::int64_t>(all.size() - num_kept));
    }
  }
}

TEST(TraceRecorder, StartsAnewAfterClear) {
  TraceRecorder recorder(1, 4);
  for (const TraceEvent& each : random_events(6, 9, 1)) recorder.record(each);
  recorder.clear();
  EXPECT_TRUE(recorder.events().empty());
  EXPECT_EQ(recorder.num_lost_events(), 0);
  for (std::size_t phase = 0; phase < kNumPhases; ++phase) {
    EXPECT_EQ(recorder.total(0, static_cast<Phase>(phase)), PhaseTotal{});
  }
  const TraceEvent one = event(0, 3, Phase::kHead, 1, 2);
  recorder.record(one);
  EXPECT_EQ(recorder.events(), std::vector<TraceEvent>{one});
}

TEST(TraceRecorder, RefusesWhatCannotBe) {
  EXPECT_THROW(TraceRecorder(0, 1), Error);
  EXPECT_THROW(TraceRecorder(1, SIZE_MAX), Error);
  TraceRecorder recorder(2, 4);
  EXPECT_THROW(recorder.record(event(2, 0, Phase::kGate, 0, 1)), Error);
  EXPECT_THROW(recorder.record(event(-1, 0, Phase::kGate, 0, 1)), Error);
  EXPECT_THROW(recorder.record(event(0, 0, Phase::kDone, 0, 1)), Error);
  EXPECT_THROW(recorder.record(event(0, 0, Phase::kGate, 2, 1)), Error);
  EXPECT_TRUE(recorder.events().empty());
}

TEST(RankTrace, SurvivesSerialization) {
  TraceRecorder recorder(3, 50);
  for (const TraceEvent& each : random_events(7, 80, 3)) recorder.record(each);
  const RankTrace trace = parse_rank_trace(recorder.serialize(4, -123456789));
  EXPECT_EQ(trace.rank, 4);
  EXPECT_EQ(trace.clock_offset_ns, -123456789);
  EXPECT_EQ(trace.num_lost_events, 30);
  EXPECT_EQ(trace.events, recorder.events());
  ASSERT_EQ(trace.totals.size(), 3U);
  for (std::size_t model = 0; model < 3; ++model) {
    for (std::size_t phase = 0; phase < kNumPhases; ++phase) {
      EXPECT_EQ(trace.totals[model][phase], recorder.total(model, static_cast<Phase>(phase)));
    }
  }
}

TEST(RankTrace, RefusesEveryTruncationAndForeignBytes) {
  TraceRecorder recorder(2, 3);
  for (const TraceEvent& each : random_events(8, 3, 2)) recorder.record(each);
  const std::vector<std::byte> good = recorder.serialize(0, 0);
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_THROW(parse_rank_trace(std::span(good).first(length)), Error) << length;
  }
  std::vector<std::byte> longer = good;
  longer.push_back(std::byte{0});
  EXPECT_THROW(parse_rank_trace(longer), Error);
  // Any wrong byte is refused or gives a trace whose events are still valid.
  for (std::size_t position = 0; position < good.size(); ++position) {
    std::vector<std::byte> bad = good;
    bad[position] ^= std::byte{0xff};
    try {
      for (const TraceEvent& each : parse_rank_trace(bad).events) {
        EXPECT_LT(static_cast<std::size_t>(each.phase), kNumPhases);
        EXPECT_LT(each.model_index, 2);
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFormat);
    }
  }
}

std::vector<Json> select(const Json& trace, const std::string& kind) {
  std::vector<Json> selected;
  for (const Json& each : trace.at("traceEvents")) {
    if (each.at("ph") == kind) selected.push_back(each);
  }
  return selected;
}

TEST(TraceJson, ShowsRanksOnOneTimeAxisInMicroseconds) {
  RankTrace first{0, 0, 0, {}, {event(0, 2, Phase::kAttention, 5'000'000, 5'001'500)}};
  // The second rank's clock is 4 ms behind: its event is the earlier one.
  RankTrace second{1,
                   4'000'000,
                   0,
                   {},
                   {event(1, kNoLayer, Phase::kHead, 900'001, 900'002),
                    event(1, 0, Phase::kCombine, 1'000'000, 1'250'000, 77)}};
  const std::vector<std::string> names = {"one", "two"};
  const Json trace = Json::parse(write_trace_json(std::vector<RankTrace>{first, second}, names));
  const std::vector<Json> events = select(trace, "X");
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0], Json::parse(R"({"ph": "X", "name": "attention", "cat": "compute", "pid": 0, "tid": 0,
      "ts": 99.999, "dur": 1.5, "args": {"model": "one", "layer": 2}})"));
  EXPECT_EQ(events[1], Json::parse(R"({"ph": "X", "name": "head", "cat": "compute", "pid": 1, "tid": 2,
      "ts": 0.0, "dur": 0.001, "args": {"model": "two"}})"));
  EXPECT_EQ(events[2], Json::parse(R"({"ph": "X", "name": "combine", "cat": "exchange", "pid": 1, "tid": 3,
      "ts": 99.999, "dur": 250.0, "args": {"model": "two", "layer": 0, "bytes": 77}})"));
}

TEST(TraceJson, NamesEveryProcessAndRow) {
  const std::vector<RankTrace> ranks = {RankTrace{0, 0, 0, {}, {}}, RankTrace{1, 0, 0, {}, {}}};
  const std::vector<std::string> names = {"a \"quoted\" name", "\xff broken"};
  const Json trace = Json::parse(write_trace_json(ranks, names));
  std::vector<std::string> rows;
  std::vector<std::string> processes;
  for (const Json& each : select(trace, "M")) {
    if (each.at("name") == "process_name") processes.push_back(each.at("args").at("name"));
    if (each.at("name") == "thread_name" && each.at("pid") == 1) rows.push_back(each.at("args").at("name"));
  }
  EXPECT_EQ(processes, (std::vector<std::string>{"rank 0", "rank 1"}));
  EXPECT_EQ(rows, (std::vector<std::string>{"a \"quoted\" name compute", "a \"quoted\" name exchange",
                                            "\xef\xbf\xbd broken compute", "\xef\xbf\xbd broken exchange"}));
}

TEST(TraceJson, IsValidWithoutAnyRank) {
  EXPECT_TRUE(Json::parse(write_trace_json({}, {})).at("traceEvents").empty());
}

TEST(TraceJson, RefusesAModelWithoutAName) {
  const std::vector<RankTrace> ranks = {RankTrace{0, 0, 0, {}, {event(1, 0, Phase::kGate, 0, 1)}}};
  EXPECT_THROW(write_trace_json(ranks, std::vector<std::string>{"only one"}), Error);
}

TEST(TraceClock, NeverRunsBackwards) {
  const std::int64_t earlier = trace_clock_ns();
  EXPECT_LE(earlier, trace_clock_ns());
}

/// Steps of model 1 on rank 0 begin at 1000, 1010, 1040 and 1060 us, 10, 30 and 20 us apart: the last
/// distance is the median, so what is planned begins at 1040 us, 40 us after the earliest event.
TEST(TraceJson, ShowsWhatWasPlannedInRowsOfItsOwnFromATypicalStepOn) {
  RankTrace rank{.rank = 0, .clock_offset_ns = 0, .num_lost_events = 0, .totals = {}, .events = {}};
  for (const std::int64_t us : {1000, 1010, 1040, 1060}) {
    rank.events.push_back(event(1, 0, Phase::kAttention, us * 1000, us * 1000 + 500));
    rank.events.push_back(event(1, 1, Phase::kAttention, us * 1000 + 600, us * 1000 + 700));
    rank.events.push_back(event(0, 0, Phase::kAttention, us * 1000 + 800, us * 1000 + 900));
  }
  const std::vector<PlannedSpan> planned = {
      {.rank = 0, .model_index = 0, .layer = 2, .phase = Phase::kGate, .start_us = 0, .end_us = 1.5},
      {.rank = 3, .model_index = 1, .layer = 0, .phase = Phase::kDispatch, .start_us = 1.5, .end_us = 4}};
  const std::vector<std::string> names = {"a", "b"};
  const Json trace = Json::parse(write_trace_json({&rank, 1}, names, planned));
  std::map<int, std::string> row_names;
  std::vector<Json> shown;
  for (const Json& each : trace.at("traceEvents")) {
    if (each.at("name") == "thread_name") row_names[each.at("tid")] = each.at("args").at("name");
    if (each.at("ph") == "X" && each.at("tid") >= 4) shown.push_back(each);
  }
  EXPECT_EQ(row_names[4], "planned a compute");
  EXPECT_EQ(row_names[7], "planned b exchange");
  ASSERT_EQ(shown.size(), 2U);
  EXPECT_EQ(shown[0].at("tid"), 4);
  EXPECT_EQ(shown[0].at("name"), "gate");
  EXPECT_EQ(shown[0].at("args"), Json({{"model", "a"}, {"layer", 2}}));
  EXPECT_DOUBLE_EQ(shown[0].at("ts"), 40);
  EXPECT_DOUBLE_EQ(shown[0].at("dur"), 1.5);
  EXPECT_EQ(shown[1].at("pid"), 3);
  EXPECT_EQ(shown[1].at("tid"), 7);
  EXPECT_DOUBLE_EQ(shown[1].at("ts"), 41.5);
  EXPECT_DOUBLE_EQ(shown[1].at("dur"), 2.5);
}

}  // namespace
}  // namespace aurora
