#include "scheduler/port_search.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <queue>
#include <stdexcept>
#include <string>
#include <tuple>

#include "scheduler/port_order.h"

namespace aurora {
namespace {

/// The bound in ticks. Fine enough for decisions, and every product below stays within 64 bits.
constexpr int kBoundBits = 20;
constexpr std::int32_t kBoundTicks = 1 << kBoundBits;

/// Parts of one message; the beam counts them in a byte.
constexpr Bytes kMostParts = 255;

double duration_us(const Transfer& message, std::span<const double> ports) {
  const double rate = std::min(ports[static_cast<std::size_t>(message.source.value)],
                               ports[static_cast<std::size_t>(message.destination.value)]);
  return static_cast<double>(message.bytes) / rate;
}

/// Messages by pair: how many parts, and how long the longest of them takes. Sides: side i < n sends as GPU
/// i, side n + i receives as GPU i; partner p of a side is GPU p's other side.
struct PairTable {
  PairTable(int gpus, std::span<const Transfer> messages, std::span<const std::int64_t> ticks)
      : num_gpus(static_cast<std::size_t>(gpus)),
        num_parts(num_gpus * num_gpus),
        duration(num_gpus * num_gpus) {
    for (std::size_t index = 0; index < messages.size(); ++index) {
      const std::size_t pair = pair_of(messages[index]);
      duration[pair] = std::max(duration[pair], static_cast<std::int32_t>(ticks[index]));
      if (++num_parts[pair] > kMostParts) {
        throw std::invalid_argument("port search: the message from GPU " + std::to_string(pair / num_gpus) +
                                    " to GPU " + std::to_string(pair % num_gpus) + " has more than " +
                                    std::to_string(kMostParts) + " parts");
      }
    }
  }
  std::size_t pair_of(const Transfer& message) const {
    return static_cast<std::size_t>(message.source.value) * num_gpus +
           static_cast<std::size_t>(message.destination.value);
  }

  std::size_t num_gpus;
  std::vector<std::uint16_t> num_parts;  // [source][destination]
  std::vector<std::int32_t> duration;    // [source][destination] ticks
};

/// (time over the bound)^32 with 16 fractional bits: five squarings. 1.9 and more count alike, so that no
/// product overflows.
std::uint64_t weight_of(std::int32_t ticks) {
  constexpr std::int32_t kMost = kBoundTicks / 10 * 19;
  constexpr int kFractionBits = 16;
  auto weight = static_cast<std::uint64_t>(std::min(ticks, kMost)) >> (kBoundBits - kFractionBits);
  for (int squaring = 0; squaring < 5; ++squaring) weight = (weight * weight) >> kFractionBits;
  return weight;
}

class Beam {
 public:
  Beam(const PairTable& pairs, std::size_t width, std::int32_t limit)
      : pairs_(pairs), n_(pairs.num_gpus), width_(width), limit_(limit) {}

  /// Pairs in the order of their starts; empty when every path reaches the limit.
  std::vector<std::size_t> search();
  std::int64_t num_evaluations() const { return num_evaluations_; }

 private:
  static constexpr std::size_t kMaxSides = 2 * kMaxBeamGpus;

  struct State {
    std::array<std::int32_t, kMaxSides> free_at{};         // when the side has ended all it was given
    std::array<std::int32_t, kMaxSides> load_left{};       // sum of what it has not been given
    std::array<std::uint32_t, kMaxSides> partners_left{};  // bit p: something with partner p is left
    std::array<std::uint8_t, std::size_t{kMaxBeamGpus} * kMaxBeamGpus> parts_left{};
  };
  /// What follows from a state: per side, the earliest that its remaining partners are free.
  struct Outlook {
    std::array<std::int32_t, kMaxSides> first{};
    std::array<std::int32_t, kMaxSides> second{};
    std::array<std::uint8_t, kMaxSides> first_partner{};
    std::array<std::uint64_t, kMaxSides> weight{};
    std::uint64_t total_weight = 0;
  };
  struct Step {
    std::int32_t parent;  // index into `steps_`; -1: the empty schedule
    std::uint16_t pair;
  };
  struct Candidate {
    std::uint64_t weight;
    std::int32_t state;  // index into `states_`
    std::uint16_t pair;
    bool operator<(const Candidate& other) const {
      return std::tie(weight, state, pair) < std::tie(other.weight, other.state, other.pair);
    }
  };

