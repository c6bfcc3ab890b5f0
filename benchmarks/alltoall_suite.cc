#include "benchmarks/alltoall_suite.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <memory>
#include <numeric>
#include <optional>
#include <system_error>
#include <utility>

#include "benchmarks/coded_payload.h"
#include "benchmarks/hold_out.h"
#include "benchmarks/machine_counters.h"
#include "benchmarks/mpi_run.h"
#include "benchmarks/sampling.h"
#include "benchmarks/traffic/named_traffic.h"
#include "kernels/backend_registry.h"
#include "kernels/error.h"
#include "runtime/dispatch/exchange.h"
#include "runtime/dispatch/fabric_measurement.h"
#include "runtime/dispatch/fabric_model.h"
#include "runtime/plan_io/cluster_file.h"
#include "runtime/plan_io/fabric_file.h"
#include "runtime/plan_io/matrix_file.h"
#include "runtime/plan_io/nearest_name.h"
#include "runtime/serialization.h"
#include "runtime/transport/mpi_session.h"
#include "runtime/transport/mpi_transport.h"
#include "runtime/transport/transport_registry.h"
#include "runtime/transport/wait.h"
#include "scheduler/cluster.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/order_policy.h"
#include "scheduler/random.h"
#include "scheduler/two_tier_network.h"

namespace aurora::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kExchangeTag = 1;
constexpr std::uint32_t kControlTag = 2;
// Beside a GPU nobody else wants the core, and a sleep would end some 60 us late.
constexpr std::chrono::microseconds kShortestSleep(1);
constexpr std::chrono::milliseconds kLongestYield(100);
constexpr Bytes kGreetingBytes = 64;

// ---- What is measured

struct Subject {
  std::string name;  // of the matrix, with its size
  TrafficMatrix traffic;
};

/// On rank 0.
std::vector<Subject> chosen_subjects(const AlltoallOptions& options, int num_gpus) {
  std::vector<Subject> matrices;
  if (!options.matrix.empty()) {
    matrices.push_back({options.matrix.stem().string(), read_matrix_file(options.matrix)});
    if (matrices.front().traffic.num_gpus() != num_gpus) {
      throw Error(ErrorKind::kInvalidArgument,
                  options.matrix.string() + " is for " + std::to_string(matrices.front().traffic.num_gpus()) +
                      " GPUs; start that many ranks, not " + std::to_string(num_gpus));
    }
  } else {
    const bool is_all = options.families == std::vector<std::string>{"all"};
    for (const std::string& name : is_all ? traffic_names() : options.families) {
      matrices.push_back({name, named_traffic(name, {.num_gpus = num_gpus,
                                                     .seed = options.seed,
                                                     .routing_folder = options.routing_folder})});
    }
  }
  constexpr Bytes kFamilyBytes = Bytes{2} << 20;
  std::vector<Bytes> sizes = options.bytes_per_rank;
  if (sizes.empty() && options.matrix.empty()) sizes.push_back(kFamilyBytes);
  if (sizes.empty()) return matrices;
  std::vector<Subject> subjects;
  for (const Bytes size : sizes) {
    for (const Subject& matrix : matrices) {
      subjects.push_back({matrix.name + " " + std::to_string(size), scaled_traffic(matrix.traffic, size)});
    }
  }
  return subjects;
}

/// In files that --matrix reads, named like their subjects with - for blanks; the name as it is in a comment.
void write_matrices(const std::vector<Subject>& subjects, const std::filesystem::path& folder) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure) {
    throw Error(ErrorKind::kIo,
                "--matrices-out: cannot create " + folder.string() + ": " + failure.message());
  }
  for (const Subject& subject : subjects) {
    std::string name = subject.name;
    std::ranges::replace(name, ' ', '-');
    std::ofstream file(folder / name);
    file << "# " << subject.name << '\n' << matrix_text(subject.traffic);
    if (!file.flush()) {
      throw Error(ErrorKind::kIo, "--matrices-out: cannot write " + (folder / name).string());
    }
  }
}

