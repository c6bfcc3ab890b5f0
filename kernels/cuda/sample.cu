// The next token of each row, one block a row.
//
// Greedy rows are one reduction. Other rows are decided without sorting: "the tokens whose weight is at least
// w" is monotone in w, and the bits of a positive float rise with its value, so each limit (the k-th largest
// weight, the weight at which top-p stops dropping) is found by bisection over the 32 bits, one pass over the
// vocabulary a step. Sums are in double and in a fixed order.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {
namespace {

constexpr int kThreads = 1024;

/// A row's unnormalised weights exp((logit - largest) / temperature), computed anew at every look.
struct Weights {
  const float* logits;
  int vocabulary;
  float largest;
  float temperature;

  __device__ float operator[](int id) const {
    const float logit = logits[id];
    return logit == logit ? expf((logit - largest) / temperature) : 0.0F;
  }
  __device__ std::uint32_t bits(int id) const { return __float_as_uint((*this)[id]); }
};

/// Tokens that are still in: weight bits above `floor`, or equal to it with an id below `floor_ids`. Of equal
/// weights top-p drops the higher ids first.
struct Kept {
  std::uint32_t floor = 0;
  int floor_ids = 0;

  __device__ bool contains(std::uint32_t bits, int id) const {
    return bits > 0 && (bits > floor || (bits == floor && id < floor_ids));
  }
};

__device__ std::int64_t block_max_key(std::int64_t key, std::int64_t* scratch) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) key = max(key, __shfl_xor_sync(~0U, key, offset));
  __syncthreads();
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = key;
  __syncthreads();
  key = scratch[threadIdx.x % kWarp];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) key = max(key, __shfl_xor_sync(~0U, key, offset));
  return key;
}

/// Id of the largest logit, the lower one of equals; -1 when all are NaN or minus infinity.
__device__ int find_largest(const float* logits, int vocabulary, std::int64_t* scratch) {
  std::int64_t best = -1;
  for (int id = static_cast<int>(threadIdx.x); id < vocabulary; id += kThreads) {
    const float logit = logits[id] == 0.0F ? 0.0F : logits[id];  // -0 equals 0
    if (!(logit > -INFINITY)) continue;
    const std::uint32_t bits = __float_as_uint(logit);
    const std::uint32_t order = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
    const std::int64_t key = (static_cast<std::int64_t>(order >> 1) << 32) |
                             ((static_cast<std::int64_t>(order & 1U)) << 31) |
                             static_cast<std::int64_t>(0x7fffffff - id);
    best = max(best, key);
  }
  best = block_max_key(best, scratch);
  return best < 0 ? -1 : 0x7fffffff - static_cast<int>(best & 0x7fffffff);
}

/// Sum of `value(id)` over all ids, in every thread.
template <class Value>
__device__ double sum_over(int vocabulary, double* scratch, const Value& value) {
  double sum = 0;
  for (int id = static_cast<int>(threadIdx.x); id < vocabulary; id += kThreads) sum += value(id);
  return block_sum(sum, scratch);
}

/// The largest bits b for which `holds(b)`, which is true at 0 and falls once; 32 evaluations.
template <class Holds>
__device__ std::uint32_t last_bits(const Holds& holds) {
  std::uint32_t found = 0;
  for (int bit = 30; bit >= 0; --bit) {  // weights are positive: the sign bit is never set
    const std::uint32_t candidate = found | (1U << bit);
    if (holds(candidate)) found = candidate;
  }
  return found;
}

/// Bits of the k-th largest weight: everything equal to it stays, as in Hugging Face.
__device__ std::uint32_t top_k_floor(const Weights& weights, int top_k, double* scratch) {
  if (top_k <= 0 || top_k >= weights.vocabulary) return 1;
  const std::uint32_t floor = last_bits([&](std::uint32_t bits) {
    const double count =
        sum_over(weights.vocabulary, scratch, [&](int id) { return weights.bits(id) >= bits ? 1.0 : 0.0; });
    return count >= top_k;
  });
  return max(floor, 1U);
}

/// The first id, in ascending order, at which the running sum of `value(id)` exceeds `target`; the size of
/// the vocabulary when there is none. Every warp sums a range of ids of its own, the warp in whose range the
/// sum crosses looks for the place.
template <class Value>
__device__ int first_crossing(int vocabulary, double target, double* scratch, const Value& value) {
  __shared__ int crossing;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int per_warp = (vocabulary + kThreads - 1) / kThreads * kWarp;
  const int begin = min(warp * per_warp, vocabulary);
  const int end = min(begin + per_warp, vocabulary);
  double sum = 0;
  for (int id = begin + lane; id < end; id += kWarp) sum += value(id);
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0U, sum, offset);
  __syncthreads();
  if (lane == 0) scratch[warp] = sum;
  if (threadIdx.x == 0) crossing = vocabulary;
  __syncthreads();
  double before = 0;
  for (int w = 0; w < warp; ++w) before += scratch[w];
  if (before <= target && before + sum > target) {
    for (int base = begin; base < end && before <= target; base += kWarp) {
      const double value_here = base + lane < end ? value(base + lane) : 0;
      double running = value_here;
      for (int offset = 1; offset < kWarp; offset *= 2) {
        const double below = __shfl_up_sync(~0U, running, offset);
        if (lane >= offset) running += below;
      }
      // The last id that adds something stands in when this order of additions falls short by a rounding.
      const unsigned positive = __ballot_sync(~0U, value_here > 0);
      if (positive != 0 && lane == 0) crossing = base + kWarp - 1 - __clz(static_cast<int>(positive));
      const unsigned beyond = __ballot_sync(~0U, before + running > target);
      if (beyond != 0 && lane == 0) crossing = base + __ffs(static_cast<int>(beyond)) - 1;
      before += __shfl_sync(~0U, running, kWarp - 1);
      if (beyond != 0) break;
    }
  }
  __syncthreads();
  return crossing;
}

