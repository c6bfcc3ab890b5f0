#include "runtime/executor/trace.h"

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "kernels/error.h"

namespace aurora {

namespace {

constexpr std::uint32_t kTraceMagic = 0x43525441;  // "ATRC"
constexpr std::uint32_t kTraceVersion = 2;
constexpr std::int64_t kNsPerUs = 1000;

struct TraceHeader {
  std::uint32_t magic = kTraceMagic;
  std::uint32_t version = kTraceVersion;
  std::int32_t rank = 0;
  std::uint32_t num_phases = kNumPhases;
  std::int64_t clock_offset_ns = 0;
  std::int64_t num_lost_events = 0;
  std::uint64_t num_models = 0;
  std::uint64_t num_events = 0;
};

static_assert(std::is_trivially_copyable_v<TraceHeader> && std::is_trivially_copyable_v<TraceEvent> &&
              std::is_trivially_copyable_v<PhaseTotals> && std::is_trivially_copyable_v<OverlapTotal>);

// Writes values to the front of a space whose length is known to suffice, and moves on.
template <typename T>
void put(std::span<std::byte>& space, std::span<const T> values) {
  if (!values.empty()) std::memcpy(space.data(), values.data(), values.size_bytes());
  space = space.subspan(values.size_bytes());
}

// Takes values off the front of a byte sequence whose length is known to suffice.
template <typename T>
void take(std::span<const std::byte>& bytes, std::span<T> values) {
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size_bytes());
  bytes = bytes.subspan(values.size_bytes());
}

[[noreturn]] void refuse_trace(const std::string& why) {
  throw Error(ErrorKind::kFormat, "a rank's trace is malformed: " + why);
}

void check_lengths(const TraceHeader& header, std::size_t rest_bytes) {
  // Counts are bounded before they are multiplied, so that the sums below cannot overflow.
  if (header.num_models > rest_bytes || header.num_events > rest_bytes) {
    refuse_trace(std::to_string(header.num_models) + " models and " + std::to_string(header.num_events) +
                 " events do not fit into " + std::to_string(rest_bytes) + " bytes");
  }
  const std::uint64_t expected = header.num_models * sizeof(PhaseTotals) +
                                 (header.num_models + 1) * sizeof(OverlapTotal) +
                                 header.num_events * sizeof(TraceEvent);
  if (expected != rest_bytes) {
    refuse_trace("its header promises " + std::to_string(expected) + " bytes after it, there are " +
                 std::to_string(rest_bytes));
  }
}

void check_event(const TraceEvent& event, std::size_t index, std::size_t num_models) {
  const auto model = static_cast<std::int64_t>(event.model_index);
  if (model < 0 || model >= static_cast<std::int64_t>(num_models)) {
    refuse_trace("event " + std::to_string(index) + " names model " + std::to_string(model) + " of " +
                 std::to_string(num_models));
  }
  if (static_cast<std::size_t>(event.phase) >= kNumPhases) {
    refuse_trace("event " + std::to_string(index) + " has phase " +
                 std::to_string(static_cast<int>(event.phase)));
  }
  if (event.end_ns < event.start_ns) {
    refuse_trace("event " + std::to_string(index) + " ends before it starts");
  }
}

int row_of(std::int32_t model_index, bool exchanges) { return 2 * model_index + (exchanges ? 1 : 0); }

// 1234567 ns -> "1234.567": microseconds without the rounding of a floating-point number.
std::string microseconds(std::int64_t ns) {
  char text[40];
  std::snprintf(text, sizeof(text), "%" PRId64 ".%03" PRId64, ns / kNsPerUs, ns % kNsPerUs);
  return text;
}

// Names come from users; bytes that are not UTF-8 are replaced rather than refused at the end of a run.
std::string quote(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void append_metadata(std::string& json, const char* kind, int pid, int tid, const nlohmann::json& arguments) {
  const nlohmann::json event = {{"ph", "M"}, {"name", kind}, {"pid", pid}, {"tid", tid}, {"args", arguments}};
  json += quote(event) + ",\n";
}

void append_row_names(std::string& json, int rank, std::span<const std::string> model_names,
                      const std::string& prefix, int first_row) {
  for (std::size_t model = 0; model < model_names.size(); ++model) {
    for (const bool exchanges : {false, true}) {
      const int row = first_row + row_of(static_cast<std::int32_t>(model), exchanges);
      const std::string name = prefix + model_names[model] + (exchanges ? " exchange" : " compute");
      append_metadata(json, "thread_name", rank, row, {{"name", name}});
      append_metadata(json, "thread_sort_index", rank, row, {{"sort_index", row}});
    }
  }
}

/// One complete event, as far as measured and planned ones agree; `start` and `duration` in microseconds.
struct ShownEvent {
  int rank;
  int row;
  Phase phase;
  std::int32_t layer;
  std::int64_t bytes;
  std::string start, duration;
};

void append_event(std::string& json, const ShownEvent& event, const std::string& quoted_model) {
  json += "{\"ph\":\"X\",\"name\":\"";
  json += phase_name(event.phase);
  json += "\",\"cat\":\"";
  json += is_exchange(event.phase) ? "exchange" : "compute";
  json += "\",\"pid\":" + std::to_string(event.rank);
  json += ",\"tid\":" + std::to_string(event.row);
  json += ",\"ts\":" + event.start;
  json += ",\"dur\":" + event.duration;
  json += ",\"args\":{\"model\":" + quoted_model;
  if (event.layer != kNoLayer) json += ",\"layer\":" + std::to_string(event.layer);
  if (event.bytes != 0) json += ",\"bytes\":" + std::to_string(event.bytes);
  json += "}},\n";
}

/// Start of the step of the first model whose distance to the next is the median, on the rank's clock.
std::int64_t typical_step_ns(const RankTrace& trace) {
  std::vector<std::int64_t> starts;
  for (const TraceEvent& event : trace.events) {
    const bool begins_step = event.model_index == trace.events.front().model_index &&
                             event.phase == Phase::kAttention && event.layer == 0;
    if (begins_step) starts.push_back(event.start_ns);
  }
  if (starts.size() < 2) return trace.events.front().start_ns;
  std::vector<std::pair<std::int64_t, std::int64_t>> distances;  // to the next, and where
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    distances.emplace_back(starts[i + 1] - starts[i], starts[i]);
  }
  const auto median = distances.begin() + static_cast<std::ptrdiff_t>(distances.size() / 2);
  std::nth_element(distances.begin(), median, distances.end());
  return median->second;
}

}  // namespace