/// "all" has "auto" in it when the ports are known, and then "paced" where the host drives the exchange.
std::vector<OrderPolicy> chosen_policies(const std::vector<std::string>& names, bool knows_ports,
                                         bool is_driven_by_host) {
  std::vector<OrderPolicy> policies;
  if (names == std::vector<std::string>{"all"}) {
    policies.assign(all_order_policies().begin(), all_order_policies().end());
    if (!knows_ports || !is_driven_by_host) std::erase(policies, OrderPolicy::kPaced);
    if (knows_ports) policies.push_back(OrderPolicy::kAuto);
    return policies;
  }
  for (const std::string& name : names) {
    const auto policy = parse_order_policy(name);
    if (!policy) {
      std::vector<std::string> known = order_policy_names();
      known.emplace_back("all");
      throw Error(ErrorKind::kInvalidArgument,
                  "--policy: unknown policy \"" + name + "\"" + suggest_name(name, known));
    }
    if ((*policy == OrderPolicy::kAuto || *policy == OrderPolicy::kPaced) && !knows_ports) {
      throw Error(ErrorKind::kInvalidArgument, "--policy " + name + " needs the ports: --cluster or --ports");
    }
    policies.push_back(*policy);
  }
  return policies;
}

/// Bandwidths in bytes per microsecond; empty when the options name none.
std::vector<double> chosen_ports(const AlltoallOptions& options, int num_gpus) {
  std::vector<double> ports;
  for (const double gbps : options.ports_gbps) ports.push_back(gbps * kBytesPerUsOfGbps);
  if (!options.cluster.empty()) ports = port_bandwidths(read_cluster_file(options.cluster));
  if (!ports.empty() && ports.size() != static_cast<std::size_t>(num_gpus)) {
    throw Error(ErrorKind::kInvalidArgument,
                std::to_string(ports.size()) + " ports are given for " + std::to_string(num_gpus) + " ranks");
  }
  return ports;
}

/// Nodes with links inside; null unless the cluster file has them.
std::shared_ptr<const TwoTierNetwork> chosen_tiers(const AlltoallOptions& options) {
  return options.cluster.empty() ? nullptr : tiers_of(read_cluster_file(options.cluster));
}

// ---- One rank's part of a matrix

/// Device memory of one rank's messages, in the order of their peers.
class RankBuffers {
 public:
  RankBuffers(Backend& backend, Stream& stream, const TrafficMatrix& traffic, int rank)
      : backend_(&backend), stream_(&stream), traffic_(&traffic), rank_(rank) {
    std::size_t sent = 0;
    std::size_t received = 0;
    for (int peer = 0; peer < traffic.num_gpus(); ++peer) {
      send_offsets_.push_back(sent);
      receive_offsets_.push_back(received);
      sent += static_cast<std::size_t>(traffic.at(rank, peer));
      received += static_cast<std::size_t>(traffic.at(peer, rank));
    }
    send_ = backend.allocate(sent, MemorySpace::kDevice);
    receive_ = backend.allocate(received, MemorySpace::kDevice);
    blank_.resize(received, std::byte{0xee});
    host_.resize(std::max(sent, received));
    for (int peer = 0; peer < traffic.num_gpus(); ++peer) {
      write_payload({rank, peer}, std::span(host_).subspan(send_offsets_[static_cast<std::size_t>(peer)],
                                                           static_cast<std::size_t>(traffic.at(rank, peer))));
    }
    copy(send_.data(), host_.data(), sent);
  }

  ExchangeBuffers view() const { return {send_.data(), send_offsets_, receive_.data(), receive_offsets_}; }
  void wipe() { copy(receive_.data(), blank_.data(), blank_.size()); }

  std::int64_t count_wrong() {
    copy(host_.data(), receive_.data(), receive_.size_bytes());
    std::int64_t wrong = 0;
    for (int peer = 0; peer < traffic_->num_gpus(); ++peer) {
      wrong += count_wrong_words(
          {peer, rank_}, std::span(host_).subspan(receive_offsets_[static_cast<std::size_t>(peer)],
                                                  static_cast<std::size_t>(traffic_->at(peer, rank_))));
    }
    return wrong;
  }

 private:
  void copy(std::byte* destination, const std::byte* source, std::size_t size_bytes) {
    if (size_bytes == 0) return;
    backend_->copy(*stream_, destination, source, size_bytes);
    stream_->synchronize(Clock::now() + kStartTimeout);
  }

  Backend* backend_;
  Stream* stream_;
  const TrafficMatrix* traffic_;
  int rank_;
  std::vector<std::size_t> send_offsets_, receive_offsets_;
  Buffer send_, receive_;
  std::vector<std::byte> host_, blank_;
};