/// What remains when the least likely of the tokens at or above `least_bits` are dropped while they sum to at
/// most 1 - top_p of all; the most likely always stays.
__device__ Kept keep_top_p(const Weights& weights, std::uint32_t least_bits, float top_p, double* scratch) {
  if (!(top_p < 1)) return {least_bits, weights.vocabulary};
  const auto mass_below = [&](std::uint32_t bits) {
    return sum_over(weights.vocabulary, scratch, [&](int id) {
      const std::uint32_t own = weights.bits(id);
      return own >= least_bits && own < bits ? static_cast<double>(__uint_as_float(own)) : 0.0;
    });
  };
  const std::uint32_t most_bits = __float_as_uint(1.0F);  // the weight of the largest logit
  const double droppable = (1.0 - static_cast<double>(top_p)) * mass_below(most_bits + 1);
  const std::uint32_t floor =
      last_bits([&](std::uint32_t bits) { return bits <= most_bits && mass_below(bits) <= droppable; });
  // Of the tokens that weigh exactly the floor, the higher ids go while there is room.
  const auto is_equal = [&](int id) { return weights.bits(id) == floor ? 1.0 : 0.0; };
  const double num_equal = sum_over(weights.vocabulary, scratch, is_equal);
  const double room = (droppable - mass_below(floor)) / static_cast<double>(__uint_as_float(floor));
  const double num_kept = num_equal - fmin(::floor(room), floor == most_bits ? num_equal - 1 : num_equal);
  return {floor, first_crossing(weights.vocabulary, num_kept, scratch, is_equal)};
}

/// Draws among the kept tokens by ascending id.
__device__ int draw(const Weights& weights, const Kept& kept, float random, double* scratch,
                    std::int64_t* key_scratch) {
  const auto kept_weight = [&](int id) {
    const std::uint32_t bits = weights.bits(id);
    return kept.contains(bits, id) ? static_cast<double>(__uint_as_float(bits)) : 0.0;
  };
  const double total = sum_over(weights.vocabulary, scratch, kept_weight);
  const int id =
      first_crossing(weights.vocabulary, static_cast<double>(random) * total, scratch, kept_weight);
  if (id < weights.vocabulary) return id;
  // The two sums may differ in their last bits: then it is the last token that is in.
  std::int64_t last = 0;
  for (int i = static_cast<int>(threadIdx.x); i < weights.vocabulary; i += kThreads) {
    if (kept_weight(i) > 0) last = max(last, static_cast<std::int64_t>(i));
  }
  return static_cast<int>(block_max_key(last, key_scratch));
}

__global__ void sample_kernel(const float* all_logits, const SamplingRow* rows, std::int32_t* token_ids,
                              int vocabulary, FaultSink faults) {
  __shared__ std::int64_t key_scratch[kThreads / kWarp];
  __shared__ double scratch[kThreads / kWarp];
  wait_for_kernel_before();
  let_next_kernel_begin();
  const std::int64_t row_index = blockIdx.x;
  const float* logits = all_logits + row_index * vocabulary;
  const SamplingRow row = rows[row_index];
  int chosen = find_largest(logits, vocabulary, key_scratch);
  if (chosen < 0) {
    if (threadIdx.x == 0) report_fault(faults, FaultSite::kSampleNoLogit, row_index, 0, 0);
    return;
  }
  const float largest = logits[chosen];
  if (row.temperature > 0 && largest != INFINITY) {
    const Weights weights{logits, vocabulary, largest, row.temperature};
    const std::uint32_t least_bits = top_k_floor(weights, row.top_k, scratch);
    const Kept kept = keep_top_p(weights, least_bits, row.top_p, scratch);
    chosen = draw(weights, kept, row.random, scratch, key_scratch);
  }
  if (threadIdx.x == 0) token_ids[row_index] = chosen;
}

}  // namespace

void CudaOps::sample(Stream& stream, const SampleArgs& args) const {
  check_args(args);
  if (args.logits.dim(0) == 0) return;
  CudaStream& own = cuda_stream(stream);
  const StagedArray rows(own, std::as_bytes(args.rows));
  launch_dependent(sample_kernel, static_cast<unsigned>(args.logits.dim(0)), kThreads, 0, own.handle(),
                   "sample", args.logits.f32(), rows.as<SamplingRow>(), args.token_ids.i32(),
                   static_cast<int>(args.logits.dim(1)), own.faults());
}

}  // namespace aurora::cuda
