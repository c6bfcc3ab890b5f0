#include "runtime/dispatch/lane_simulation.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "runtime/dispatch/exchange.h"
#include "scheduler/fair_sharing.h"

namespace aurora {
namespace {

struct Flow {
  int source = 0;
  int destination = 0;
  double left = 0;  // bytes, and what its port could have sent in its extra time
  bool is_posted_by_source = false;
  bool is_posted_by_destination = false;
};

/// One side of a port.
struct Lane {
  double most_before_next = 0;  // chunks under way with which the next message is posted
  double held_bytes = 0;        // of each message, that do not count
  bool Flow::*is_posted = nullptr;
  std::vector<std::size_t> flows;  // in their order
  std::size_t next = 0;            // first that is not posted
  std::vector<std::size_t> under_way;
};

double occupied_bytes(const Transfer& transfer, std::span<const double> ports,
                      const std::function<double(double bytes)>& extra_us) {
  const auto bytes = static_cast<double>(transfer.bytes);
  return bytes + extra_us(bytes) * std::min(ports[static_cast<std::size_t>(transfer.source.value)],
                                            ports[static_cast<std::size_t>(transfer.destination.value)]);
}

class Simulation {
 public:
  Simulation(std::span<const Transfer> starts, std::span<const double> ports,
             const std::function<double(double bytes)>& extra_us)
      : num_left_(starts.size()),
        filling_(ports),
        active_pairs_(static_cast<int>(ports.size())),
        lanes_(2 * ports.size()),
        is_active_(starts.size()) {
    for (std::size_t index = 0; index < lanes_.size(); ++index) {
      const bool sends = index % 2 == 0;
      lanes_[index].most_before_next =
          static_cast<double>(sends ? kMostSendsUnderWay : kMostReceivesUnderWay) - 1;
      lanes_[index].held_bytes = sends ? kHeldBytes : 0;
      lanes_[index].is_posted = sends ? &Flow::is_posted_by_source : &Flow::is_posted_by_destination;
    }
    for (const Transfer& transfer : starts) {
      sends_of(transfer.source.value).flows.push_back(flows_.size());
      receives_of(transfer.destination.value).flows.push_back(flows_.size());
      flows_.push_back(
          {transfer.source.value, transfer.destination.value, occupied_bytes(transfer, ports, extra_us)});
    }
  }

  double run() {
    double now_us = 0;
    for (Lane& lane : lanes_) post(lane);
    while (num_left_ > 0) {
      start_posted();
      check(!active_.empty(), "the first message that has not ended is posted at both of its ends");
      filling_.fill(active_pairs_);
      const double step_us = time_to_next_event();
      now_us += step_us;
      advance(step_us);
      for (Lane& lane : lanes_) post(lane);
    }
    return now_us;
  }

 private:
  /// Of what `lane` has under way: chunks that count, and how many of them a microsecond ends.
  struct UnderWay {
    double chunks = 0;
    double rate = 0;
  };
  UnderWay under_way(const Lane& lane) const {
    UnderWay sum;
    for (const std::size_t index : lane.under_way) {
      const Flow& flow = flows_[index];
      const double counted = flow.left - lane.held_bytes;
      if (counted <= 0) continue;
      sum.chunks += std::max(counted / static_cast<double>(kChunkBytes), 1.0);
      if (is_active_[index]) sum.rate += rate_of(flow) / static_cast<double>(kChunkBytes);
    }
    return sum;
  }

  double rate_of(const Flow& flow) const { return filling_.rate(flow.source, flow.destination); }