TrafficMatrix equal_traffic(int num_gpus, Bytes bytes) {
  const auto num_entries = static_cast<std::size_t>(num_gpus) * static_cast<std::size_t>(num_gpus);
  return {num_gpus, std::vector<Bytes>(num_entries, bytes)};
}

/// One policy on one matrix, as this rank sees it.
struct Contender {
  OrderPolicy policy = OrderPolicy::kGroup;
  std::string chosen;  // by auto
  TransmissionOrder order;
  double predicted_us = 0;
  double planning_us = 0;         // CPU time
  std::vector<double> us;         // of each repetition
  std::vector<double> device_us;  // the part that the device's clock saw; as `us` where the host drives
  std::int64_t num_wrong = 0;
  std::int64_t num_retransmitted = 0;
  ProcessorTicks ticks;  // while its exchanges ran
};

/// The same of all ranks.
struct Outcome {
  std::vector<double> us, device_us;  // of the slowest rank
  double planning_us = 0;
  std::int64_t num_wrong = 0;
  std::int64_t num_retransmitted = 0;
};

// ---- The job

class AlltoallJob {
 public:
  AlltoallJob(const AlltoallOptions& options, const MpiSession& session, Transport& transport,
              Backend& backend)
      : options_(options),
        transport_(transport),
        backend_(backend),
        stream_(backend.create_stream()),
        exchange_(transport, backend, *stream_, kExchangeTag),
        ports_(chosen_ports(options, transport.num_ranks())),
        tiers_(chosen_tiers(options)),
        policies_(chosen_policies(options.policies, !ports_.empty(), !transport.is_stream_ordered())),
        counts_network_(session.local_rank() == 0),
        greeting_(equal_traffic(transport.num_ranks(), kGreetingBytes)),
        greeting_order_(plan_order(OrderPolicy::kGroup, greeting_, {})),
        greeting_buffers_(backend, *stream_, greeting_, transport.rank()) {}

  void run(const RowVisitor& visit);

 private:
  Deadline deadline() const {
    return Clock::now() + std::chrono::duration_cast<Clock::duration>(
                              std::chrono::duration<double>(options_.timeout_seconds));
  }
  std::vector<Subject> agree_on_subjects();
  void find_fabric_if_wanted();
  void measure_fabric_of_job();
  Contender plan(OrderPolicy policy, const TrafficMatrix& traffic) const;
  void measure(const Subject& subject, const RowVisitor& visit);
  void meet();
  void wake_links();
  void repeat_in_turns(std::vector<Contender>& contenders, RankBuffers& buffers);
  void run_once(Contender& contender, RankBuffers& buffers);
  double exchange_us(const TransmissionOrder& order, const RankBuffers& buffers);
  Outcome collect(const Contender& contender);
  static void add_hold_out(const std::vector<Contender>& contenders, const std::vector<Outcome>& outcomes,
                           std::size_t chooser, Row& row);
  Row row_of(const Subject& subject, const Contender& contender, const Outcome& outcome) const;
  void add_bounds(const TrafficMatrix& traffic, double median_us, Row& row) const;

  const AlltoallOptions& options_;
  Transport& transport_;
  Backend& backend_;
  std::unique_ptr<Stream> stream_;
  Exchange exchange_;
  std::vector<double> ports_;  // bytes per microsecond; empty: not known
  std::shared_ptr<const TwoTierNetwork> tiers_;
  std::vector<OrderPolicy> policies_;
  std::optional<FabricModel> fabric_;  // when auto is among the policies
  bool counts_network_;                // of the ranks that share a network, one counts
  TrafficMatrix greeting_;             // what wakes links up: a cache line from each to each
  TransmissionOrder greeting_order_;
  RankBuffers greeting_buffers_;
};

void AlltoallJob::run(const RowVisitor& visit) {
  const std::vector<Subject> subjects = agree_on_subjects();
  find_fabric_if_wanted();
  for (const Subject& subject : subjects) measure(subject, visit);
}

