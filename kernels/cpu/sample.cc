#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows.h"

namespace aurora::cpu {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// The id of the largest logit, the lower one of equals; -1 when all are NaN or minus infinity.
struct FindLargest {
  template <typename L>
  AURORA_INLINE static void run(const float* logits, std::int64_t count, std::int32_t* id) {
    L largest = L::splat(kLowest);
    for (std::int64_t i = 0; i < count; i += kLanes) {
      const L x = i + kLanes <= count ? L::load(logits + i) : L::load_partial(logits + i, count - i, kLowest);
      largest = max(x, largest);
    }
    const float value = max_lane(largest);
    *id = -1;
    if (value == kLowest) return;
    for (std::int64_t i = 0; i < count; ++i) {
      if (logits[i] == value) {
        *id = static_cast<std::int32_t>(i);
        return;
      }
    }
  }
};

/// weights[i] = exp((logits[i] - largest) / temperature); a NaN logit gets no weight.
struct Weigh {
  template <typename L>
  AURORA_INLINE static void run(const float* logits, float* weights, std::int64_t count, float largest,
                                float temperature) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
      const L x = load_lanes<L>(logits + i, count - i);
      const L w = exp((x - largest) / temperature);
      store_lanes(weights + i, zero_where_nan(x, w), count - i);
    }
  }
};

struct Scratch {
  std::vector<float> weights;        // by token id; 0 means the token is out
  std::vector<float> largest;        // for top-k
  std::vector<std::uint64_t> order;  // for top-p
};

/// Keeps the `top_k` largest weights; everything equal to the last of them stays too, as in Hugging Face.
void keep_top_k(Scratch& scratch, std::int64_t top_k) {
  std::vector<float>& weights = scratch.weights;
  if (top_k <= 0 || top_k >= static_cast<std::int64_t>(weights.size())) return;
  // A heap of the k largest: few tokens of a row enter it, so this is one pass of comparisons.
  std::vector<float>& largest = scratch.largest;
  largest.resize(static_cast<std::size_t>(top_k));
  std::partial_sort_copy(weights.begin(), weights.end(), largest.begin(), largest.end(), std::greater<>());
  const float smallest_kept = largest.back();
  for (float& weight : weights) weight = weight < smallest_kept ? 0.0F : weight;
}

/// Orders tokens by weight, of equal weights the higher id first: the order in which they are dropped.
std::uint64_t drop_key(float weight, std::size_t id) {
  // The bits of positive floats rise with their value.
  return (std::uint64_t{std::bit_cast<std::uint32_t>(weight)} << 32) |
         (0xffffffffU - static_cast<std::uint32_t>(id));
}

/// Drops the least likely tokens whose probabilities sum to at most 1 - top_p; the most likely always stays.
void keep_top_p(Scratch& scratch, float top_p) {
  if (!(top_p < 1)) return;
  std::vector<float>& weights = scratch.weights;
  double total = 0;
  for (const float weight : weights) total += static_cast<double>(weight);
  const double droppable = (1.0 - static_cast<double>(top_p)) * total;
  // All tokens below the share that each could have of `droppable` go without being sorted: together they
  // cannot exceed it. In a peaked distribution these are nearly all.
  const double share = droppable / static_cast<double>(weights.size());
  double dropped = 0;
  std::vector<std::uint64_t>& order = scratch.order;
  order.clear();
  for (std::size_t id = 0; id < weights.size(); ++id) {
    float& weight = weights[id];
    if (static_cast<double>(weight) < share) {
      dropped += static_cast<double>(weight);
      weight = 0;
    } else if (weight > 0) {
      order.push_back(drop_key(weight, id));
    }
  }
  std::sort(order.begin(), order.end());
  for (std::size_t i = 0; i + 1 < order.size(); ++i) {
    float& weight = weights[0xffffffffU - static_cast<std::uint32_t>(order[i])];
    dropped += static_cast<double>(weight);
    if (dropped > droppable) break;
    weight = 0;
  }
}

/// The first id, in ascending order, at which the running sum of weights exceeds random * total.
std::int32_t draw(const std::vector<float>& weights, float random) {
  double total = 0;
  for (const float weight : weights) total += static_cast<double>(weight);
  const double target = static_cast<double>(random) * total;
  double sum = 0;
  std::int32_t last_possible = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    sum += static_cast<double>(weights[i]);
    last_possible = static_cast<std::int32_t>(i);
    if (sum > target) break;
  }
  return last_possible;
}

std::int32_t sample_row(const float* logits, std::int64_t vocabulary, const SamplingRow& row,
                        std::size_t index, Scratch& scratch) {
  std::int32_t best = -1;
  run_for_active_isa<FindLargest>(logits, vocabulary, &best);
  if (best < 0) {
    throw Error(ErrorKind::kInvalidArgument,
                "sample: no logit of row " + std::to_string(index) +
                    " is a number above minus infinity; the model's weights or inputs are broken");
  }
  const float largest = logits[best];
  if (row.temperature <= 0 || largest == std::numeric_limits<float>::infinity()) return best;
  scratch.weights.resize(static_cast<std::size_t>(vocabulary));
  run_for_active_isa<Weigh>(logits, scratch.weights.data(), vocabulary, largest, row.temperature);
  keep_top_k(scratch, row.top_k);
  keep_top_p(scratch, row.top_p);
  return draw(scratch.weights, row.random);
}

void run_sample(const SampleArgs& args, std::span<const SamplingRow> rows) {
  thread_local Scratch scratch;
  const std::int64_t vocabulary = args.logits.dim(1);
  std::int32_t* token_ids = args.token_ids.i32();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const float* logits = args.logits.f32() + static_cast<std::int64_t>(i) * vocabulary;
    token_ids[i] = sample_row(logits, vocabulary, rows[i], i, scratch);
  }
}

}  // namespace

void CpuOps::sample(Stream& stream, const SampleArgs& args) const {
  check_args(args);
  if (args.logits.dim(0) == 0) return;
  CpuStream& own = cpu_stream(stream);
  if (own.runs_at_once()) return own.submit([&] { run_sample(args, args.rows); });
  own.submit([args, rows = std::vector(args.rows.begin(), args.rows.end())] { run_sample(args, rows); });
}

}  // namespace aurora::cpu
