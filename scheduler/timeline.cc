#include "scheduler/timeline.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <stdexcept>

namespace aurora {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

/// A phase of one model's layer on one GPU, as the simulation orders them.
struct Step {
  std::size_t model;
  std::size_t layer;
  TimelinePhase phase;
  std::size_t gpu;
};

/// Lower comes first, for compute and for the wire: G^b, F^a, F^b, A^a, A^b, G^a of the next layer; N^a, N^b,
/// C^a, C^b.
std::size_t turn_of(const Step& step, std::size_t num_models) {
  const std::size_t first_of_layer = step.layer * 4 * num_models;
  switch (step.phase) {
    case TimelinePhase::kGate:  // the first model's gate belongs to the end of the layer before
      return first_of_layer + (step.model == 0 ? 0 : step.model);
    case TimelinePhase::kDispatch:
      return first_of_layer + step.model;
    case TimelinePhase::kExperts:
    case TimelinePhase::kCombine:
      return first_of_layer + num_models + step.model;
    case TimelinePhase::kAggregation:
      return first_of_layer + 2 * num_models + step.model;
  }
  return first_of_layer;
}

struct Flow {
  Step sender;  // phase kDispatch or kCombine
  std::size_t receiver;
  std::size_t turn;
  double bytes;
  double rate = 0;
  std::size_t sending_side = 0;
  std::size_t receiving_side = 0;
};

/// The flows that are under way, and how fast each is. Rates are kept until a flow of the same or an earlier
/// turn comes or goes.
class FluidWire {
 public:
  explicit FluidWire(const ClusterSpec& cluster) : cluster_(cluster), num_gpus_(cluster.gpus.size()) {
    // Four sides of each GPU: port sending and receiving, link sending and receiving.
    const std::vector<double> ports = port_bandwidths(cluster);
    const std::vector<double> links(num_gpus_, cluster.link_gbps * kBytesPerUsOfGbps);
    full_capacity_.insert(full_capacity_.end(), ports.begin(), ports.end());
    full_capacity_.insert(full_capacity_.end(), ports.begin(), ports.end());
    if (cluster.link_gbps > 0) {
      full_capacity_.insert(full_capacity_.end(), links.begin(), links.end());
      full_capacity_.insert(full_capacity_.end(), links.begin(), links.end());
    }
    load_.resize(full_capacity_.size());
  }

  void add(Flow flow) {
    const bool is_linked =
        cluster_.link_gbps > 0 && cluster_.gpus[flow.sender.gpu].node == cluster_.gpus[flow.receiver].node;
    flow.sending_side = flow.sender.gpu + (is_linked ? 2 * num_gpus_ : 0);
    flow.receiving_side = flow.receiver + (is_linked ? 3 * num_gpus_ : num_gpus_);
    first_stale_turn_ = std::min(first_stale_turn_, flow.turn);
    const auto place =
        std::upper_bound(flows_.begin(), flows_.end(), flow.turn,
                         [](std::size_t turn, const Flow& other) { return turn < other.turn; });
    flows_.insert(place, flow);
  }
  double next_end_us() {
    refresh_rates();
    double least = kNever;
    for (const Flow& flow : flows_) {
      if (flow.rate > 0) least = std::min(least, flow.bytes / flow.rate);
    }
    return least;
  }
  /// Advances, and hands back the flows that have ended, until the next call.
  const std::vector<Flow>& advance(double us) {
    ended_.clear();
    std::erase_if(flows_, [&](Flow& flow) {
      const double moved = flow.rate * us;
      const bool has_ended = moved >= flow.bytes * (1 - 1e-9);
      flow.bytes -= moved;
      if (!has_ended) return false;
      first_stale_turn_ = std::min(first_stale_turn_, flow.turn);
      ended_.push_back(flow);
      return true;
    });
    return ended_;
  }

 private:
  static constexpr std::size_t kNoTurn = std::numeric_limits<std::size_t>::max();

  void refresh_rates();
  void share(std::size_t first, std::size_t last);
  std::size_t tightest_side(double& level) const;