std::int64_t trace_clock_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

TraceRecorder::TraceRecorder(std::size_t num_models, std::size_t capacity)
    : capacity_(capacity), overlap_(num_models) {
  if (num_models == 0) throw Error(ErrorKind::kInvalidArgument, "a trace needs at least one model");
  constexpr std::size_t kMostEvents = std::numeric_limits<std::ptrdiff_t>::max() / sizeof(TraceEvent);
  if (capacity > kMostEvents) {
    throw Error(ErrorKind::kInvalidArgument, "a trace cannot keep " + std::to_string(capacity) +
                                                 " events; the limit is " + std::to_string(kMostEvents));
  }
  totals_.resize(num_models);
  events_.reserve(capacity);
}

void TraceRecorder::record(const TraceEvent& event) {
  const auto model = static_cast<std::size_t>(event.model_index);
  const auto phase = static_cast<std::size_t>(event.phase);
  check(event.model_index >= 0 && model < totals_.size(), "a trace event names a model that is loaded");
  check(phase < kNumPhases, "a trace event has a phase of a step");
  check(event.end_ns >= event.start_ns, "a trace event ends after it starts");
  PhaseTotal& total = totals_[model][phase];
  total.seconds += 1e-9 * static_cast<double>(event.end_ns - event.start_ns);
  total.bytes += event.bytes;
  ++total.num_events;
  overlap_.add(model, event.phase, {event.start_ns, event.end_ns});
  if (capacity_ == 0) return;
  if (events_.size() < capacity_) {
    events_.push_back(event);
  } else {
    events_[num_recorded_ % capacity_] = event;
  }
  ++num_recorded_;
}