std::vector<Subject> AlltoallJob::agree_on_subjects() {
  const int num_ranks = transport_.num_ranks();
  std::vector<Subject> subjects;
  ByteWriter writer;
  if (transport_.rank() == 0) {
    subjects = chosen_subjects(options_, num_ranks);
    if (!options_.matrices_out.empty()) write_matrices(subjects, options_.matrices_out);
    for (const Subject& subject : subjects) {
      for (int source = 0; source < num_ranks; ++source) {
        for (const Bytes bytes : subject.traffic.row(source)) writer.write(bytes);
      }
    }
  }
  const std::vector<std::byte> entries =
      broadcast(transport_, 0, writer.bytes(), kControlTag, Clock::now() + kStartTimeout, "the matrices");
  if (transport_.rank() == 0) return subjects;
  const auto num_entries = static_cast<std::size_t>(num_ranks) * static_cast<std::size_t>(num_ranks);
  std::vector<Bytes> matrix(num_entries);
  for (std::size_t start = 0; start < entries.size(); start += num_entries * sizeof(Bytes)) {
    std::memcpy(matrix.data(), entries.data() + start, num_entries * sizeof(Bytes));
    subjects.push_back({"", TrafficMatrix(num_ranks, matrix)});
  }
  return subjects;
}

/// Files are read by every rank: one that lacks it fails and is heard.
void AlltoallJob::find_fabric_if_wanted() {
  if (std::ranges::find(policies_, OrderPolicy::kAuto) == policies_.end()) return;
  std::vector<double> ports_gbps;
  for (const double port : ports_) ports_gbps.push_back(port / kBytesPerUsOfGbps);
  if (options_.fabric.empty()) {
    measure_fabric_of_job();
  } else {
    const MeasuredFabric read = read_fabric_file(options_.fabric);
    check_same_ports(read, ports_gbps, options_.fabric.string());
    fabric_ = read.model;
  }
  if (options_.fabric_out.empty() || transport_.rank() != 0) return;
  std::ofstream file(options_.fabric_out);
  file << fabric_text({*fabric_, ports_gbps});
  if (!file.flush()) throw Error(ErrorKind::kIo, "cannot write " + options_.fabric_out.string());
}

void AlltoallJob::measure_fabric_of_job() {
  const Elapsed elapsed = time_once([&] {
    fabric_ = measure_fabric({.transport = transport_,
                              .backend = backend_,
                              .ports = ports_,
                              .exchange_tag = kExchangeTag,
                              .control_tag = kControlTag,
                              .deadline = Clock::now() + kStartTimeout});
  });
  if (transport_.rank() != 0) return;
  std::fprintf(stderr, "fabric, measured in %.2f s: start %.0f us;", elapsed.wall_us * 1e-6,
               fabric_->start_us);
  for (const auto& cost : fabric_->messages) {
    std::fprintf(stderr, " a message of %.0f bytes in a chain +%.0f us;", cost.bytes, cost.extra_us);
  }
  for (const auto& cost : fabric_->groups) {
    std::fprintf(stderr, " a group of %.0f peers %.0f us and %.2f times its fair-share time;", cost.peers,
                 cost.start_us, cost.stretch);
  }
  std::fprintf(stderr, " uneven groups x %.2f;", fabric_->uneven_stretch);
  for (const auto& cost : fabric_->orders) {
    std::fprintf(stderr, " %s x %.2f + %.0f us;", std::string(order_policy_name(cost.policy)).c_str(),
                 cost.stretch, cost.extra_us);
  }
  std::fputc('\n', stderr);
}

Contender AlltoallJob::plan(OrderPolicy policy, const TrafficMatrix& traffic) const {
  constexpr int kNumPlans = 5;
  const OrderOptions order_options{
      .ports = ports_, .round_cost_us = options_.round_cost_us, .seed = options_.seed, .tiers = tiers_};
  Contender contender;
  contender.policy = policy;
  std::vector<double> cpu_us;
  for (int index = 0; index < kNumPlans; ++index) {
    cpu_us.push_back(time_once([&] {
                       if (policy != OrderPolicy::kAuto) {
                         contender.order = plan_order(policy, traffic, order_options);
                         return;
                       }
                       ChosenOrder best = choose_order(traffic, order_options, *fabric_);
                       contender.order = std::move(best.order);
                       contender.predicted_us = best.predicted_us;
                       contender.chosen = order_candidate_name(order_candidates()[best.candidate]);
                     }).cpu_us);
  }
  contender.planning_us = quantiles_of(cpu_us).median;
  if (fabric_ && policy != OrderPolicy::kAuto) {
    contender.predicted_us = predicted_policy_us(policy, contender.order, ports_, *fabric_);
  }
  return contender;
}

