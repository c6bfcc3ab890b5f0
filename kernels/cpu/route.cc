#include <limits>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows.h"

namespace aurora::cpu {
namespace {

/// scores[e] of one token, over all experts, as Hugging Face computes them in float32.
struct Score {
  template <typename L>
  AURORA_INLINE static void run(const float* logits, float* scores, std::int64_t count,
                                RouterScoring scoring) {
    if (scoring == RouterScoring::kSigmoid) {
      for (std::int64_t i = 0; i < count; i += kLanes) {
        store_lanes(scores + i, sigmoid(load_lanes<L>(logits + i, count - i)), count - i);
      }
      return;
    }
    const float lowest = -std::numeric_limits<float>::infinity();
    L largest = L::splat(lowest);
    for (std::int64_t i = 0; i < count; i += kLanes) largest = max(load_logits<L>(logits, i, count), largest);
    const L shift = L::splat(max_lane(largest));
    L sums = L::splat(0);
    for (std::int64_t i = 0; i < count; i += kLanes) {
      const L weights = exp(load_logits<L>(logits, i, count) - shift);
      sums += weights;
      store_lanes(scores + i, weights, count - i);
    }
    const float total = sum_lanes(sums);
    for (std::int64_t i = 0; i < count; i += kLanes) {
      store_lanes(scores + i, load_lanes<L>(scores + i, count - i) / total, count - i);
    }
  }

  template <typename L>
  AURORA_INLINE static L load_logits(const float* logits, std::int64_t i, std::int64_t count) {
    if (i + kLanes <= count) return L::load(logits + i);
    return L::load_partial(logits + i, count - i, -std::numeric_limits<float>::infinity());
  }
};

/// Writes the `top_k` experts of highest logit, highest first, ties to the lower id. Both scorings rise with
/// the logit, so this is the order of the scores, told apart even where scores round to the same float. A NaN
/// ranks lowest.
void choose_experts(const float* logits, std::int64_t num_experts, std::int64_t top_k, std::int32_t* ids) {
  const auto ranks_above = [logits](std::int32_t a, std::int32_t b) {
    return logits[a] > logits[b] || (logits[b] != logits[b] && logits[a] == logits[a]);
  };
  // Insertion into the sorted list of the best so far: experts come in ascending order, so an equal one stays
  // behind those already there.
  std::int64_t num_chosen = 0;
  for (std::int32_t expert = 0; expert < num_experts; ++expert) {
    if (num_chosen == top_k && !ranks_above(expert, ids[top_k - 1])) continue;
    std::int64_t place = num_chosen < top_k ? num_chosen++ : top_k - 1;
    for (; place > 0 && ranks_above(expert, ids[place - 1]); --place) ids[place] = ids[place - 1];
    ids[place] = expert;
  }
}

void run_route(const RouteArgs& args, std::vector<float>& scores) {
  const std::int64_t num_experts = args.logits.dim(1);
  const std::int64_t top_k = args.expert_ids.dim(1);
  scores.resize(static_cast<std::size_t>(num_experts));
  for (std::int64_t token = 0; token < args.logits.dim(0); ++token) {
    const float* logits = args.logits.f32() + token * num_experts;
    std::int32_t* ids = args.expert_ids.i32() + token * top_k;
    float* weights = args.weights.f32() + token * top_k;
    run_for_active_isa<Score>(logits, scores.data(), num_experts, args.scoring);
    if (!args.ids_are_given) choose_experts(logits, num_experts, top_k, ids);
    float sum = 0;
    for (std::int64_t k = 0; k < top_k; ++k) {
      check_index(ids[k], num_experts, token * top_k + k, "route: expert_ids");
      weights[k] = scores[static_cast<std::size_t>(ids[k])];
      sum += weights[k];
    }
    if (!args.normalize) continue;
    // Sigmoid scores, and those at replayed ids, can all be 0; the term keeps 0 / 0 away and is lost in any
    // normal sum (the same as Hugging Face's DeepSeek-V3 router).
    sum += 1e-20F;
    for (std::int64_t k = 0; k < top_k; ++k) weights[k] /= sum;
  }
}

}  // namespace

void CpuOps::route(Stream& stream, const RouteArgs& args) const {
  check_args(args);
  if (args.logits.dim(0) == 0) return;
  cpu_stream(stream).submit([args] {
    thread_local std::vector<float> scores;
    run_route(args, scores);
  });
}

}  // namespace aurora::cpu
