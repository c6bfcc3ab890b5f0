#include "runtime/engine_report.h"

#include <algorithm>

#include "runtime/transport/wait.h"

namespace aurora {

void ModelTotals::add_step(const std::vector<StepReply>& replies, std::size_t model, int num_moe_layers) {
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
  // Bound and prediction are computed from the global matrix and are the same on all ranks; 0 when the model
  // was not stepped.
  bound_seconds += first.bound_seconds;
  predicted_seconds += first.predicted_seconds;
  for (std::size_t candidate = 0; candidate < chosen.size(); ++candidate) {
    chosen[candidate] += first.chosen[candidate];
  }
  planning_seconds += slowest_planning;
  achieved_seconds += slowest;
  if (slowest > 0) {
    ++steps;
    num_exchanges += 2 * num_moe_layers;
  }
}

namespace {

/// One rank's contribution, in the order in which `gather_run` reads it.
void serialize_rank(ByteWriter& writer, const Transport& transport, const GatherArgs& args) {
  writer.write(args.trace.serialize(transport.rank(), args.clock_offset.count()));
  for (const auto& model : args.models) {
    writer.write(model->batcher().num_preemptions());
    model->traffic().serialize(writer);
    if (const RoutingCollector* collector = model->collector()) collector->serialize(writer);
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
  return run;
}

namespace {

/// Mean over ranks of the seconds spent in each phase of one model.
std::vector<std::pair<std::string, double>> mean_phase_seconds(const std::vector<RankTrace>& traces,
                                                               std::size_t model) {
  std::vector<std::pair<std::string, double>> seconds;
  for (std::size_t phase = 0; phase < kNumPhases; ++phase) {
    double sum = 0;
    for (const RankTrace& trace : traces) sum += trace.totals[model][phase].seconds;
    seconds.emplace_back(kPhaseNames[phase], sum / static_cast<double>(traces.size()));
  }
  return seconds;
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

void build_report(GatheredRun& run, const ReportArgs& args) {
  run.report.wall_seconds = args.wall_seconds;
  run.report.num_ranks = args.num_ranks;
  for (std::size_t index = 0; index < args.models.size(); ++index) {
    EngineReport::Model& model = run.report.models[index];
    const ModelTotals& totals = args.totals[index];
    const RequestCounts& counts = args.counts[index];
    model.name = args.models[index]->options().name;
    model.requests = counts.requests;
    model.failed_requests = counts.failed_requests;
    model.prompt_tokens = counts.prompt_tokens;
    model.generated_tokens = counts.generated_tokens;
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
      model.orders.emplace_back(order_candidate_name(order_candidates()[candidate]),
                                totals.chosen[candidate]);
    }
    model.phase_seconds = mean_phase_seconds(run.traces, index);
    std::int64_t num_pairs = 0;
    for (const auto& layer : model.expert_tokens) {
      for (const std::int64_t tokens : layer) num_pairs += tokens;
    }
    ModelTraffic& traffic = run.traffic[index];
    const RowLayout layout = args.models[index]->row_layout();
    traffic.dispatch_bytes_per_token = static_cast<double>(layout.row_bytes());
    traffic.combine_bytes_per_token = static_cast<double>(layout.return_row_bytes());
    fill_measured_times(traffic, run.traces, index, model.expert_tokens.empty() ? 0 : num_pairs);
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