void AlltoallJob::measure(const Subject& subject, const RowVisitor& visit) {
  RankBuffers buffers(backend_, *stream_, subject.traffic, transport_.rank());
  std::vector<Contender> contenders;
  for (const OrderPolicy policy : policies_) contenders.push_back(plan(policy, subject.traffic));
  try {
    repeat_in_turns(contenders, buffers);
  } catch (const std::exception& failure) {
    transport_.abort(failure.what());  // before the memory of its messages goes
    throw;
  }
  std::vector<Outcome> outcomes;
  for (const Contender& contender : contenders) outcomes.push_back(collect(contender));
  if (transport_.rank() != 0) return;
  for (std::size_t index = 0; index < contenders.size(); ++index) {
    Row row = row_of(subject, contenders[index], outcomes[index]);
    if (contenders[index].policy == OrderPolicy::kAuto) add_hold_out(contenders, outcomes, index, row);
    visit(row);
  }
}

/// Auto, at `chooser`, beside the best of the others.
void AlltoallJob::add_hold_out(const std::vector<Contender>& contenders, const std::vector<Outcome>& outcomes,
                               std::size_t chooser, Row& row) {
  std::vector<std::vector<double>> times;
  std::vector<OrderPolicy> policies;
  for (std::size_t index = 0; index < contenders.size(); ++index) {
    if (contenders[index].policy == OrderPolicy::kAuto) continue;
    times.push_back(outcomes[index].us);
    policies.push_back(contenders[index].policy);
  }
  if (times.empty() || outcomes[chooser].us.size() < 2) return;
  const HoldOut result = compare_by_halves(outcomes[chooser].us, times);
  row.set("best", std::string(order_policy_name(policies[result.best])));
  row.set("of_best", result.ratio).set("of_best_low", result.low).set("of_best_high", result.high);
}

/// The first time ranks may wait long, and wake up at different times; the second time nobody sleeps.
void AlltoallJob::meet() {
  constexpr int kNumTimes = 2;
  for (int time = 0; time < kNumTimes; ++time) {
    all_gather(transport_, {}, kControlTag, deadline(), "all ranks before an exchange");
  }
}

/// GPUs put links to sleep that rest for as long as checking a large exchange takes, and a server's do not.
void AlltoallJob::wake_links() {
  if (!transport_.is_stream_ordered()) return;
  exchange_us(greeting_order_, greeting_buffers_);
  exchange_.take_seconds();
}

void AlltoallJob::repeat_in_turns(std::vector<Contender>& contenders, RankBuffers& buffers) {
  Random random(options_.seed);
  std::vector<std::size_t> turns(contenders.size());
  std::iota(turns.begin(), turns.end(), std::size_t{0});
  for (int repeat = 0; repeat <= options_.repeats; ++repeat) {
    random.shuffle(turns);
    for (const std::size_t turn : turns) run_once(contenders[turn], buffers);
    if (repeat > 0) continue;
    for (Contender& contender : contenders) {  // the first warms connections up
      contender.us.clear();
      contender.device_us.clear();
      contender.ticks = {};
      contender.num_retransmitted = 0;
    }
  }
}

void AlltoallJob::run_once(Contender& contender, RankBuffers& buffers) {
  buffers.wipe();
  // Before ranks meet: reading takes some longer than others.
  const auto ticks = read_processor_ticks().value_or(ProcessorTicks{});
  const std::int64_t retransmitted = read_retransmitted_segments().value_or(0);
  meet();
  wake_links();
  contender.us.push_back(exchange_us(contender.order, buffers));
  contender.device_us.push_back(exchange_.take_seconds() * 1e6);
  const auto ticks_after = read_processor_ticks().value_or(ProcessorTicks{});
  contender.ticks.idle += ticks_after.idle - ticks.idle;
  contender.ticks.total += ticks_after.total - ticks.total;
  if (counts_network_) {
    contender.num_retransmitted += read_retransmitted_segments().value_or(0) - retransmitted;
  }
  contender.num_wrong += buffers.count_wrong();
}