  /// Until a flow ends, or a side has room for its next message.
  double time_to_next_event() const {
    double step_us = INFINITY;
    for (const std::size_t index : active_) {
      step_us = std::min(step_us, flows_[index].left / rate_of(flows_[index]));
    }
    for (const Lane& lane : lanes_) {
      if (lane.next == lane.flows.size()) continue;
      const auto [chunks, rate] = under_way(lane);
      // Not less than what one byte takes, so that rounding cannot make endless steps.
      const double least_us = 1 / (rate * static_cast<double>(kChunkBytes));
      if (rate > 0) step_us = std::min(step_us, std::max((chunks - lane.most_before_next) / rate, least_us));
    }
    return step_us;
  }

  void post(Lane& lane) {
    for (; lane.next < lane.flows.size(); ++lane.next) {
      if (under_way(lane).chunks > lane.most_before_next + kRounding) return;
      const std::size_t index = lane.flows[lane.next];
      Flow& flow = flows_[index];
      flow.*lane.is_posted = true;
      lane.under_way.push_back(index);
      if (flow.is_posted_by_source && flow.is_posted_by_destination) waiting_.push_back(index);
    }
  }

  /// Of a pair's messages those that were posted first: `waiting_` keeps the order of the lanes.
  void start_posted() {
    std::erase_if(waiting_, [&](std::size_t index) {
      const Flow& flow = flows_[index];
      if (active_pairs_.contains(flow.source, flow.destination)) return false;
      active_pairs_.add(flow.source, flow.destination);
      active_.push_back(index);
      is_active_[index] = true;
      return true;
    });
  }

  void advance(double step_us) {
    ended_.clear();
    std::erase_if(active_, [&](std::size_t index) {
      Flow& flow = flows_[index];
      const double sent = step_us * rate_of(flow);
      // What would end within a billionth of the step ends with it, so that rounding leaves no crumbs.
      const bool has_ended = flow.left <= sent * (1 + kRounding);
      flow.left -= sent;
      if (has_ended) ended_.push_back(index);
      return has_ended;
    });
    for (const std::size_t index : ended_) {
      const Flow& flow = flows_[index];
      is_active_[index] = false;
      active_pairs_.remove(flow.source, flow.destination);
      std::erase(sends_of(flow.source).under_way, index);
      std::erase(receives_of(flow.destination).under_way, index);
      --num_left_;
    }
  }

  Lane& sends_of(int rank) { return lanes_[2 * static_cast<std::size_t>(rank)]; }
  Lane& receives_of(int rank) { return lanes_[2 * static_cast<std::size_t>(rank) + 1]; }

  static constexpr double kRounding = 1e-9;

  std::size_t num_left_;
  FairFilling filling_;
  PairSet active_pairs_;
  std::vector<Lane> lanes_;  // [2 * rank] sends, then receives
  std::vector<Flow> flows_;
  std::vector<std::size_t> waiting_, active_, ended_;
  std::vector<bool> is_active_;  // [flow]
};

}  // namespace

double least_makespan_us(std::span<const Transfer> starts, std::span<const double> ports,
                         const std::function<double(double bytes)>& extra_us) {
  std::vector<double> sides_us(2 * ports.size());
  double least_us = 0;
  for (const Transfer& transfer : starts) {
    const double bytes = occupied_bytes(transfer, ports, extra_us);
    const auto source = static_cast<std::size_t>(transfer.source.value);
    const auto destination = static_cast<std::size_t>(transfer.destination.value);
    least_us = std::max({least_us, sides_us[2 * source] += bytes / ports[source],
                         sides_us[2 * destination + 1] += bytes / ports[destination]});
  }
  return least_us;
}

double overlapped_makespan_us(std::span<const Transfer> starts, std::span<const double> ports,
                              const std::function<double(double bytes)>& extra_us) {
  if (ports.size() > static_cast<std::size_t>(PairSet::kMaxGpus)) {
    throw Error(ErrorKind::kUnsupported, "exchanges of " + std::to_string(ports.size()) +
                                             " ranks are not predicted; at most " +
                                             std::to_string(PairSet::kMaxGpus) + " are");
  }
  return Simulation(starts, ports, extra_us).run();
}

}  // namespace aurora