  static constexpr std::int32_t kNever = std::numeric_limits<std::int32_t>::max();

  State initial_state() const;
  Outlook outlook_of(const State& state) const;
  std::size_t side_with_most_left(const State& state) const;
  void expand(std::int32_t state_index);
  void weigh(std::int32_t state_index, std::size_t source, std::size_t destination, const Outlook& outlook);
  void take(State& state, std::size_t pair) const;
  void keep_best();

  const PairTable& pairs_;
  std::size_t n_;
  std::size_t width_;
  std::int32_t limit_;
  std::vector<State> states_;
  std::vector<State> next_states_;
  std::vector<std::int32_t> step_of_state_;
  std::vector<std::int32_t> next_step_of_state_;
  std::vector<Step> steps_;
  std::vector<Candidate> candidates_;
  std::int64_t num_evaluations_ = 0;
};

Beam::State Beam::initial_state() const {
  State state;
  for (std::size_t source = 0; source < n_; ++source) {
    for (std::size_t destination = 0; destination < n_; ++destination) {
      const std::size_t pair = source * n_ + destination;
      if (pairs_.num_parts[pair] == 0) continue;
      const std::int32_t load = pairs_.duration[pair] * pairs_.num_parts[pair];
      state.parts_left[pair] = static_cast<std::uint8_t>(pairs_.num_parts[pair]);
      state.load_left[source] += load;
      state.load_left[n_ + destination] += load;
      state.partners_left[source] |= 1u << destination;
      state.partners_left[n_ + destination] |= 1u << source;
    }
  }
  return state;
}

Beam::Outlook Beam::outlook_of(const State& state) const {
  Outlook outlook;
  for (std::size_t side = 0; side < 2 * n_; ++side) {
    const std::int32_t* partner_free_at = state.free_at.data() + (side < n_ ? n_ : 0);
    std::int32_t first = kNever;
    std::int32_t second = kNever;
    std::size_t first_partner = 0;
    for (std::uint32_t left = state.partners_left[side]; left != 0; left &= left - 1) {
      const auto partner = static_cast<std::size_t>(std::countr_zero(left));
      const std::int32_t time = partner_free_at[partner];
      if (time < first) {
        second = first;
        first = time;
        first_partner = partner;
      } else if (time < second) {
        second = time;
      }
    }
    outlook.first[side] = first;
    outlook.second[side] = second;
    outlook.first_partner[side] = static_cast<std::uint8_t>(first_partner);
    const std::int32_t start = first == kNever ? state.free_at[side] : std::max(state.free_at[side], first);
    outlook.weight[side] = weight_of(start + state.load_left[side]);
    outlook.total_weight += outlook.weight[side];
  }
  return outlook;
}

std::size_t Beam::side_with_most_left(const State& state) const {
  std::size_t chosen = 0;
  std::int32_t most = -1;
  for (std::size_t side = 0; side < 2 * n_; ++side) {
    if (state.partners_left[side] == 0 || state.load_left[side] <= most) continue;
    most = state.load_left[side];
    chosen = side;
  }
  return chosen;
}

void Beam::expand(std::int32_t state_index) {
  const State& state = states_[static_cast<std::size_t>(state_index)];
  const Outlook outlook = outlook_of(state);
  const std::size_t side = side_with_most_left(state);
  for (std::uint32_t left = state.partners_left[side]; left != 0; left &= left - 1) {
    const auto partner = static_cast<std::size_t>(std::countr_zero(left));
    if (side < n_) {
      weigh(state_index, side, partner, outlook);
    } else {
      weigh(state_index, partner, side - n_, outlook);
    }
  }
}

/// Adds the extension by one message to the candidates, with the weight of the state that it leads to.
void Beam::weigh(std::int32_t state_index, std::size_t source, std::size_t destination,
                 const Outlook& outlook) {
  ++num_evaluations_;
  const State& state = states_[static_cast<std::size_t>(state_index)];
  const std::size_t pair = source * n_ + destination;
  const std::array<std::size_t, 2> sides{source, n_ + destination};
  const std::array<std::size_t, 2> partner_of{destination, source};
  const std::int32_t end = std::max(state.free_at[sides[0]], state.free_at[sides[1]]) + pairs_.duration[pair];
  const bool is_last_part = state.parts_left[pair] == 1;
  std::uint64_t weight = outlook.total_weight;
  std::int32_t latest = 0;
  for (std::size_t end_index = 0; end_index < 2; ++end_index) {
    const std::size_t side = sides[end_index];
    const std::size_t partner = partner_of[end_index];
    std::int32_t others = outlook.first_partner[side] == partner ? outlook.second[side] : outlook.first[side];
    if (!is_last_part) others = std::min(others, end);
    const std::int32_t start = others == kNever ? end : std::max(end, others);
    const std::int32_t projected = start + state.load_left[side] - pairs_.duration[pair];
    latest = std::max(latest, projected);
    weight += weight_of(projected) - outlook.weight[side];
    // Those who count on this side to be free first, the partner of this transfer apart.
    const std::size_t other_sides = side < n_ ? n_ : 0;
    for (std::uint32_t left = state.partners_left[side] & ~(1u << partner); left != 0; left &= left - 1) {
      const std::size_t other = other_sides + static_cast<std::size_t>(std::countr_zero(left));
      if (outlook.first_partner[other] != (side < n_ ? side : side - n_)) continue;
      const std::int32_t first = std::min(outlook.second[other], end);
      const std::int32_t other_projected = std::max(state.free_at[other], first) + state.load_left[other];
      latest = std::max(latest, other_projected);
      weight += weight_of(other_projected) - outlook.weight[other];
    }
  }
  if (latest < limit_) candidates_.push_back({weight, state_index, static_cast<std::uint16_t>(pair)});
}

void Beam::take(State& state, std::size_t pair) const {
  const std::size_t source = pair / n_;
  const std::size_t destination = pair % n_;
  const std::size_t receiver = n_ + destination;
  const std::int32_t duration = pairs_.duration[pair];
  const std::int32_t end = std::max(state.free_at[source], state.free_at[receiver]) + duration;
  state.free_at[source] = state.free_at[receiver] = end;
  state.load_left[source] -= duration;
  state.load_left[receiver] -= duration;
  if (--state.parts_left[pair] > 0) return;
  state.partners_left[source] &= ~(1u << destination);
  state.partners_left[receiver] &= ~(1u << source);
}

/// The states of the next level: the lightest candidates, `width_` of them.
void Beam::keep_best() {
  if (candidates_.size() > width_) {
    const auto last = candidates_.begin() + static_cast<std::ptrdiff_t>(width_);
    std::nth_element(candidates_.begin(), last, candidates_.end());
    candidates_.erase(last, candidates_.end());
  }
  next_states_.clear();
  next_step_of_state_.clear();
  for (const Candidate& candidate : candidates_) {
    const auto parent = static_cast<std::size_t>(candidate.state);
    next_step_of_state_.push_back(static_cast<std::int32_t>(steps_.size()));
    steps_.push_back({step_of_state_[parent], candidate.pair});
    next_states_.push_back(states_[parent]);
    take(next_states_.back(), candidate.pair);
  }
  states_.swap(next_states_);
  step_of_state_.swap(next_step_of_state_);
}

std::vector<std::size_t> Beam::search() {
  std::size_t num_messages = 0;
  for (const std::uint16_t parts : pairs_.num_parts) num_messages += parts;
  states_.assign(1, initial_state());
  step_of_state_.assign(1, -1);
  for (std::size_t level = 0; level < num_messages; ++level) {
    candidates_.clear();
    for (std::size_t index = 0; index < states_.size(); ++index) expand(static_cast<std::int32_t>(index));
    if (candidates_.empty()) return {};
    keep_best();
  }
  std::size_t best = 0;
  std::int32_t least = kNever;
  for (std::size_t index = 0; index < states_.size(); ++index) {
    const auto& free_at = states_[index].free_at;
    const std::int32_t makespan = *std::max_element(free_at.begin(), free_at.end());
    if (makespan < least) {
      least = makespan;
      best = index;
    }
  }
  std::vector<std::size_t> starts(num_messages);
  std::int32_t step = step_of_state_[best];
  for (std::size_t position = num_messages; position-- > 0;) {
    starts[position] = steps_[static_cast<std::size_t>(step)].pair;
    step = steps_[static_cast<std::size_t>(step)].parent;
  }
  return starts;
}

/// The dense list schedule of many GPUs: pairs in the order of their starts.
class ListSchedule {
 public:
  explicit ListSchedule(const PairTable& pairs)
      : pairs_(pairs), n_(pairs.num_gpus), free_at_(2 * n_), load_left_(2 * n_), partners_(2 * n_) {
    parts_left_ = pairs.num_parts;
    for (std::size_t pair = 0; pair < parts_left_.size(); ++pair) {
      if (parts_left_[pair] == 0) continue;
      const std::int64_t load = std::int64_t{pairs.duration[pair]} * parts_left_[pair];
      load_left_[pair / n_] += load;
      load_left_[n_ + pair % n_] += load;
      partners_[pair / n_].push_back(static_cast<std::uint32_t>(pair % n_));
      partners_[n_ + pair % n_].push_back(static_cast<std::uint32_t>(pair / n_));
    }
    for (std::size_t side = 0; side < 2 * n_; ++side) announce(side);
  }