  const ClusterSpec& cluster_;
  std::size_t num_gpus_;
  std::vector<double> full_capacity_;  // [side]
  std::vector<Flow> flows_;            // by turn
  std::size_t first_stale_turn_ = kNoTurn;
  std::vector<Flow> ended_;
  // Scratch of refresh_rates.
  std::vector<double> capacity_;  // [side] not yet given away
  std::vector<double> load_;      // [side] bytes of open flows
  std::vector<Flow*> open_;
};

/// The first exchange in turn takes what it can use, then the next one.
void FluidWire::refresh_rates() {
  if (first_stale_turn_ == kNoTurn) return;
  capacity_ = full_capacity_;
  for (std::size_t first = 0; first < flows_.size();) {
    const std::size_t turn = flows_[first].turn;
    std::size_t last = first;
    while (last < flows_.size() && flows_[last].turn == turn) ++last;
    if (turn >= first_stale_turn_) {
      share(first, last);
    } else {
      for (std::size_t index = first; index < last; ++index) {
        capacity_[flows_[index].sending_side] -= flows_[index].rate;
        capacity_[flows_[index].receiving_side] -= flows_[index].rate;
      }
    }
    first = last;
  }
  first_stale_turn_ = kNoTurn;
}

/// The side that is full first when all open flows grow in proportion to their bytes, and at which rate per
/// byte.
std::size_t FluidWire::tightest_side(double& level) const {
  std::size_t tightest = 0;
  level = kNever;
  for (std::size_t side = 0; side < load_.size(); ++side) {
    if (load_[side] <= 0) continue;
    // What rounding has left of a full port is nothing.
    const double left = capacity_[side] < 1e-9 * full_capacity_[side] ? 0 : capacity_[side];
    if (left < level * load_[side]) {
      level = left / load_[side];
      tightest = side;
    }
  }
  return tightest;
}

/// Progressive filling with weights: all open flows grow in proportion to their bytes until a port is full,
/// whose flows then keep their rates.
void FluidWire::share(std::size_t first, std::size_t last) {
  open_.clear();
  for (std::size_t index = first; index < last; ++index) open_.push_back(&flows_[index]);
  while (!open_.empty()) {
    std::fill(load_.begin(), load_.end(), 0);
    for (const Flow* flow : open_) {
      load_[flow->sending_side] += flow->bytes;
      load_[flow->receiving_side] += flow->bytes;
    }
    double level = 0;
    const std::size_t tightest = tightest_side(level);
    std::erase_if(open_, [&](Flow* flow) {
      if (flow->sending_side != tightest && flow->receiving_side != tightest) return false;
      flow->rate = level * flow->bytes;
      capacity_[flow->sending_side] -= flow->rate;
      capacity_[flow->receiving_side] -= flow->rate;
      return true;
    });
  }
}

class LayerSimulation {
 public:
  LayerSimulation(std::span<const std::vector<LayerWork>> work, const ClusterSpec& cluster,
                  Execution execution);
  Timeline run();

 private:
  /// What one model's layer on one GPU still waits for.
  struct Waiting {
    std::size_t before_gate = 0;
    std::size_t before_experts = 0;
    std::size_t before_aggregation = 0;
    std::size_t flows_to_send = 0;  // of the exchange under way
    double sending_since = 0;
  };
  struct Computing {
    Step step;
    double end_us = kNever;
  };

  const LayerWork& work_of(const Step& step) const { return work_[step.model][step.layer]; }
  Waiting& waiting(std::size_t model, std::size_t layer, std::size_t gpu) {
    return waiting_[model][layer * num_gpus_ + gpu];
  }
  double duration_of(const Step& step) const;
  void prepare();
  void release(std::size_t& count, const Step& step);
  void start_computations();
  void finish_computation(const Step& step);
  void start_sending(Step step, const std::vector<double>& bytes);
  void finish_flow(const Flow& flow);
  void start_followers(const Step& aggregation);
  void record(const Step& step, double start_us, double end_us);