double AlltoallJob::exchange_us(const TransmissionOrder& order, const RankBuffers& buffers) {
  const Deadline limit = deadline();
  const auto wait_until = [&](auto is_done) {
    IdleBackoff backoff =
        transport_.is_stream_ordered() ? IdleBackoff(kShortestSleep, kLongestYield) : IdleBackoff();
    for (; !is_done(); backoff.pause()) {
      if (Clock::now() < limit) continue;
      throw Error(ErrorKind::kTimeout, "rank " + std::to_string(transport_.rank()) +
                                           ": an exchange has not ended within " +
                                           std::to_string(options_.timeout_seconds) + " s");
    }
  };
  const Clock::time_point start = Clock::now();
  exchange_.mark_ready();
  wait_until([&] { return exchange_.can_start(); });
  exchange_.start(order, buffers.view());
  wait_until([&] { return exchange_.advance(); });
  wait_until([&] { return exchange_.is_settled(); });
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

Outcome AlltoallJob::collect(const Contender& contender) {
  ByteWriter writer;
  for (const double us : contender.us) writer.write(us);
  for (const double us : contender.device_us) writer.write(us);
  writer.write(contender.planning_us);
  writer.write(contender.num_wrong);
  writer.write(contender.num_retransmitted);
  const std::size_t num_repeats = contender.us.size();
  Outcome outcome{.us = std::vector<double>(num_repeats), .device_us = std::vector<double>(num_repeats)};
  for (const auto& bytes : gather(transport_, 0, writer.bytes(), kControlTag, deadline(), "measured times")) {
    ByteReader reader(bytes);
    for (double& us : outcome.us) us = std::max(us, reader.read<double>());
    for (double& us : outcome.device_us) us = std::max(us, reader.read<double>());
    outcome.planning_us = std::max(outcome.planning_us, reader.read<double>());
    outcome.num_wrong += reader.read<std::int64_t>();
    outcome.num_retransmitted += reader.read<std::int64_t>();
  }
  return outcome;
}

Row AlltoallJob::row_of(const Subject& subject, const Contender& contender, const Outcome& outcome) const {
  Row row("alltoall", std::string(transport_.name()) + " " + subject.name + " " +
                          std::string(order_policy_name(contender.policy)));
  const Quantiles us = quantiles_of(outcome.us);
  row.set("bytes", makespan_bound_bytes(subject.traffic));
  row.set("median", us.median).set("p10", us.p10).set("p90", us.p90);
  if (transport_.is_stream_ordered()) row.set("device", quantiles_of(outcome.device_us).median);
  if (!ports_.empty()) add_bounds(subject.traffic, us.median, row);
  if (fabric_) row.set("predicted", contender.predicted_us);
  row.set("rounds", static_cast<std::int64_t>(num_rounds(contender.order)));
  row.set("planning", outcome.planning_us);
  if (contender.ticks.total > 0) {
    row.set("idle",
            100.0 * static_cast<double>(contender.ticks.idle) / static_cast<double>(contender.ticks.total));
  }
  row.set("resent", outcome.num_retransmitted).set("wrong", outcome.num_wrong);
  if (!contender.chosen.empty()) row.set("chosen", contender.chosen);
  return row;
}

void AlltoallJob::add_bounds(const TrafficMatrix& traffic, double median_us, Row& row) const {
  const OrderOptions ports{.ports = ports_};
  // What the slowest port saves by its burst, so that this remains a bound whichever port is the bottleneck.
  const double burst_us =
      static_cast<double>(options_.burst_bytes) / *std::min_element(ports_.begin(), ports_.end());
  const double shared_us =
      (tiers_ ? two_tier_bounds(traffic, *tiers_).direct_us() : makespan_bound_us(traffic, ports)) - burst_us;
  if (!(shared_us > 0)) return;  // the burst carries it all
  row.set("bound", shared_us).set("%", 100 * shared_us / median_us);
  if (tiers_) return;  // a port and a link serve two peers at once
  const double one_to_one_us = one_to_one_bound_us(traffic, ports) - burst_us;
  row.set("one_to_one", one_to_one_us).set("%_1:1", 100 * one_to_one_us / median_us);
}

void run_over_nccl(const AlltoallOptions& options, const MpiSession& session, Transport& control,
                   const RowVisitor& visit) {
  const GpuPlace place = take_gpu_place(session, control);
  const auto backend = create_backend("cuda", {.device = place.device});
  AlltoallJob(options, session, *place.transport, *backend).run(visit);
}

void run_over_mpi(const AlltoallOptions& options, const MpiSession& session, Transport& control,
                  const RowVisitor& visit) {
  const auto backend = create_backend("cpu", {});
  AlltoallJob(options, session, control, *backend).run(visit);
}

}  // namespace

void run_alltoall_suite(const AlltoallOptions& options, const RowVisitor& visit) {
  require_transport(options.transport);
  const auto run_over = options.transport == "nccl" ? run_over_nccl : run_over_mpi;
  run_over_mpi_job(
      [&](MpiSession& session, Transport& control) { run_over(options, session, control, visit); });
}

}  // namespace aurora::bench
