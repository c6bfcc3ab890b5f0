#include "scheduler/branch_and_bound.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <tuple>

#include "scheduler/layer_time.h"
#include "scheduler/one_expert_per_gpu.h"

namespace aurora {
namespace {

constexpr std::size_t kMaxTerms = std::size_t{1} << 20;  // doubles in the table of combinations
constexpr double kLeastGain = 1e-12;                     // relative; less is rounding

/// Values of a combination for each model, side by side: what it computes, rows over bytes per microsecond of
/// its busier side, and what the wire has carried after its dispatch and after its combine.
enum Term : std::size_t { kExperts, kExchange, kDispatchWire, kCombineWire, kNumTerms };

/// One expert of each model, or none, on one GPU: digits of a number, the first model's the lowest.
class Combinations {
 public:
  explicit Combinations(const LayerProblem& problem);

  std::size_t num_models() const { return radix_.size(); }
  std::size_t num_gpus() const { return num_gpus_; }
  std::size_t size() const { return size_; }
  std::size_t num_terms() const { return kNumTerms * num_models(); }
  int num_experts(std::size_t model) const { return num_experts_[model]; }
  /// num_experts(model): none.
  int expert_of(std::size_t combination, std::size_t model) const {
    return experts_[combination * num_models() + model];
  }
  bool is_allowed(std::size_t gpu, std::size_t combination) const {
    return is_allowed_[gpu * size_ + combination];
  }
  const double* terms(std::size_t gpu, std::size_t combination) const {
    return terms_.data() + (gpu * size_ + combination) * num_terms();
  }
  static std::vector<std::size_t> radix_of(const LayerProblem& problem);

 private:
  void add_terms(const LayerProblem& problem, const std::vector<HostingTerms>& hosting, std::size_t gpu,
                 std::size_t combination);

  std::vector<std::size_t> radix_;  // [model]
  std::vector<int> num_experts_;    // [model]
  std::size_t num_gpus_;
  std::size_t size_ = 1;
  std::vector<int> experts_;  // [combination][model]
  std::vector<bool> is_allowed_;
  std::vector<double> terms_;  // [gpu][combination][model][term]
};

std::vector<std::size_t> Combinations::radix_of(const LayerProblem& problem) {
  std::vector<std::size_t> radix;
  for (const LayerDemand& demand : problem.demands) {
    radix.push_back(std::min(static_cast<std::size_t>(problem.num_gpus()), demand.expert_pairs.size() + 1));
  }
  return radix;
}

Combinations::Combinations(const LayerProblem& problem)
    : radix_(radix_of(problem)), num_gpus_(static_cast<std::size_t>(problem.num_gpus())) {
  std::vector<HostingTerms> hosting;
  for (std::size_t model = 0; model < radix_.size(); ++model) {
    size_ *= radix_[model];
    num_experts_.push_back(problem.demands[model].num_experts);
    hosting.push_back(hosting_terms(problem, model));
  }
  for (std::size_t combination = 0; combination < size_; ++combination) {
    std::size_t left = combination;
    for (const std::size_t radix : radix_) {
      experts_.push_back(static_cast<int>(left % radix));
      left /= radix;
    }
  }
  terms_.reserve(num_gpus_ * size_ * num_terms());
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
    for (std::size_t combination = 0; combination < size_; ++combination) {
      add_terms(problem, hosting, gpu, combination);
    }
  }
}

void Combinations::add_terms(const LayerProblem& problem, const std::vector<HostingTerms>& hosting,
                             std::size_t gpu, std::size_t combination) {
  const std::size_t first = terms_.size();
  terms_.resize(first + num_terms());
  bool is_allowed = true;
  double send = 0;
  double receive = 0;
  for (std::size_t model = 0; model < num_models(); ++model) {
    const auto at = hosting[model].at(static_cast<std::size_t>(expert_of(combination, model)), gpu);
    is_allowed = is_allowed && hosting[model].is_allowed[at];
    send += hosting[model].send[at] * problem.models[model]->dispatch_bytes_per_token;
    receive += hosting[model].receive[at] * problem.models[model]->dispatch_bytes_per_token;
    double* term = terms_.data() + first + model * kNumTerms;
    term[kExperts] = hosting[model].expert_us[at];
    term[kExchange] = std::max(hosting[model].send[at], hosting[model].receive[at]);
    term[kDispatchWire] = std::max(send, receive);
  }
  for (std::size_t model = 0; model < num_models(); ++model) {
    const auto at = hosting[model].at(static_cast<std::size_t>(expert_of(combination, model)), gpu);
    send += hosting[model].receive[at] * problem.models[model]->combine_bytes_per_token;
    receive += hosting[model].send[at] * problem.models[model]->combine_bytes_per_token;
    terms_[first + model * kNumTerms + kCombineWire] = std::max(send, receive);
  }
  is_allowed_.push_back(is_allowed);
}

class BranchAndBound {
 public:
  BranchAndBound(const LayerProblem& problem, const BranchAndBoundArgs& args);
  BranchAndBoundResult run();

