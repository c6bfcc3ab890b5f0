#include "runtime/dispatch/lane_simulation.h"

#include <algorithm>
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
  std::vector<std::size_t> flows;  // in their order
  std::size_t next = 0;
  std::size_t under_way = 0;
};

class Simulation {
 public:
  Simulation(std::span<const Transfer> starts, std::span<const double> ports,
             const std::function<double(double bytes)>& extra_us)
      : num_left_(starts.size()),
        filling_(ports),
        active_pairs_(static_cast<int>(ports.size())),
        sends_(ports.size()),
        receives_(ports.size()) {
    for (const Transfer& transfer : starts) {
      const auto source = static_cast<std::size_t>(transfer.source.value);
      const auto destination = static_cast<std::size_t>(transfer.destination.value);
      const auto bytes = static_cast<double>(transfer.bytes);
      sends_[source].flows.push_back(flows_.size());
      receives_[destination].flows.push_back(flows_.size());
      flows_.push_back({transfer.source.value, transfer.destination.value,
                        bytes + extra_us(bytes) * std::min(ports[source], ports[destination])});
    }
  }

  double run() {
    double now_us = 0;
    for (Lane& lane : sends_) post(lane, kMostSendsUnderWay, &Flow::is_posted_by_source);
    for (Lane& lane : receives_) post(lane, kMostReceivesUnderWay, &Flow::is_posted_by_destination);
    while (num_left_ > 0) {
      start_posted();
      check(!active_.empty(), "the first message that has not ended is posted at both of its ends");
      filling_.fill(active_pairs_);
      double step_us = time_left(active_.front());
      for (const std::size_t flow : active_) step_us = std::min(step_us, time_left(flow));
      now_us += step_us;
      advance(step_us);
    }
    return now_us;
  }

 private:
  double time_left(std::size_t index) const {
    const Flow& flow = flows_[index];
    return flow.left / filling_.rate(flow.source, flow.destination);
  }

  void post(Lane& lane, std::size_t most_under_way, bool Flow::*is_posted) {
    for (; lane.under_way < most_under_way && lane.next < lane.flows.size(); ++lane.next, ++lane.under_way) {
      Flow& flow = flows_[lane.flows[lane.next]];
      flow.*is_posted = true;
      if (flow.is_posted_by_source && flow.is_posted_by_destination)
        waiting_.push_back(lane.flows[lane.next]);
    }
  }

  /// Of a pair's messages those that were posted first: `waiting_` keeps the order of the lanes.
  void start_posted() {
    std::erase_if(waiting_, [&](std::size_t index) {
      const Flow& flow = flows_[index];
      if (active_pairs_.contains(flow.source, flow.destination)) return false;
      active_pairs_.add(flow.source, flow.destination);
      active_.push_back(index);
      return true;
    });
  }

  void advance(double step_us) {
    // What would end within a billionth of the step ends with it, so that rounding leaves no crumbs.
    constexpr double kRounding = 1e-9;
    ended_.clear();
    std::erase_if(active_, [&](std::size_t index) {
      Flow& flow = flows_[index];
      const double sent = step_us * filling_.rate(flow.source, flow.destination);
      const bool has_ended = flow.left <= sent * (1 + kRounding);
      flow.left -= sent;
      if (has_ended) ended_.push_back(index);
      return has_ended;
    });
    for (const std::size_t index : ended_) {
      const Flow& flow = flows_[index];
      active_pairs_.remove(flow.source, flow.destination);
      Lane& sends = sends_[static_cast<std::size_t>(flow.source)];
      Lane& receives = receives_[static_cast<std::size_t>(flow.destination)];
      --sends.under_way;
      --receives.under_way;
      --num_left_;
      post(sends, kMostSendsUnderWay, &Flow::is_posted_by_source);
      post(receives, kMostReceivesUnderWay, &Flow::is_posted_by_destination);
    }
  }

  std::size_t num_left_;
  FairFilling filling_;
  PairSet active_pairs_;
  std::vector<Lane> sends_, receives_;
  std::vector<Flow> flows_;
  std::vector<std::size_t> waiting_, active_, ended_;
};

}  // namespace

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