  std::vector<std::size_t> run(std::int64_t& num_evaluations) {
    std::vector<std::size_t> starts;
    while (!idle_.empty()) {
      const Idle next = idle_.top();
      idle_.pop();
      if (next.at != free_at_[next.side] || next.load != load_left_[next.side]) continue;  // out of date
      const std::size_t partner = choose_partner(next.side, num_evaluations);
      if (partner == n_) continue;
      const std::size_t pair = next.side < n_ ? next.side * n_ + partner : partner * n_ + next.side - n_;
      take(pair);
      starts.push_back(pair);
    }
    return starts;
  }

 private:
  struct Idle {
    std::int64_t at;
    std::int64_t load;
    std::size_t side;
    bool operator<(const Idle& other) const {  // the top of the queue is the largest
      return std::tie(other.at, load, other.side) < std::tie(at, other.load, side);
    }
  };

  void announce(std::size_t side) {
    if (load_left_[side] > 0) idle_.push({free_at_[side], load_left_[side], side});
  }
  std::size_t pair_of(std::size_t side, std::size_t partner) const {
    return side < n_ ? side * n_ + partner : partner * n_ + side - n_;
  }
  /// Among the partners that are free by then the one with the largest load to come, else the first to be
  /// free. Forgets partners with whom nothing is left. `n_`: there is none.
  std::size_t choose_partner(std::size_t side, std::int64_t& num_evaluations) {
    std::size_t chosen = n_;
    std::int64_t least_wait = 0;
    std::int64_t largest_load = 0;
    std::erase_if(partners_[side], [&](std::uint32_t partner) {
      ++num_evaluations;
      if (parts_left_[pair_of(side, partner)] == 0) return true;
      const std::size_t other = side < n_ ? n_ + partner : partner;
      const std::int64_t wait = std::max<std::int64_t>(0, free_at_[other] - free_at_[side]);
      if (chosen == n_ || wait < least_wait || (wait == least_wait && load_left_[other] > largest_load)) {
        chosen = partner;
        least_wait = wait;
        largest_load = load_left_[other];
      }
      return false;
    });
    return chosen;
  }
  void take(std::size_t pair) {
    const std::size_t sender = pair / n_;
    const std::size_t receiver = n_ + pair % n_;
    --parts_left_[pair];
    for (const std::size_t side : {sender, receiver}) load_left_[side] -= pairs_.duration[pair];
    free_at_[sender] = free_at_[receiver] =
        std::max(free_at_[sender], free_at_[receiver]) + pairs_.duration[pair];
    announce(sender);
    announce(receiver);
  }