 private:
  struct Node {
    std::vector<double> bound;                      // [model][term] no placement below the node is under it
    std::vector<std::vector<std::size_t>> choices;  // [gpu] combinations; one where it is decided
    std::vector<bool> is_open;                      // [gpu]
    std::vector<std::uint64_t> is_used;             // [model] experts of decided GPUs
  };

  struct Place {
    double time_us;  // bound of the layer time when it is taken
    std::size_t gpu;
    std::size_t combination;
  };

  double time_us(const double* bound);
  double time_with(const std::vector<double>& bound, const double* terms);
  double goal_us() const { return result_.layer_time_us * (1 - kLeastGain); }
  bool is_free(const Node& node, std::size_t combination) const;
  bool strike_out(Node& node, std::size_t gpu);
  bool raise_by_experts(Node& node);
  bool refine(Node& node);
  void decide(Node& node, std::size_t gpu, std::size_t combination) const;
  std::vector<Place> fewest_places(const Node& node);
  void search(std::size_t depth);
  void record(const Node& node);

  Combinations combinations_;
  BranchAndBoundArgs args_;
  std::vector<PhaseMaxima> maxima_;  // [model]; gate and aggregation are the same for all placements
  std::vector<double> dispatch_bytes_;
  std::vector<double> combine_bytes_;
  std::vector<Node> nodes_;            // [depth]
  std::vector<double> raised_;         // scratch, [model][term]
  std::vector<double> expert_minima_;  // scratch, [model][expert][model][term]
  std::int64_t num_trials_ = 0;
  BranchAndBoundResult result_;
};

BranchAndBound::BranchAndBound(const LayerProblem& problem, const BranchAndBoundArgs& args)
    : combinations_(problem), args_(args), nodes_(combinations_.num_gpus() + 1) {
  const std::size_t num_terms = combinations_.num_terms();
  raised_.resize(num_terms);
  for (std::size_t model = 0; model < combinations_.num_models(); ++model) {
    const ModelTraffic& costs = *problem.models[model];
    PhaseMaxima& maxima = maxima_.emplace_back();
    for (std::size_t gpu = 0; gpu < combinations_.num_gpus(); ++gpu) {
      const double tokens = problem.demands[model].tokens[gpu] / problem.cluster->gpus[gpu].compute;
      maxima.gate_us = std::max(maxima.gate_us, tokens * (costs.attention_us + costs.gate_us));
      maxima.aggregate_us = std::max(maxima.aggregate_us, tokens * costs.aggregate_us);
    }
    dispatch_bytes_.push_back(costs.dispatch_bytes_per_token);
    combine_bytes_.push_back(costs.combine_bytes_per_token);
  }
  Node& root = nodes_.front();
  root.bound.assign(num_terms, 0);
  root.is_open.assign(combinations_.num_gpus(), true);
  root.is_used.assign(combinations_.num_models(), 0);
  root.choices.resize(combinations_.num_gpus());
  for (std::size_t gpu = 0; gpu < combinations_.num_gpus(); ++gpu) {
    for (std::size_t combination = 0; combination < combinations_.size(); ++combination) {
      if (combinations_.is_allowed(gpu, combination)) root.choices[gpu].push_back(combination);
    }
  }
  result_.layer_time_us = args.limit_us;
}

/// Layer time that the maxima in `bound` make up.
double BranchAndBound::time_us(const double* bound) {
  for (std::size_t model = 0; model < maxima_.size(); ++model) {
    const double* terms = bound + model * kNumTerms;
    maxima_[model].expert_us = terms[kExperts];
    maxima_[model].dispatch_us = terms[kExchange] * dispatch_bytes_[model];
    maxima_[model].combine_us = terms[kExchange] * combine_bytes_[model];
    maxima_[model].dispatch_wire_us = terms[kDispatchWire];
    maxima_[model].combine_wire_us = terms[kCombineWire];
  }
  return colocated_layer_time_us(std::span<const PhaseMaxima>(maxima_));
}

double BranchAndBound::time_with(const std::vector<double>& bound, const double* terms) {
  for (std::size_t term = 0; term < bound.size(); ++term) raised_[term] = std::max(bound[term], terms[term]);
  return time_us(raised_.data());
}

bool BranchAndBound::is_free(const Node& node, std::size_t combination) const {
  for (std::size_t model = 0; model < node.is_used.size(); ++model) {
    const int expert = combinations_.expert_of(combination, model);
    if (expert < combinations_.num_experts(model) && (node.is_used[model] >> expert & 1) != 0) return false;
  }
  return true;
}

/// Leaves an open GPU the combinations that can still beat the goal, and raises the bound by the least of
/// them. False when none is left.
bool BranchAndBound::strike_out(Node& node, std::size_t gpu) {
  std::vector<double> least(node.bound.size(), std::numeric_limits<double>::infinity());
  num_trials_ += static_cast<std::int64_t>(node.choices[gpu].size());
  std::erase_if(node.choices[gpu], [&](std::size_t combination) {
    const double* terms = combinations_.terms(gpu, combination);
    if (!is_free(node, combination) || time_with(node.bound, terms) >= goal_us()) return true;
    for (std::size_t term = 0; term < least.size(); ++term) least[term] = std::min(least[term], terms[term]);
    return false;
  });
  if (node.choices[gpu].empty()) return false;
  for (std::size_t term = 0; term < least.size(); ++term) {
    node.bound[term] = std::max(node.bound[term], least[term]);
  }
  return true;
}

/// Raises the bound by what each open expert brings at its best place. False when one has no place left.
bool BranchAndBound::raise_by_experts(Node& node) {
  const std::size_t num_terms = node.bound.size();
  const std::size_t n = combinations_.num_gpus();
  expert_minima_.assign(maxima_.size() * n * num_terms, std::numeric_limits<double>::infinity());
  for (std::size_t gpu = 0; gpu < n; ++gpu) {
    if (!node.is_open[gpu]) continue;
    for (const std::size_t combination : node.choices[gpu]) {
      const double* terms = combinations_.terms(gpu, combination);
      for (std::size_t model = 0; model < maxima_.size(); ++model) {
        const int expert = combinations_.expert_of(combination, model);
        if (expert == combinations_.num_experts(model)) continue;
        double* least = expert_minima_.data() + (model * n + static_cast<std::size_t>(expert)) * num_terms;
        for (std::size_t term = 0; term < num_terms; ++term) least[term] = std::min(least[term], terms[term]);
      }
    }
  }
  for (std::size_t model = 0; model < maxima_.size(); ++model) {
    for (int expert = 0; expert < combinations_.num_experts(model); ++expert) {
      if ((node.is_used[model] >> expert & 1) != 0) continue;
      const double* least =
          expert_minima_.data() + (model * n + static_cast<std::size_t>(expert)) * num_terms;
      if (least[0] == std::numeric_limits<double>::infinity()) return false;
      for (std::size_t term = 0; term < num_terms; ++term) {
        node.bound[term] = std::max(node.bound[term], least[term]);
      }
    }
  }
  return true;
}

/// Strikes out and raises until nothing changes; false when nothing below the node can beat the goal.
bool BranchAndBound::refine(Node& node) {
  for (double before = -1;;) {
    for (std::size_t gpu = 0; gpu < node.is_open.size(); ++gpu) {
      if (node.is_open[gpu] && !strike_out(node, gpu)) return false;
    }
    if (!raise_by_experts(node)) return false;
    const double time = time_us(node.bound.data());
    if (time >= goal_us()) return false;
    if (time <= before) return true;
    before = time;
  }
}

void BranchAndBound::decide(Node& node, std::size_t gpu, std::size_t combination) const {
  node.is_open[gpu] = false;
  node.choices[gpu] = {combination};
  const double* terms = combinations_.terms(gpu, combination);
  for (std::size_t term = 0; term < node.bound.size(); ++term) {
    node.bound[term] = std::max(node.bound[term], terms[term]);
  }
  for (std::size_t model = 0; model < node.is_used.size(); ++model) {
    const int expert = combinations_.expert_of(combination, model);
    if (expert < combinations_.num_experts(model)) node.is_used[model] |= std::uint64_t{1} << expert;
  }
}

void BranchAndBound::record(const Node& node) {
  Assignment assignment;
  for (std::size_t model = 0; model < maxima_.size(); ++model) {
    std::vector<int>& gpu_of =
        assignment.emplace_back(static_cast<std::size_t>(combinations_.num_experts(model)));
    for (std::size_t gpu = 0; gpu < node.choices.size(); ++gpu) {
      const int expert = combinations_.expert_of(node.choices[gpu].front(), model);
      if (expert < combinations_.num_experts(model)) gpu_of[expert] = static_cast<int>(gpu);
    }
  }
  result_.assignment = std::move(assignment);
  result_.layer_time_us = time_us(node.bound.data());
}

/// All places that are left to the GPU or the expert that has the fewest of them: one of them must be taken.
/// Empty when every GPU is decided.
std::vector<BranchAndBound::Place> BranchAndBound::fewest_places(const Node& node) {
  const std::size_t n = combinations_.num_gpus();
  const std::size_t num_models = maxima_.size();
  std::vector<std::size_t> num_places((1 + num_models) * n);  // of GPUs, then of each model's experts
  for (std::size_t gpu = 0; gpu < n; ++gpu) {
    if (!node.is_open[gpu]) continue;
    num_places[gpu] = node.choices[gpu].size();
    for (const std::size_t combination : node.choices[gpu]) {
      for (std::size_t model = 0; model < num_models; ++model) {
        const int expert = combinations_.expert_of(combination, model);
        if (expert < combinations_.num_experts(model)) {
          ++num_places[(1 + model) * n + static_cast<std::size_t>(expert)];
        }
      }
    }
  }
  std::size_t chosen = 0;
  for (std::size_t candidate = 0; candidate < num_places.size(); ++candidate) {
    if (num_places[candidate] == 0) continue;
    if (num_places[chosen] == 0 || num_places[candidate] < num_places[chosen]) chosen = candidate;
  }
  std::vector<Place> places;
  for (std::size_t gpu = 0; gpu < n; ++gpu) {
    if (!node.is_open[gpu] || (chosen < n && chosen != gpu)) continue;
    for (const std::size_t combination : node.choices[gpu]) {
      if (chosen >= n && combinations_.expert_of(combination, chosen / n - 1) != static_cast<int>(chosen % n))
        continue;
      places.push_back({time_with(node.bound, combinations_.terms(gpu, combination)), gpu, combination});
    }
  }
  return places;
}

/// Searches below nodes_[depth], which has been refined.
void BranchAndBound::search(std::size_t depth) {
  const Node& node = nodes_[depth];
  std::vector<Place> places = fewest_places(node);
  if (places.empty()) {
    record(node);
    return;
  }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return std::tie(a.time_us, a.gpu, a.combination) < std::tie(b.time_us, b.gpu, b.combination);
  });
  for (const Place& place : places) {
    if (place.time_us >= goal_us()) return;
    if (args_.max_trials > 0 && num_trials_ >= args_.max_trials) {
      result_.is_proven = false;
      return;
    }
    ++result_.num_nodes;
    nodes_[depth + 1] = node;
    decide(nodes_[depth + 1], place.gpu, place.combination);
    if (refine(nodes_[depth + 1])) search(depth + 1);
  }
}

BranchAndBoundResult BranchAndBound::run() {
  result_.is_proven = true;
  ++result_.num_nodes;
  if (refine(nodes_.front())) search(0);
  return std::move(result_);
}

}  // namespace

bool can_branch_and_bound(const LayerProblem& problem) {
  if (problem.num_gpus() > 64 || problem.num_models() < 2 || !can_place_one_per_gpu(problem)) return false;
  double num_terms =
      static_cast<double>(problem.num_gpus() * kNumTerms) * static_cast<double>(problem.num_models());
  for (const std::size_t radix : Combinations::radix_of(problem)) num_terms *= static_cast<double>(radix);
  return num_terms <= static_cast<double>(kMaxTerms);
}

BranchAndBoundResult branch_and_bound(const LayerProblem& problem, const BranchAndBoundArgs& args) {
  if (!can_branch_and_bound(problem)) {
    throw std::invalid_argument(
        "branch and bound: the problem is too large for its tables, or has several "
        "experts of a model on a GPU or links inside nodes");
  }
  return BranchAndBound(problem, args).run();
}

}  // namespace aurora