void TraceRecorder::clear() {
  std::fill(totals_.begin(), totals_.end(), PhaseTotals{});
  overlap_ = OverlapMeter(totals_.size());
  events_.clear();
  num_recorded_ = 0;
}

const PhaseTotal& TraceRecorder::total(std::size_t model_index, Phase phase) const {
  check(model_index < totals_.size() && static_cast<std::size_t>(phase) < kNumPhases,
        "a phase total is asked for a model and a phase that exist");
  return totals_[model_index][static_cast<std::size_t>(phase)];
}

std::vector<std::pair<std::string, double>> TraceRecorder::phase_seconds(std::size_t model_index) const {
  std::vector<std::pair<std::string, double>> seconds;
  for (std::size_t phase = 0; phase < kNumPhases; ++phase) {
    seconds.emplace_back(phase_name(static_cast<Phase>(phase)),
                         total(model_index, static_cast<Phase>(phase)).seconds);
  }
  return seconds;
}

std::vector<TraceEvent> TraceRecorder::events() const {
  // Once the ring is full its oldest event is where the next one would go.
  const std::size_t oldest = num_recorded_ > events_.size() ? num_recorded_ % capacity_ : 0;
  std::vector<TraceEvent> ordered(events_.begin() + static_cast<std::ptrdiff_t>(oldest), events_.end());
  ordered.insert(ordered.end(), events_.begin(), events_.begin() + static_cast<std::ptrdiff_t>(oldest));
  return ordered;
}

std::int64_t TraceRecorder::num_lost_events() const {
  return static_cast<std::int64_t>(num_recorded_ - events_.size());
}

std::vector<std::byte> TraceRecorder::serialize(std::int32_t rank, std::int64_t clock_offset_ns) const {
  TraceHeader header;
  header.rank = rank;
  header.clock_offset_ns = clock_offset_ns;
  header.num_lost_events = num_lost_events();
  header.num_models = totals_.size();
  header.num_events = events_.size();
  const std::vector<TraceEvent> ordered = events();
  std::vector<std::byte> bytes(sizeof(header) + totals_.size() * sizeof(PhaseTotals) +
                               overlap().size() * sizeof(OverlapTotal) + ordered.size() * sizeof(TraceEvent));
  std::span<std::byte> space(bytes);
  put(space, std::span<const TraceHeader>(&header, 1));
  put(space, std::span<const PhaseTotals>(totals_));
  put(space, std::span<const OverlapTotal>(overlap()));
  put(space, std::span<const TraceEvent>(ordered));
  return bytes;
}

RankTrace parse_rank_trace(std::span<const std::byte> bytes) {
  TraceHeader header;
  if (bytes.size() < sizeof(header)) {
    refuse_trace(std::to_string(bytes.size()) + " bytes are less than its header of " +
                 std::to_string(sizeof(header)));
  }
  take(bytes, std::span<TraceHeader>(&header, 1));
  if (header.magic != kTraceMagic) refuse_trace("it does not start with the mark of a trace");
  if (header.version != kTraceVersion || header.num_phases != kNumPhases) {
    refuse_trace("version " + std::to_string(header.version) + " with " + std::to_string(header.num_phases) +
                 " phases was written by another build; this one reads version " +
                 std::to_string(kTraceVersion) + " with " + std::to_string(kNumPhases));
  }
  check_lengths(header, bytes.size());
  RankTrace trace{header.rank, header.clock_offset_ns, header.num_lost_events, {}, {}};
  trace.totals.resize(header.num_models);
  trace.overlap.resize(header.num_models + 1);
  trace.events.resize(header.num_events);
  take(bytes, std::span<PhaseTotals>(trace.totals));
  take(bytes, std::span<OverlapTotal>(trace.overlap));
  take(bytes, std::span<TraceEvent>(trace.events));
  for (std::size_t i = 0; i < trace.events.size(); ++i) check_event(trace.events[i], i, trace.totals.size());
  return trace;
}