  std::span<const std::vector<LayerWork>> work_;
  Execution execution_;
  std::size_t num_gpus_;
  double now_us_ = 0;
  FluidWire wire_;
  std::vector<std::vector<Waiting>> waiting_;  // [model][layer * num_gpus + gpu]
  std::vector<std::vector<Step>> ready_;       // [gpu]
  std::vector<Computing> computing_;           // [gpu]
  Timeline timeline_;
  double busy_us_ = 0;
};

LayerSimulation::LayerSimulation(std::span<const std::vector<LayerWork>> work, const ClusterSpec& cluster,
                                 Execution execution)
    : work_(work),
      execution_(execution),
      num_gpus_(cluster.gpus.size()),
      wire_(cluster),
      ready_(num_gpus_),
      computing_(num_gpus_) {
  for (const auto& layers : work) {
    for (const LayerWork& layer : layers) {
      const bool fits = layer.gate_us.size() == num_gpus_ && layer.expert_us.size() == num_gpus_ &&
                        layer.aggregate_us.size() == num_gpus_ &&
                        layer.dispatch_bytes.size() == num_gpus_ * num_gpus_ &&
                        layer.combine_bytes.size() == num_gpus_ * num_gpus_;
      if (!fits) {
        throw std::invalid_argument("timeline: a layer's work is not for " + std::to_string(num_gpus_) +
                                    " GPUs");
      }
    }
  }
}

double LayerSimulation::duration_of(const Step& step) const {
  const LayerWork& work = work_of(step);
  if (step.phase == TimelinePhase::kGate) return work.gate_us[step.gpu];
  if (step.phase == TimelinePhase::kExperts) return work.expert_us[step.gpu];
  return work.aggregate_us[step.gpu];
}

/// Counts what everything waits for: experts for their GPU's gate and the flows into it, aggregation for its
/// GPU's experts and the flows back.
void LayerSimulation::prepare() {
  const auto flows_into = [&](const std::vector<double>& bytes, std::size_t gpu) {
    std::size_t count = 0;
    for (std::size_t source = 0; source < num_gpus_; ++source) {
      if (source != gpu && bytes[source * num_gpus_ + gpu] > 0) ++count;
    }
    return count;
  };
  for (std::size_t model = 0; model < work_.size(); ++model) {
    waiting_.emplace_back(work_[model].size() * num_gpus_);
    for (std::size_t layer = 0; layer < work_[model].size(); ++layer) {
      for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
        Waiting& here = waiting(model, layer, gpu);
        here.before_gate = layer == 0 ? 0 : 1;
        if (execution_ == Execution::kSerial && (model > 0 || layer > 0)) here.before_gate = num_gpus_;
        here.before_experts = 1 + flows_into(work_[model][layer].dispatch_bytes, gpu);
        here.before_aggregation = 1 + flows_into(work_[model][layer].combine_bytes, gpu);
      }
    }
    for (std::size_t gpu = 0; gpu < num_gpus_ && !work_[model].empty(); ++gpu) {
      if (waiting(model, 0, gpu).before_gate == 0)
        ready_[gpu].push_back({model, 0, TimelinePhase::kGate, gpu});
    }
  }
}

void LayerSimulation::release(std::size_t& count, const Step& step) {
  if (--count == 0) ready_[step.gpu].push_back(step);
}

void LayerSimulation::record(const Step& step, double start_us, double end_us) {
  timeline_.events.push_back({static_cast<int>(step.model), static_cast<int>(step.layer),
                              static_cast<int>(step.gpu), step.phase, start_us, end_us});
}

void LayerSimulation::start_computations() {
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
    if (computing_[gpu].end_us != kNever || ready_[gpu].empty()) continue;
    const auto first = std::min_element(
        ready_[gpu].begin(), ready_[gpu].end(),
        [&](const Step& a, const Step& b) { return turn_of(a, work_.size()) < turn_of(b, work_.size()); });
    computing_[gpu] = {*first, now_us_ + duration_of(*first)};
    ready_[gpu].erase(first);
  }
}

