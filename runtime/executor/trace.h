// Where a step's time goes: a record of phases by model and layer, on every rank, shown on one time axis.
//
// A `TraceRecorder` always sums seconds, bytes and occurrences by model and phase, which costs a few
// additions per event. With a capacity above zero it also keeps the last so many events; older ones are
// overwritten and counted. At the end of each turn it measures how much of the exchanges was hidden under
// compute (overlap.h). At the end of the run every rank serialises
// its recorder, rank 0 gathers the bytes and writes all of them as Chrome trace events (chrome://tracing,
// ui.perfetto.dev): one process per rank, and per model one row for compute and one for exchanges.
//
// Times are nanoseconds of the recording rank's steady clock; the writer adds each rank's clock offset, so
// that events of different hosts line up within the offset's uncertainty.
//
// Threads: one thread records.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/executor/overlap.h"
#include "runtime/moe/phase.h"
#include "runtime/moe/phase_marker.h"

namespace aurora {

struct TraceEvent {
  std::int32_t model_index = 0;
  std::int32_t layer = kNoLayer;
  Phase phase = Phase::kAttention;
  std::int64_t start_ns = 0;  // steady clock of the recording rank
  std::int64_t end_ns = 0;    // not before start_ns
  std::int64_t bytes = 0;     // sent by this rank; 0 for compute

  friend bool operator==(const TraceEvent&, const TraceEvent&) = default;
};

struct PhaseTotal {
  double seconds = 0;
  std::int64_t bytes = 0;
  std::int64_t num_events = 0;

  friend bool operator==(const PhaseTotal&, const PhaseTotal&) = default;
};

/// Indexed by phase.
using PhaseTotals = std::array<PhaseTotal, kNumPhases>;

/// Now, on the clock of the events.
std::int64_t trace_clock_ns();

/// What one rank recorded, as the others see it.
struct RankTrace {
  std::int32_t rank = 0;
  std::int64_t clock_offset_ns = 0;        // added to the rank's times gives rank 0's
  std::int64_t num_lost_events = 0;        // overwritten by later ones
  std::vector<PhaseTotals> totals;         // [model]
  std::vector<TraceEvent> events;          // in the order of recording
  std::vector<OverlapTotal> overlap = {};  // [model], then of all models
};

class TraceRecorder {
 public:
  /// `capacity` events are kept, 0 for totals only. Throws kInvalidArgument for fewer than one model or a
  /// capacity whose memory cannot be addressed.
  TraceRecorder(std::size_t num_models, std::size_t capacity);

  /// Throws kInternal for a model or phase out of range or an end before the start.
  void record(const TraceEvent& event);
  /// All that was recorded so far has ended.
  void end_turn() { overlap_.end_turn(); }
  /// Forgets everything recorded; keeps the capacity.
  void clear();

  bool keeps_events() const { return capacity_ > 0; }
  const PhaseTotal& total(std::size_t model_index, Phase phase) const;
  /// Of the turns that have ended: [num_models], then of all models.
  const std::vector<OverlapTotal>& overlap() const { return overlap_.totals(); }
  /// Phase names with seconds, in the order of a step.
  std::vector<std::pair<std::string, double>> phase_seconds(std::size_t model_index) const;
  /// In the order of recording.
  std::vector<TraceEvent> events() const;
  std::int64_t num_lost_events() const;

  /// Everything recorded, in the byte order of this machine's architecture (all ranks of a job share one).
  std::vector<std::byte> serialize(std::int32_t rank, std::int64_t clock_offset_ns) const;

 private:
  std::size_t capacity_;
  std::vector<PhaseTotals> totals_;  // [model]
  OverlapMeter overlap_;
  std::vector<TraceEvent> events_;  // a ring once `capacity_` is reached
  std::size_t num_recorded_ = 0;
};

/// The inverse of TraceRecorder::serialize. Throws kFormat naming what is wrong and where.
RankTrace parse_rank_trace(std::span<const std::byte> bytes);

/// What was planned to be done, on a time axis of its own.
struct PlannedSpan {
  std::int32_t rank = 0;
  std::int32_t model_index = 0;
  std::int32_t layer = 0;
  Phase phase = Phase::kGate;
  double start_us = 0;
  double end_us = 0;
};

/// One JSON object with `traceEvents`: complete events ("X") in microseconds since the earliest event, pid =
/// rank, tid = 2 * model + (1 for exchanges), and metadata that names processes and rows. `planned` gets rows
/// below those of all models, beginning with the step of the first model on the first rank whose distance to
/// the next is the median. `model_names` is indexed by model; throws kInvalidArgument when an event's model
/// has no name.
std::string write_trace_json(std::span<const RankTrace> ranks, std::span<const std::string> model_names,
                             std::span<const PlannedSpan> planned = {});

}  // namespace aurora