namespace {

void append_measured(std::string& json, const RankTrace& trace, std::int64_t origin_ns,
                     std::span<const std::string> quoted_models) {
  for (const TraceEvent& event : trace.events) {
    const auto model = static_cast<std::size_t>(event.model_index);
    if (model >= quoted_models.size()) {
      throw Error(ErrorKind::kInvalidArgument, "a trace event of rank " + std::to_string(trace.rank) +
                                                   " names model " + std::to_string(event.model_index) +
                                                   ", there are names for " +
                                                   std::to_string(quoted_models.size()));
    }
    append_event(json,
                 {.rank = trace.rank,
                  .row = row_of(event.model_index, is_exchange(event.phase)),
                  .phase = event.phase,
                  .layer = event.layer,
                  .bytes = event.bytes,
                  .start = microseconds(event.start_ns + trace.clock_offset_ns - origin_ns),
                  .duration = microseconds(event.end_ns - event.start_ns)},
                 quoted_models[model]);
  }
}

void append_planned(std::string& json, std::span<const PlannedSpan> planned, std::int64_t start_ns,
                    std::span<const std::string> quoted_models) {
  const int first_row = row_of(static_cast<std::int32_t>(quoted_models.size()), false);
  const auto ns = [](double us) { return std::llround(us * kNsPerUs); };
  for (const PlannedSpan& span : planned) {
    append_event(json,
                 {.rank = span.rank,
                  .row = first_row + row_of(span.model_index, is_exchange(span.phase)),
                  .phase = span.phase,
                  .layer = span.layer,
                  .bytes = 0,
                  .start = microseconds(start_ns + ns(span.start_us)),
                  .duration = microseconds(ns(span.end_us - span.start_us))},
                 quoted_models[static_cast<std::size_t>(span.model_index)]);
  }
}

}  // namespace

std::string write_trace_json(std::span<const RankTrace> ranks, std::span<const std::string> model_names,
                             std::span<const PlannedSpan> planned) {
  std::vector<std::string> quoted_models;
  for (const std::string& name : model_names) quoted_models.push_back(quote(name));
  std::int64_t origin_ns = std::numeric_limits<std::int64_t>::max();
  for (const RankTrace& trace : ranks) {
    for (const TraceEvent& event : trace.events) {
      origin_ns = std::min(origin_ns, event.start_ns + trace.clock_offset_ns);
    }
  }
  std::string json = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  for (const RankTrace& trace : ranks) {
    append_metadata(json, "process_name", trace.rank, 0, {{"name", "rank " + std::to_string(trace.rank)}});
    append_metadata(json, "process_sort_index", trace.rank, 0, {{"sort_index", trace.rank}});
    append_row_names(json, trace.rank, model_names, "", 0);
    if (!planned.empty()) {
      const int first_row = row_of(static_cast<std::int32_t>(model_names.size()), false);
      append_row_names(json, trace.rank, model_names, "planned ", first_row);
    }
    append_measured(json, trace, origin_ns, quoted_models);
  }
  const bool has_events = !ranks.empty() && !ranks.front().events.empty();
  if (has_events) {
    const std::int64_t start_ns = typical_step_ns(ranks.front()) + ranks.front().clock_offset_ns - origin_ns;
    append_planned(json, planned, start_ns, quoted_models);
  }
  if (json.ends_with(",\n")) json.resize(json.size() - 2);
  return json + "\n]}\n";
}

}  // namespace aurora