void LayerSimulation::finish_computation(const Step& step) {
  const double duration = duration_of(step);
  record(step, now_us_ - duration, now_us_);
  busy_us_ += duration;
  Waiting& here = waiting(step.model, step.layer, step.gpu);
  if (step.phase == TimelinePhase::kGate) {
    release(here.before_experts, {step.model, step.layer, TimelinePhase::kExperts, step.gpu});
    start_sending({step.model, step.layer, TimelinePhase::kDispatch, step.gpu}, work_of(step).dispatch_bytes);
  } else if (step.phase == TimelinePhase::kExperts) {
    release(here.before_aggregation, {step.model, step.layer, TimelinePhase::kAggregation, step.gpu});
    start_sending({step.model, step.layer, TimelinePhase::kCombine, step.gpu}, work_of(step).combine_bytes);
  } else {
    start_followers(step);
  }
}

void LayerSimulation::start_sending(Step step, const std::vector<double>& bytes) {
  Waiting& here = waiting(step.model, step.layer, step.gpu);
  here.sending_since = now_us_;
  for (std::size_t receiver = 0; receiver < num_gpus_; ++receiver) {
    const double amount = bytes[step.gpu * num_gpus_ + receiver];
    if (receiver == step.gpu || amount <= 0) continue;
    wire_.add({step, receiver, turn_of(step, work_.size()), amount});
    ++here.flows_to_send;
  }
}

void LayerSimulation::finish_flow(const Flow& flow) {
  const Step& sender = flow.sender;
  Waiting& sending = waiting(sender.model, sender.layer, sender.gpu);
  if (--sending.flows_to_send == 0) record(sender, sending.sending_since, now_us_);
  Waiting& receiving = waiting(sender.model, sender.layer, flow.receiver);
  if (sender.phase == TimelinePhase::kDispatch) {
    release(receiving.before_experts, {sender.model, sender.layer, TimelinePhase::kExperts, flow.receiver});
  } else {
    release(receiving.before_aggregation,
            {sender.model, sender.layer, TimelinePhase::kAggregation, flow.receiver});
  }
}

/// What may begin when a GPU has aggregated: its gate of the next layer; in series, the next model's layer
/// everywhere.
void LayerSimulation::start_followers(const Step& aggregation) {
  Step next = aggregation;
  next.phase = TimelinePhase::kGate;
  if (execution_ == Execution::kOverlapped) {
    ++next.layer;
    if (next.layer < work_[next.model].size()) {
      release(waiting(next.model, next.layer, next.gpu).before_gate, next);
    }
    return;
  }
  // The next model that has this layer, else the first one that has the next.
  do {
    if (++next.model == work_.size()) {
      next.model = 0;
      ++next.layer;
    }
    const bool is_over = std::all_of(work_.begin(), work_.end(), [&](const std::vector<LayerWork>& layers) {
      return next.layer >= layers.size();
    });
    if (is_over) return;
  } while (next.layer >= work_[next.model].size());
  for (next.gpu = 0; next.gpu < num_gpus_; ++next.gpu) {
    release(waiting(next.model, next.layer, next.gpu).before_gate, next);
  }
}

Timeline LayerSimulation::run() {
  prepare();
  for (;;) {
    start_computations();
    double step_us = wire_.next_end_us();
    for (const Computing& computing : computing_) step_us = std::min(step_us, computing.end_us - now_us_);
    if (step_us == kNever) break;
    step_us = std::max(0.0, step_us);
    now_us_ += step_us;
    for (const Flow& flow : wire_.advance(step_us)) finish_flow(flow);
    for (Computing& computing : computing_) {
      if (computing.end_us > now_us_) continue;
      const Step step = computing.step;
      now_us_ = std::max(now_us_, computing.end_us);
      computing.end_us = kNever;
      finish_computation(step);
    }
  }
  timeline_.makespan_us = now_us_;
  if (now_us_ > 0) timeline_.utilisation = busy_us_ / static_cast<double>(num_gpus_) / now_us_;
  return std::move(timeline_);
}

}  // namespace

std::string_view timeline_phase_name(TimelinePhase phase) {
  constexpr std::array<std::string_view, 5> kNames{"gate", "dispatch", "experts", "combine", "aggregation"};
  return kNames[static_cast<std::size_t>(phase)];
}

