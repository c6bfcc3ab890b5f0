#include "runtime/engine_report.h"

#include <algorithm>
#include <array>

#include "runtime/transport/wait.h"

namespace aurora {

void ModelTotals::add_turn(const std::vector<StepReply>& replies, const TurnShare& share) {
  const auto model = static_cast<std::size_t>(share.model_index);
  double slowest = 0;
  double slowest_planning = 0;
  const ExchangeStatistics& first = replies.front().exchanges[model];
  for (const StepReply& reply : replies) {
    sent_bytes += reply.exchanges[model].sent_bytes;
    undeduplicated_bytes += reply.exchanges[model].undeduplicated_bytes;
    float8_saved_bytes += reply.exchanges[model].float8_saved_bytes;
    slowest = std::max(slowest, reply.exchanges[model].seconds);
    slowest_planning = std::max(slowest_planning, reply.exchanges[model].planning_seconds);
    check(reply.exchanges[model].chosen == first.chosen, "all ranks choose the same orders");
  }
  // All ranks start the same exchanges; bound and prediction are computed from the global matrix.
  num_exchanges += first.num_exchanges;
  bound_seconds += first.bound_seconds;
  predicted_seconds += first.predicted_seconds;
  for (std::size_t candidate = 0; candidate < chosen.size(); ++candidate) {
    chosen[candidate] += first.chosen[candidate];
  }
  planning_seconds += slowest_planning;
  achieved_seconds += slowest;
  steps += share.num_steps;
}

namespace {

/// One rank's contribution, in the order in which `gather_run` reads it.
void serialize_rank(ByteWriter& writer, const Transport& transport, const GatherArgs& args) {
  writer.write(args.trace.serialize(transport.rank(), args.clock_offset.count()));
  for (const auto& model : args.models) {
    writer.write(model->num_preemptions());
    model->traffic().serialize(writer);
    if (const RoutingCollector* collector = model->collector()) collector->serialize(writer);
  }
  const bool is_leader = args.group.ranks.front() == transport.rank();
  writer.write(is_leader ? args.group.models : std::vector<std::size_t>());
  if (!is_leader) return;
  for (const std::size_t model : args.group.models) {
    const RequestCounts& counts = (*args.counts)[model];
    writer.write(args.totals[model]);
    for (const std::int64_t count :
         {counts.requests, counts.failed_requests, counts.prompt_tokens, counts.generated_tokens}) {
      writer.write(count);
    }
    writer.write(counts.first_token_seconds);
    writer.write(counts.per_token_seconds);
  }
}

/// What the leaders kept, in place.
void read_kept_by_leader(ByteReader& reader, GatheredRun& run) {
  for (const std::size_t model : reader.read_vector<std::size_t>()) {
    RequestCounts& counts = run.counts[model];
    run.totals[model] = reader.read<ModelTotals>();
    for (std::int64_t* count :
         {&counts.requests, &counts.failed_requests, &counts.prompt_tokens, &counts.generated_tokens}) {
      *count = reader.read<std::int64_t>();
    }
    counts.first_token_seconds = reader.read_vector<double>();
    counts.per_token_seconds = reader.read_vector<double>();
  }
}

ModelTraffic empty_traffic(const ServedModel& model) {
  ModelTraffic traffic;
  traffic.model = model.options().name;
  traffic.num_experts = static_cast<int>(model.config().num_experts);
  traffic.top_k = static_cast<int>(model.config().top_k);
  traffic.expert_bytes = static_cast<double>(model.expert_weight_bytes());
  traffic.layers.resize(static_cast<std::size_t>(model.num_moe_layers()));
  return traffic;
}

RoutingRecord empty_routing(const ServedModel& model) {
  RoutingRecord record;
  record.model = model.options().name;
  record.num_layers = model.num_moe_layers();
  record.num_experts = model.config().num_experts;
  record.top_k = model.config().top_k;
  return record;
}

}  // namespace

GatheredRun gather_run(Transport& transport, Deadline deadline, const GatherArgs& args) {
  ByteWriter writer;
  serialize_rank(writer, transport, args);
  const auto all = gather(transport, 0, writer.bytes(), kReportTag, deadline, "reports of all ranks");
  GatheredRun run;
  if (transport.rank() != 0) return run;
  std::vector<ByteReader> readers(all.begin(), all.end());
  for (ByteReader& reader : readers) run.traces.push_back(parse_rank_trace(reader.read_vector<std::byte>()));
  for (const auto& model : args.models) {
    std::int64_t preemptions = 0;
    for (ByteReader& reader : readers) preemptions += reader.read<std::int64_t>();
    run.preemptions.push_back(preemptions);
    run.traffic.push_back(empty_traffic(*model));
    EngineReport::Model& report = run.report.models.emplace_back();
    merge_recorded_traffic(readers, run.traffic.back(), report.expert_tokens);
    if (model->collector() == nullptr) continue;
    run.routing.push_back(empty_routing(*model));
    merge_collected_routing(readers, run.routing.back());
  }
  run.totals.resize(args.models.size());
  run.counts.resize(args.models.size());
  for (ByteReader& reader : readers) read_kept_by_leader(reader, run);
  return run;
}

namespace {

/// Mean over the ranks that serve it of the seconds spent in each phase of one model.
std::vector<std::pair<std::string, double>> mean_phase_seconds(const std::vector<RankTrace>& traces,
                                                               const RankGroup& group, std::size_t model) {
  std::vector<std::pair<std::string, double>> seconds;
  for (std::size_t phase = 0; phase < kNumPhases; ++phase) {
    double sum = 0;
    for (const int rank : group.ranks) sum += traces[rank].totals[model][phase].seconds;
    seconds.emplace_back(kPhaseNames[phase], sum / static_cast<double>(group.ranks.size()));
  }
  return seconds;
}

/// Mean over ranks; `model` may be the number of models: all of them.
EngineReport::Overlap mean_overlap(const std::vector<RankTrace>& traces, const std::vector<int>& ranks,
                                   std::size_t model, double wall_seconds) {
  OverlapTotal sum;
  for (const int rank : ranks) {
    const OverlapTotal& of_rank = traces[rank].overlap[model];
    sum.compute_seconds += of_rank.compute_seconds;
    sum.exchange_seconds += of_rank.exchange_seconds;
    sum.exposed_seconds += of_rank.exposed_seconds;
  }
  const auto num_ranks = static_cast<double>(ranks.size());
  EngineReport::Overlap overlap{.compute_seconds = sum.compute_seconds / num_ranks,
                                .exchange_seconds = sum.exchange_seconds / num_ranks,
                                .exposed_seconds = sum.exposed_seconds / num_ranks};
  if (wall_seconds > 0) overlap.utilisation = overlap.compute_seconds / wall_seconds;
  if (sum.exchange_seconds > 0) overlap.ratio = 1 - sum.exposed_seconds / sum.exchange_seconds;
  return overlap;
}

/// Measured times per token, summed over ranks: what planning takes as the cost of compute.
void fill_measured_times(ModelTraffic& traffic, const std::vector<RankTrace>& traces, std::size_t model,
                         std::int64_t num_pairs) {
  if (num_pairs == 0 || traffic.top_k == 0) return;
  const auto microseconds = [&](Phase phase) {
    double sum = 0;
    for (const RankTrace& trace : traces) sum += trace.totals[model][static_cast<std::size_t>(phase)].seconds;
    return sum * 1e6;
  };
  const auto pairs = static_cast<double>(num_pairs);
  const double tokens = pairs / traffic.top_k;
  traffic.attention_us = microseconds(Phase::kAttention) / tokens;
  traffic.gate_us = microseconds(Phase::kGate) / tokens;
  traffic.expert_us_per_token = microseconds(Phase::kExperts) / pairs;
  traffic.aggregate_us = microseconds(Phase::kAggregation) / tokens;
}

}  // namespace

namespace {

void fill_model(EngineReport::Model& model, const GatheredRun& run, const ReportArgs& args,
                std::size_t index) {
  const ModelTotals& totals = run.totals[index];
  const RequestCounts& counts = run.counts[index];
  const auto group = std::ranges::find_if(
      args.groups, [&](const RankGroup& each) { return std::ranges::binary_search(each.models, index); });
  check(group != args.groups.end(), "every model has ranks");
  model.name = args.models[index]->options().name;
  model.num_ranks = static_cast<int>(group->ranks.size());
  model.requests = counts.requests;
  model.failed_requests = counts.failed_requests;
  model.prompt_tokens = counts.prompt_tokens;
  model.generated_tokens = counts.generated_tokens;
  model.first_token_seconds = percentiles(counts.first_token_seconds);
  model.per_token_seconds = percentiles(counts.per_token_seconds);
  model.preemptions = run.preemptions[index];
  model.steps = totals.steps;
  model.tokens_per_second =
      args.wall_seconds > 0 ? static_cast<double>(counts.generated_tokens) / args.wall_seconds : 0;
  model.num_exchanges = totals.num_exchanges;
  model.exchanged_bytes = totals.sent_bytes;
  model.bytes_without_deduplication = totals.undeduplicated_bytes;
  model.float8_saved_bytes = totals.float8_saved_bytes;
  model.bound_seconds = totals.bound_seconds;
  model.achieved_seconds = totals.achieved_seconds;
  model.planning_seconds = totals.planning_seconds;
  model.predicted_seconds = totals.predicted_seconds;
  for (std::size_t candidate = 0; candidate < totals.chosen.size(); ++candidate) {
    if (totals.chosen[candidate] == 0) continue;
    model.orders.emplace_back(order_candidate_name(order_candidates()[candidate]), totals.chosen[candidate]);
  }
  model.phase_seconds = mean_phase_seconds(run.traces, *group, index);
  model.overlap = mean_overlap(run.traces, group->ranks, index, args.wall_seconds);
}

}  // namespace

Percentiles percentiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  // Nearest rank: the least value that no more than the rest are above.
  const auto at = [&](std::size_t percent) {
    const std::size_t rank = (percent * values.size() + 99) / 100;
    return values[std::max<std::size_t>(rank, 1) - 1];
  };
  return {at(50), at(90), at(99)};
}

