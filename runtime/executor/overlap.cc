#include "runtime/executor/overlap.h"

#include <algorithm>

namespace aurora {
namespace {

constexpr double kSecondsOfNs = 1e-9;

void append(std::vector<Interval>& all, const std::vector<Interval>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

}  // namespace

std::vector<Interval> joined(std::vector<Interval> intervals) {
  std::ranges::sort(intervals, {}, &Interval::start_ns);
  std::vector<Interval> result;
  for (const Interval& interval : intervals) {
    if (!result.empty() && interval.start_ns <= result.back().end_ns) {
      result.back().end_ns = std::max(result.back().end_ns, interval.end_ns);
    } else {
      result.push_back(interval);
    }
  }
  return result;
}

std::int64_t covered_ns(const std::vector<Interval>& joined_intervals) {
  std::int64_t sum = 0;
  for (const Interval& interval : joined_intervals) sum += interval.end_ns - interval.start_ns;
  return sum;
}

std::int64_t common_ns(const std::vector<Interval>& a, const std::vector<Interval>& b) {
  std::int64_t sum = 0;
  auto left = a.begin();
  auto right = b.begin();
  while (left != a.end() && right != b.end()) {
    const std::int64_t start = std::max(left->start_ns, right->start_ns);
    const std::int64_t end = std::min(left->end_ns, right->end_ns);
    sum += std::max<std::int64_t>(0, end - start);
    // The one that ends first has nothing in common with what follows on the other side.
    if (left->end_ns < right->end_ns) {
      ++left;
    } else {
      ++right;
    }
  }
  return sum;
}

OverlapMeter::OverlapMeter(std::size_t num_models) : pending_(num_models), totals_(num_models + 1) {}

void OverlapMeter::add(std::size_t model_index, Phase phase, const Interval& interval) {
  Pending& pending = pending_[model_index];
  (is_exchange(phase) ? pending.exchanges : pending.compute).push_back(interval);
}

void OverlapMeter::end_turn() {
  Pending all;
  for (const Pending& model : pending_) {
    append(all.compute, model.compute);
    append(all.exchanges, model.exchanges);
  }
  const std::vector<Interval> compute = joined(std::move(all.compute));
  const auto add_to = [&](OverlapTotal& total, const std::vector<Interval>& own_compute,
                          std::vector<Interval> exchanges) {
    exchanges = joined(std::move(exchanges));
    const std::int64_t exchange_ns = covered_ns(exchanges);
    total.compute_seconds += static_cast<double>(covered_ns(own_compute)) * kSecondsOfNs;
    total.exchange_seconds += static_cast<double>(exchange_ns) * kSecondsOfNs;
    total.exposed_seconds += static_cast<double>(exchange_ns - common_ns(exchanges, compute)) * kSecondsOfNs;
  };
  for (std::size_t model = 0; model < pending_.size(); ++model) {
    add_to(totals_[model], joined(std::move(pending_[model].compute)), std::move(pending_[model].exchanges));
    pending_[model] = {};
  }
  add_to(totals_.back(), compute, std::move(all.exchanges));
}

}  // namespace aurora
