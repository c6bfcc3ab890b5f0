#include "runtime/engine.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <thread>

#include "kernels/backend_registry.h"
#include "runtime/agreement.h"
#include "runtime/deployment.h"
#include "runtime/engine_protocol.h"
#include "runtime/engine_report.h"
#include "runtime/executor/expert_move.h"
#include "runtime/executor/served_model.h"
#include "runtime/executor/trace.h"
#include "runtime/executor/turn_executor.h"
#include "runtime/fabric_agreement.h"
#include "runtime/feed_relay.h"
#include "runtime/moe/compute_turns.h"
#include "runtime/plan_io/plan_file.h"
#include "runtime/planned_timeline.h"
#include "runtime/rank_groups.h"
#include "runtime/rank_memory.h"
#include "runtime/replanner.h"
#include "runtime/request_assigner.h"
#include "runtime/serialization.h"
#include "runtime/transport/clock_offset.h"
#include "runtime/transport/group_transport.h"
#include "runtime/transport/wait.h"
#include "runtime/turn_planner.h"
#include "scheduler/makespan_bound.h"

namespace aurora {
namespace {

using Clock = std::chrono::steady_clock;

/// Events kept per rank for --trace: about an hour of decode steps of two 4-layer models, 100 MB.
constexpr std::size_t kTraceCapacity = std::size_t{1} << 21;
/// How often an idle rank 0 looks at its feed, and tells the others that it lives.
constexpr std::chrono::milliseconds kFeedPoll{1};
constexpr std::chrono::seconds kHeartbeat{1};
/// How long ranks wait for each other while loading: ranks host different numbers of experts, and disks are
/// slow.
constexpr std::chrono::minutes kLoadTimeout{30};
/// How long work that was submitted may take after the engine has failed, before its memory is taken away.
constexpr std::chrono::seconds kLastWorkTimeout{30};

void check_options(const EngineOptions& options, const Backend& backend) {
  const auto refuse = [](const std::string& text) { throw Error(ErrorKind::kInvalidArgument, text); };
  if (options.models.empty()) refuse("no model is given; at least one is needed");
  std::set<std::string> names;
  for (const ModelOptions& model : options.models) {
    if (!names.insert(model.name).second) {
      refuse("two models are named \"" + model.name + "\"; give one another name in its configuration file");
    }
    if (!backend.computes(model.dtype)) {
      refuse("model " + model.name + ": dtype " + std::string(dtype_name(model.dtype)) +
             " is not computed by the " + std::string(backend.name()) + " backend; use float32");
    }
    if (!(model.weight > 0 && std::isfinite(model.weight))) {
      refuse("model " + model.name + ": weight is " + std::to_string(model.weight) +
             "; it must be above 0 and finite");
    }
  }
  if (options.wire_dtype == DType::kFloat16 || options.wire_dtype == DType::kInt32) {
    refuse("wire dtype " + std::string(dtype_name(*options.wire_dtype)) +
           " is none of float32, bfloat16 and float8_e4m3");
  }
  if (!options.fabric_file.empty() && options.order != OrderPolicy::kAuto) {
    refuse("fabric file " + options.fabric_file.string() + " is given, but order " +
           std::string(order_policy_name(options.order)) + " does not choose by it; use order auto");
  }
  if (options.replan.mode != ReplanMode::kOff && options.schedule == Schedule::kExclusive) {
    refuse("plans can only change while all models share all ranks; with schedule exclusive use replan off");
  }
  if (!(options.port_gbps > 0))
    refuse("port_gbps is " + std::to_string(options.port_gbps) + "; it must be positive");
}

}  // namespace

struct Engine::State {
  State(EngineOptions given, Transport& used_transport, Backend& used_backend)
      : options(std::move(given)), transport(&used_transport), backend(&used_backend) {}
  // Also after a failure, when a step may be under way: its memory goes only after its work.
  ~State() {
    for (const auto& model : models) model->finish_work(Clock::now() + kLastWorkTimeout);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  Deadline deadline() const { return Clock::now() + options.timeout; }
  bool is_leader() const { return group->rank() == 0; }
  std::size_t num_lanes() const { return options.schedule == Schedule::kTwoBatch ? 2 : 1; }
  void start();
  void open_models();
  void make_plan();
  void check_memory();
  ExchangePolicy agree_on_exchange_policy();
  void load_models(const ExchangePolicy& policy);
  std::unique_ptr<Replanner> make_replanner() const;

  std::unique_ptr<RequestAssigner> make_assigner(RequestFeed& feed);
  StepCommand next_command(RequestAssigner& assigner, Clock::time_point& last_command);
  StepCommand receive_command();
  void distribute(const StepCommand& command);
  void act_on(const MoveOrder& order, StepReply& reply);
  TrafficWindow take_window();
  StepReply take_turn(const StepCommand& command);
  void collect(const StepReply& mine, const StepCommand& command, RequestAssigner* assigner,
               Clock::time_point turn_start);
  void serve_group(RequestAssigner* assigner);
  void serve(RequestFeed* feed);
  std::vector<PlannedSpan> plan_timeline() const;
  void gather_and_report(const RequestAssigner* assigner, double wall_seconds);

  EngineOptions options;
  Transport* transport;
  Backend* backend;
  std::unique_ptr<Stream> compute;  // of all models, which end before it
  std::vector<std::unique_ptr<ServedModel>> models;
  DeploymentPlan plan;
  std::unique_ptr<ExpertMove> move;      // to another plan, under way
  std::unique_ptr<Replanner> replanner;  // rank 0, unless re-planning is off
  std::vector<RankGroup> groups;
  std::unique_ptr<Transport> own_group_transport;  // where not all ranks are in one group
  Transport* group = nullptr;                      // of the ranks that serve this rank's models
  std::shared_ptr<const FabricModel> fabric;       // between them, with order auto
  std::unique_ptr<TraceRecorder> trace;
  std::unique_ptr<ComputeTurns> compute_turns;
  std::vector<std::unique_ptr<ModelTurn>> turns;  // [model], null for those of other groups
  std::optional<TurnPlanner> turn_planner;        // leaders
  std::vector<ModelTotals> totals;                // leaders, by model
  // Here and not where they are used: after a failure their messages are under way until the transport has
  // aborted.
  std::optional<FeedHub> hub;        // rank 0
  std::optional<RemoteFeed> remote;  // other leaders
  ClockOffset clock_offset;
  GatheredRun gathered;                    // rank 0, after run
  std::vector<PlannedSpan> planned_spans;  // likewise
};

void Engine::State::open_models() {
  check_options(options, *backend);
  for (const ModelOptions& model : options.models) models.push_back(std::make_unique<ServedModel>(model));
  groups = rank_groups(options.models, options.schedule, transport->num_ranks(), options.rank_sequence);
  // Attention would gain from any number of ranks, but a rank without any expert has nothing to share.
  for (const RankGroup& each : groups) {
    std::int64_t num_experts = 0;
    for (const std::size_t model : each.models) num_experts += models[model]->config().num_experts;
    if (static_cast<std::int64_t>(each.ranks.size()) <= num_experts) continue;
    throw Error(ErrorKind::kInvalidArgument,
                std::to_string(each.ranks.size()) + " ranks, but the models that they serve have " +
                    std::to_string(num_experts) +
                    " experts in a layer together, so some ranks would hold none; start at most " +
                    std::to_string(num_experts));
  }
}

void Engine::State::start() {
  agree(*transport, kLoadTimeout, "opening the models", [&] { open_models(); });
  if (groups.size() > 1) {
    own_group_transport =
        std::make_unique<GroupTransport>(*transport, group_of(groups, transport->rank()).ranks);
  }
  group = groups.size() > 1 ? own_group_transport.get() : transport;
  compute = backend->create_stream();
  compute_turns = std::make_unique<ComputeTurns>(*backend, *compute);
  make_plan();
  trace = std::make_unique<TraceRecorder>(models.size(), options.record_trace ? kTraceCapacity : 0);
  totals.resize(models.size());
  check_memory();
  if (options.check_only) return;
  const ExchangePolicy policy = agree_on_exchange_policy();
  fabric = policy.fabric;
  agree(*transport, kLoadTimeout, "loading the models", [&] { load_models(policy); });
  clock_offset = estimate_clock_offset(*transport, 0, kClockTag, deadline());
  if (options.replan.mode == ReplanMode::kOff) return;
  agree(*transport, options.timeout, "preparing to re-plan", [&] {
    for (const auto& model : models) model->record_windows();
    if (transport->rank() == 0) replanner = make_replanner();
  });
}

std::unique_ptr<Replanner> Engine::State::make_replanner() const {
  PlanningInputs inputs = planning_inputs_of(options, models, transport->num_ranks());
  std::vector<bool> is_recorded;
  for (const auto& model : models) {
    is_recorded.push_back(options.plan_file.empty() && !model->options().traffic.empty());
  }
  return std::make_unique<Replanner>(ReplannerArgs{.options = options.replan,
                                                   .models = std::move(inputs.traffic),
                                                   .is_recorded = std::move(is_recorded),
                                                   .cluster = std::move(inputs.cluster),
                                                   .plan = plan,
                                                   .num_replicas = options.num_replicas});
}

void Engine::State::make_plan() {
  std::string text;
  agree(*transport, kLoadTimeout, "planning on rank 0", [&] {
    if (transport->rank() == 0) text = plan_text(plan_deployment_of(options, models, groups));
  });
  const auto bytes = broadcast(*transport, 0, std::as_bytes(std::span<const char>(text)), kPlanTag,
                               deadline(), "deployment plan from rank 0");
  plan = parse_plan({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "plan from rank 0");
}

/// Ranks may share a device, so every rank learns what all of them need before any takes memory.
void Engine::State::check_memory() {
  const auto needs_of = [&](int rank, DeviceMemory device) {
    RankMemory needs{std::move(device), {}};
    const RankGroup& of_rank = group_of(groups, rank);
    const MemoryTerms terms{static_cast<int>(of_rank.ranks.size()), options.wire_dtype,
                            static_cast<int>(num_lanes())};
    for (const std::size_t index : of_rank.models) {
      const ServedModel& model = *models[index];
      const ModelPlacement* placement = plan.find(model.options().name);
      check(placement != nullptr, "the plan places every model");
      needs.models.push_back(model_memory(model.options(), model.config(), *placement, GpuId{rank}, terms));
    }
    return needs;
  };
  DeviceMemory own;
  agree(*transport, options.timeout, "reading free memory", [&] { own = backend->memory(); });
  std::vector<RankMemory> ranks;
  for (int rank = 0; rank < transport->num_ranks(); ++rank) {
    ByteWriter writer;
    if (rank == transport->rank()) serialize(own, writer);
    const auto bytes =
        broadcast(*transport, rank, writer.bytes(), kMemoryTag, deadline(), "free memory of a rank");
    ByteReader reader(bytes);
    ranks.push_back(needs_of(rank, read_device_memory(reader)));
  }
  agree(*transport, options.timeout, "planning memory", [&] {
    const std::optional<std::string> shortage = memory_shortage(ranks, transport->rank());
    if (shortage) throw Error(ErrorKind::kOutOfMemory, *shortage);
  });
}

/// How the ranks of this rank's group exchange.
ExchangePolicy Engine::State::agree_on_exchange_policy() {
  ExchangePolicy policy =
      exchange_policy_of(options, group_of(groups, transport->rank()), transport->num_ranks());
  if (policy.order != OrderPolicy::kAuto) return policy;
  policy.options.ports = port_bandwidths(policy.options, group->num_ranks());
  policy.fabric =
      std::make_shared<const FabricModel>(agree_on_fabric({options, policy.options.ports, *group, *backend}));
  return policy;
}

void Engine::State::load_models(const ExchangePolicy& policy) {
  const RankGroup& own = group_of(groups, transport->rank());
  turns.resize(models.size());
  for (const std::size_t index : own.models) {
    std::vector<MoeSettings> lanes;
    for (std::size_t lane = 0; lane < num_lanes(); ++lane) {
      const std::size_t order_index = index * num_lanes() + lane;
      lanes.push_back(
          {.policy = policy,
           .wire = wire_types(options.wire_dtype, models[index]->options().dtype),
           .return_mode = options.deterministic ? ReturnMode::kPerPair : ReturnMode::kPerRow,
           .first_tag = kFirstExchangeTag + static_cast<std::uint32_t>(order_index * MoeBlock::kNumTags),
           .model_index = index,
           .order_index = order_index,
           .compute_turns = compute_turns.get()});
    }
    const ModelPlacement* placement = plan.find(models[index]->options().name);
    check(placement != nullptr, "the plan places every model");
    const ModelPlacement in_group = placement_in_group(*placement, own);
    models[index]->load({.placement = &in_group,
                         .lanes = lanes,
                         .transport = group,
                         .backend = backend,
                         .stream = compute.get()});
    turns[index] = std::make_unique<ModelTurn>(*models[index], index, *trace);
  }
  for (const auto& model : models) {
    if (!options.record_routing.empty()) model->record_routing();
  }
}

/// The leader's side of the requests.
std::unique_ptr<RequestAssigner> Engine::State::make_assigner(RequestFeed& feed) {
  std::vector<ModelTraits> traits;
  for (const auto& model : models) {
    traits.push_back({.weight = model->options().weight,
                      .parameters_per_token = parameters_per_token(model->config()),
                      .max_batch_tokens = model->options().max_batch_tokens});
  }
  turn_planner.emplace(std::move(traits), options.schedule, options.decode_steps);
  return std::make_unique<RequestAssigner>(models, group->num_ranks(), feed);
}

/// The leader: what to do next. Waits for work while the feed is open, but not longer than a heartbeat.
StepCommand Engine::State::next_command(RequestAssigner& assigner, Clock::time_point& last_command) {
  for (;;) {
    StepCommand command;
    command.requests = assigner.assign();
    command.shares = turn_planner->plan(assigner.demands());
    if (!command.shares.empty()) {
      command.kind = StepCommand::Kind::kStep;
    } else if (assigner.is_finished()) {
      command.kind = StepCommand::Kind::kStop;
    } else if (Clock::now() - last_command < kHeartbeat) {
      transport->progress();
      std::this_thread::sleep_for(kFeedPoll);
      continue;
    }
    last_command = Clock::now();
    return command;
  }
}

void Engine::State::distribute(const StepCommand& command) {
  ByteWriter writer;
  serialize(command, writer);
  broadcast(*group, 0, writer.bytes(), kCommandTag, deadline(), "turn command to all ranks");
}

StepCommand Engine::State::receive_command() {
  const auto bytes =
      broadcast(*group, 0, {}, kCommandTag, deadline(), "turn command from the leading rank", kFeedPoll);
  ByteReader reader(bytes);
  return read_step_command(reader);
}

/// Before the models step in a turn. Only kPrepare may fail alone: then nothing has changed on this rank.
void Engine::State::act_on(const MoveOrder& order, StepReply& reply) {
  switch (order.kind) {
    case MoveOrder::Kind::kNone:
      return;
    case MoveOrder::Kind::kPrepare:
      try {
        move = std::make_unique<ExpertMove>(
            ExpertMoveArgs{.models = models,
                           .next = parse_plan(order.plan, "plan from rank 0"),
                           .pace = {order.transfers, transport->num_ranks(), order.bytes_per_step},
                           .transport = transport,
                           .backend = backend,
                           .tag = kMoveTag});
      } catch (const std::exception& error) {
        reply.move_failure = error.what();
      }
      return;
    case MoveOrder::Kind::kTransfer:
      move->post_parts();
      return;
    case MoveOrder::Kind::kSwitch:
      move->commit();
      plan = move->next();
      move.reset();
      return;
    case MoveOrder::Kind::kAbandon:
      move.reset();
      return;
  }
}

TrafficWindow Engine::State::take_window() {
  TrafficWindow window;
  for (const auto& model : models) {
    ByteWriter writer;
    model->window()->serialize(writer);
    model->window()->clear();
    window.models.emplace_back(writer.bytes().begin(), writer.bytes().end());
  }
  window.device = backend->memory();
  return window;
}

StepReply Engine::State::take_turn(const StepCommand& command) {
  StepReply reply;
  const Clock::time_point start = Clock::now();
  act_on(command.move, reply);
  reply.move_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  for (const RoutedRequest& routed : command.requests) {
    if (routed.rank == group->rank()) models[routed.model_index]->batcher().add(routed.request);
  }
  std::vector<ModelTurn*> active;
  for (const TurnShare& share : command.shares) active.push_back(turns[share.model_index].get());
  run_turn(active, command.shares,
           {.num_models = models.size(),
            .num_lanes = num_lanes(),
            .schedule = options.schedule,
            .timeout = options.timeout,
            .transport = group,
            .compute_turns = compute_turns.get()});
  trace->end_turn();
  if (command.move.kind == MoveOrder::Kind::kTransfer) {
    const Clock::time_point end = Clock::now();
    move->finish_parts(deadline());
    reply.move_seconds += std::chrono::duration<double>(Clock::now() - end).count();
  }
  if (command.wants_traffic) reply.traffic = take_window();
  reply.progress.resize(models.size());
  reply.exchanges.resize(models.size());
  for (ModelTurn* turn : active) {
    reply.progress[turn->model_index()] = turn->take_progress();
    reply.exchanges[turn->model_index()] = turn->exchanges();
  }
  return reply;
}

/// Gathers the replies of a turn on the leader and applies them.
void Engine::State::collect(const StepReply& mine, const StepCommand& command, RequestAssigner* assigner,
                            Clock::time_point turn_start) {
  ByteWriter writer;
  serialize(mine, writer);
  const auto all = gather(*group, 0, writer.bytes(), kReplyTag, deadline(), "replies of a turn");
  if (assigner == nullptr) return;
  std::vector<StepReply> replies;
  for (const auto& bytes : all) {
    ByteReader reader(bytes);
    replies.push_back(read_step_reply(reader));
  }
  if (replanner != nullptr) {
    replanner->absorb(replies, std::chrono::duration<double>(Clock::now() - turn_start).count());
  }
  for (const TurnShare& share : command.shares) {
    const auto model = static_cast<std::size_t>(share.model_index);
    totals[model].add_turn(replies, share);
    for (int rank = 0; rank < group->num_ranks(); ++rank) {
      assigner->absorb(rank, std::move(replies[rank].progress[model]), turn_start);
    }
  }
}

/// Until the leader's feed is exhausted and every request of this group is answered.
void Engine::State::serve_group(RequestAssigner* assigner) {
  Clock::time_point last_command = Clock::now();
  for (;;) {
    StepCommand command = is_leader() ? next_command(*assigner, last_command) : receive_command();
    if (replanner != nullptr && command.kind == StepCommand::Kind::kStep) replanner->instruct(command);
    if (is_leader()) distribute(command);
    if (command.kind == StepCommand::Kind::kStop) break;
    if (command.kind == StepCommand::Kind::kIdle) continue;
    const StepReply reply = take_turn(command);
    collect(reply, command, assigner, last_command);
  }
}

void Engine::State::serve(RequestFeed* feed) {
  const bool is_root = transport->rank() == 0;
  check(is_root == (feed != nullptr), "rank 0, and no other, has a feed");
  std::vector<FeedBranch> branches;
  for (std::size_t index = 1; index < groups.size(); ++index) {
    FeedBranch& branch = branches.emplace_back(FeedBranch{groups[index].ranks.front(), {}});
    for (const std::size_t model : groups[index].models) {
      branch.models.push_back(models[model]->options().name);
    }
  }
  if (is_root) hub.emplace(*feed, *transport, branches, kRelayTag);
  if (!is_root && is_leader()) remote.emplace(*transport, kRelayTag);
  std::unique_ptr<RequestAssigner> assigner;
  if (is_root) assigner = make_assigner(*hub);
  if (remote) assigner = make_assigner(*remote);
  const Clock::time_point start = Clock::now();
  serve_group(assigner.get());
  if (hub) hub->flush(deadline());
  if (remote) remote->finish(deadline());
  gather_and_report(assigner.get(), std::chrono::duration<double>(Clock::now() - start).count());
}

void Engine::State::gather_and_report(const RequestAssigner* assigner, double wall_seconds) {
  gathered = gather_run(*transport, deadline(),
                        {.models = models,
                         .trace = *trace,
                         .clock_offset = clock_offset.offset,
                         .group = group_of(groups, transport->rank()),
                         .totals = totals,
                         .counts = assigner == nullptr ? nullptr : &assigner->counts()});
  if (transport->rank() != 0) return;
  build_report(
      gathered,
      {.models = models, .groups = groups, .wall_seconds = wall_seconds, .wire_dtype = options.wire_dtype});
  planned_spans = plan_timeline();
  add_planned_seconds(gathered.report, planned_spans);
  if (replanner != nullptr) gathered.report.replan = replanner->report();
  if (!options.record_routing.empty()) write_routing(gathered, options.record_routing, models);
}

/// Of a mean step, from what was routed and measured. Rank 0, after the run.
std::vector<PlannedSpan> Engine::State::plan_timeline() const {
  std::vector<std::int64_t> num_steps;
  for (const ModelTotals& total : gathered.totals) num_steps.push_back(total.steps);
  return planned_timeline({.plan = &plan,
                           .traffic = gathered.traffic,
                           .num_steps = num_steps,
                           .cluster = cluster_of(options, transport->num_ranks()),
                           .schedule = options.schedule,
                           .fabric = groups.size() == 1 ? fabric.get() : nullptr});
}

Engine::Engine(EngineOptions options, Transport& transport, Backend& backend)
    : state_(std::make_unique<State>(std::move(options), transport, backend)) {
  state_->start();
}

Engine::~Engine() = default;

const DeploymentPlan& Engine::plan() const { return state_->plan; }

void Engine::run(RequestFeed* feed) {
  try {
    state_->serve(feed);
  } catch (const std::exception& error) {
    // Also when another rank, or a layer over the transport, gave up first: messages into our memory must end
    // now.
    state_->transport->abort(error.what());
    throw;
  }
}

const EngineReport& Engine::report() const { return state_->gathered.report; }

std::vector<ModelTraffic> Engine::traffic() const { return state_->gathered.traffic; }

std::string Engine::trace_json() const {
  std::vector<std::string> names;
  for (const auto& model : state_->models) names.push_back(model->options().name);
  return write_trace_json(state_->gathered.traces, names, state_->planned_spans);
}

}  // namespace aurora