LayerWork layer_work(const LayerDemand& demand, const LayerPlacement& placement, const ModelTraffic& model,
                     const ClusterSpec& cluster) {
  const auto n = static_cast<std::size_t>(demand.num_gpus);
  LayerWork work;
  work.expert_us.assign(n, 0);
  for (std::size_t gpu = 0; gpu < n; ++gpu) {
    const double speed = cluster.gpus[gpu].compute;
    work.gate_us.push_back(demand.tokens[gpu] * (model.attention_us + model.gate_us) / speed);
    work.aggregate_us.push_back(demand.tokens[gpu] * model.aggregate_us / speed);
  }
  for (int expert = 0; expert < placement.num_experts(); ++expert) {
    const std::vector<double> pairs = pairs_of_replicas(demand, placement, expert);
    for (std::size_t index = 0; index < pairs.size(); ++index) {
      if (pairs[index] <= 0) continue;
      const auto gpu = static_cast<std::size_t>(placement.experts[expert][index].gpu.value);
      work.expert_us[gpu] +=
          (pairs[index] * model.expert_us_per_token + model.expert_us_per_hit) / cluster.gpus[gpu].compute;
    }
  }
  const std::vector<double> rows = exchange_rows(demand, placement);
  work.dispatch_bytes.resize(n * n);
  work.combine_bytes.resize(n * n);
  for (std::size_t source = 0; source < n; ++source) {
    for (std::size_t destination = 0; destination < n; ++destination) {
      if (source == destination) continue;
      work.dispatch_bytes[source * n + destination] =
          rows[source * n + destination] * model.dispatch_bytes_per_token;
      work.combine_bytes[destination * n + source] =
          rows[source * n + destination] * model.combine_bytes_per_token;
    }
  }
  return work;
}

Timeline simulate_layers(std::span<const std::vector<LayerWork>> work, const ClusterSpec& cluster,
                         Execution execution) {
  validate(cluster);
  return LayerSimulation(work, cluster, execution).run();
}

std::vector<std::vector<LayerWork>> split_into_two_batches(
    const std::vector<LayerWork>& work, std::span<const std::vector<double>> fixed_expert_us) {
  if (fixed_expert_us.size() != work.size()) {
    throw std::invalid_argument("timeline: fixed costs of " + std::to_string(fixed_expert_us.size()) +
                                " layers for the work of " + std::to_string(work.size()));
  }
  std::vector<LayerWork> half = work;
  for (std::size_t layer = 0; layer < half.size(); ++layer) {
    LayerWork& here = half[layer];
    for (auto* values : {&here.gate_us, &here.aggregate_us, &here.dispatch_bytes, &here.combine_bytes}) {
      for (double& value : *values) value /= 2;
    }
    for (std::size_t gpu = 0; gpu < here.expert_us.size(); ++gpu) {
      const double fixed = fixed_expert_us[layer].at(gpu);
      here.expert_us[gpu] = (here.expert_us[gpu] - fixed) / 2 + fixed;
    }
  }
  return {half, half};
}

namespace {

/// `text` inside a JSON string.
std::string json_escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      escaped += '\\';
      escaped += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", c);
      escaped += code;
    } else {
      escaped += c;
    }
  }
  return escaped;
}

}  // namespace

std::string timeline_trace_json(const Timeline& timeline, std::span<const std::string> model_names) {
  std::string text = "{\"traceEvents\": [";
  bool is_first = true;
  for (const TimelineEvent& event : timeline.events) {
    const bool is_exchange =
        event.phase == TimelinePhase::kDispatch || event.phase == TimelinePhase::kCombine;
    const std::string name = json_escaped(model_names[static_cast<std::size_t>(event.model)]);
    char line[256];
    std::snprintf(
        line, sizeof line,
        "%s\n{\"ph\": \"X\", \"name\": \"%s\", \"cat\": \"%s\", \"pid\": %d, \"tid\": %d, \"ts\": %.3f, "
        "\"dur\": %.3f, \"args\": {\"layer\": %d, \"model\": \"",
        is_first ? "" : ",", timeline_phase_name(event.phase).data(), is_exchange ? "exchange" : "compute",
        event.gpu, 2 * event.model + (is_exchange ? 1 : 0), event.start_us, event.end_us - event.start_us,
        event.layer);
    text += line + name + "\"}}";
    is_first = false;
  }
  return text + "\n]}\n";
}

}  // namespace aurora