void build_report(GatheredRun& run, const ReportArgs& args) {
  std::vector<int> all_ranks;
  for (const RankTrace& trace : run.traces) all_ranks.push_back(trace.rank);
  run.report.wall_seconds = args.wall_seconds;
  run.report.num_ranks = static_cast<int>(all_ranks.size());
  run.report.overlap = mean_overlap(run.traces, all_ranks, args.models.size(), args.wall_seconds);
  for (std::size_t index = 0; index < args.models.size(); ++index) {
    EngineReport::Model& model = run.report.models[index];
    fill_model(model, run, args, index);
    std::int64_t num_pairs = 0;
    for (const auto& layer : model.expert_tokens) {
      for (const std::int64_t tokens : layer) num_pairs += tokens;
    }
    ModelTraffic& traffic = run.traffic[index];
    const RowLayout layout = args.models[index]->row_layout(args.wire_dtype);
    traffic.dispatch_bytes_per_token = static_cast<double>(layout.row_bytes());
    traffic.combine_bytes_per_token = static_cast<double>(layout.return_row_bytes());
    fill_measured_times(traffic, run.traces, index, model.expert_tokens.empty() ? 0 : num_pairs);
  }
}

void add_planned_seconds(EngineReport& report, std::span<const PlannedSpan> of_step) {
  std::vector<std::array<double, kNumPhases>> seconds(report.models.size());
  for (const PlannedSpan& span : of_step) {
    const auto model = static_cast<std::size_t>(span.model_index);
    const double scale =
        1e-6 * static_cast<double>(report.models[model].steps) / report.models[model].num_ranks;
    seconds[model][static_cast<std::size_t>(span.phase)] += (span.end_us - span.start_us) * scale;
  }
  for (std::size_t model = 0; model < seconds.size(); ++model) {
    for (const Phase phase :
         {Phase::kGate, Phase::kDispatch, Phase::kExperts, Phase::kCombine, Phase::kAggregation}) {
      report.models[model].planned_seconds.emplace_back(phase_name(phase),
                                                        seconds[model][static_cast<std::size_t>(phase)]);
    }
  }
}

void write_routing(const GatheredRun& run, const std::filesystem::path& file,
                   const std::vector<std::unique_ptr<ServedModel>>& models) {
  for (std::size_t index = 0; index < run.routing.size(); ++index) {
    std::filesystem::path target = file;
    if (models.size() > 1) {
      target.replace_extension();
      target += "." + models[index]->options().name + file.extension().string();
    }
    write_routing_record(target, run.routing[index]);
  }
}

}  // namespace aurora