  const PairTable& pairs_;
  std::size_t n_;
  std::vector<std::int64_t> free_at_;
  std::vector<std::int64_t> load_left_;
  std::vector<std::vector<std::uint32_t>> partners_;  // [side]
  std::vector<std::uint16_t> parts_left_;
  std::priority_queue<Idle> idle_;
};

}  // namespace

PortSearch::PortSearch(std::vector<Transfer> messages, std::span<const double> ports, double message_cost_us)
    : messages_(std::move(messages)),
      ports_(ports.begin(), ports.end()),
      message_cost_us_(message_cost_us),
      most_messages_(most_messages_of_a_side(messages_)) {
  std::vector<double> load_us(2 * ports.size());
  for (const Transfer& message : messages_) {
    const double us = message_cost_us_ + duration_us(message, ports);
    load_us[static_cast<std::size_t>(message.source.value)] += us;
    load_us[ports.size() + static_cast<std::size_t>(message.destination.value)] += us;
  }
  for (const double us : load_us) lower_bound_us_ = std::max(lower_bound_us_, us);
  ticks_.reserve(messages_.size());
  for (const Transfer& message : messages_) {
    const double share = (message_cost_us_ + duration_us(message, ports)) / lower_bound_us_;
    ticks_.push_back(std::max<std::int64_t>(1, std::llround(share * kBoundTicks)));
  }
}

PortSearch::Found PortSearch::find(int width, double limit_us) {
  if (messages_.empty() || lower_bound_us_ >= limit_us) return {};
  const PairTable pairs(static_cast<int>(ports_.size()), messages_, ticks_);
  std::vector<std::size_t> order;
  if (ports_.size() <= kMaxBeamGpus) {
    // One tick for every message: that much the rounding may add.
    const double limit_ticks = limit_us / lower_bound_us_ * kBoundTicks + most_messages_;
    const auto limit = static_cast<std::int32_t>(std::min(limit_ticks, 1e9));
    Beam beam(pairs, static_cast<std::size_t>(width), limit);
    order = beam.search();
    num_evaluations_ += beam.num_evaluations();
  } else {
    order = ListSchedule(pairs).run(num_evaluations_);
  }
  if (order.empty()) return {};
  // The parts of a pair in their order: a counting sort of the messages by pair.
  std::vector<std::size_t> first(pairs.num_parts.size() + 1);
  for (const Transfer& message : messages_) ++first[pairs.pair_of(message) + 1];
  for (std::size_t pair = 0; pair + 1 < first.size(); ++pair) first[pair + 1] += first[pair];
  std::vector<std::size_t> by_pair(messages_.size());
  std::vector<std::size_t> next(first.begin(), first.end() - 1);
  for (std::size_t index = 0; index < messages_.size(); ++index) {
    by_pair[next[pairs.pair_of(messages_[index])]++] = index;
  }
  next.assign(first.begin(), first.end() - 1);
  Found found;
  found.starts.reserve(order.size());
  for (const std::size_t pair : order) found.starts.push_back(messages_[by_pair[next[pair]++]]);
  found.makespan_us = port_order_makespan_us(found.starts, ports_, message_cost_us_);
  if (found.makespan_us >= limit_us) return {};
  return found;
}

std::vector<Transfer> cut_messages(std::span<const Transfer> messages, std::span<const double> ports,
                                   double longest_us, int max_messages) {
  struct Part {
    double us;
    std::size_t message;
    bool operator<(const Part& other) const {  // the top of the queue is the longest, then the first
      return std::tie(us, other.message) < std::tie(other.us, message);
    }
  };
  std::vector<int> at_side(2 * ports.size());
  std::vector<Bytes> num_parts(messages.size(), 1);
  std::priority_queue<Part> longest;
  for (std::size_t index = 0; index < messages.size(); ++index) {
    ++at_side[static_cast<std::size_t>(messages[index].source.value)];
    ++at_side[ports.size() + static_cast<std::size_t>(messages[index].destination.value)];
    longest.push({duration_us(messages[index], ports), index});
  }
  while (!longest.empty() && longest.top().us > longest_us) {
    const std::size_t index = longest.top().message;
    longest.pop();
    const Transfer& message = messages[index];
    int& sent = at_side[static_cast<std::size_t>(message.source.value)];
    int& received = at_side[ports.size() + static_cast<std::size_t>(message.destination.value)];
    Bytes& parts = num_parts[index];
    if (std::max(sent, received) >= max_messages || parts >= std::min<Bytes>(message.bytes, kMostParts)) {
      continue;
    }
    ++sent;
    ++received;
    ++parts;
    longest.push({duration_us(message, ports) / static_cast<double>(parts), index});
  }
  std::vector<Transfer> cut;
  for (std::size_t index = 0; index < messages.size(); ++index) {
    const Transfer& message = messages[index];
    for (Bytes part = 0; part < num_parts[index]; ++part) {
      const Bytes extra = part < message.bytes % num_parts[index] ? 1 : 0;
      cut.push_back({message.source, message.destination, message.bytes / num_parts[index] + extra});
    }
  }
  return cut;
}

}  // namespace aurora
