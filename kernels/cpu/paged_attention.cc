// Attention of one token at a time, each over the keys of its own sequence.
//
// Per head: all scores first (four keys side by side, so that their lane sums share shuffles), then the
// softmax, then the weighted sum of values with four running sums, key j going to sum j mod 4. Keys are
// numbered from the first one attended to, so the order of every sum depends on the token's position and
// window alone.
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows.h"

namespace aurora::cpu {
namespace {

/// One token and one key-value head: the group of query heads that share it.
struct Group {
  const float* query;        // [num_queries, width]
  const float* keys;         // base of this head in the cache
  const float* values;       // likewise
  const std::int64_t* rows;  // [num_keys] offsets of the keys' rows from the base
  float* scores;             // [num_keys rounded up to kLanes], scratch
  float* output;             // [num_queries, width]
  std::int64_t num_queries;
  std::int64_t num_keys;
  std::int64_t width;
  float scale;
};

/// The next sixteen elements of a head's row, or with `kWhole` false the `count` that are left.
template <typename L, bool kWhole>
AURORA_INLINE L load_head(const float* source, std::int64_t count) {
  return kWhole ? L::load(source) : load_lanes<L>(source, count);
}

/// The dot products of a query with the keys whose rows begin at the four offsets.
template <typename L, bool kWhole>
AURORA_INLINE Float4x score_four(const float* query, const float* keys, std::int64_t width,
                                 const std::int64_t (&rows)[4]) {
  L sums[4] = {L::splat(0), L::splat(0), L::splat(0), L::splat(0)};
  for (std::int64_t d = 0; d < width; d += kLanes) {
    const L q = load_head<L, kWhole>(query + d, width - d);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums[i] += q * load_head<L, kWhole>(keys + rows[i] + d, width - d);
  }
  return sum_lanes(sums[0], sums[1], sums[2], sums[3]);
}

// Groups go by value: their members then stay in registers while scores are written.
template <typename L, bool kWhole>
AURORA_INLINE void score_keys(const Group group, const float* query) {
  const std::int64_t last = group.num_keys - 1;
  for (std::int64_t j = 0; j < group.num_keys; j += 4) {
    const std::int64_t* rows = group.rows;
    const std::int64_t four[4] = {rows[j], rows[std::min(j + 1, last)], rows[std::min(j + 2, last)],
                                  rows[std::min(j + 3, last)]};
    const Float4x scores = score_four<L, kWhole>(query, group.keys, group.width, four) * group.scale;
    std::memcpy(group.scores + j, &scores, sizeof scores);
  }
}

/// Scores become exp(score - largest); returns their sum.
template <typename L>
AURORA_INLINE float exponentiate(const Group group) {
  const std::int64_t padded = (group.num_keys + kLanes - 1) / kLanes * kLanes;
  for (std::int64_t j = group.num_keys; j < padded; ++j) {
    group.scores[j] = -std::numeric_limits<float>::infinity();
  }
  L largest = L::load(group.scores);
  for (std::int64_t j = kLanes; j < padded; j += kLanes) largest = max(L::load(group.scores + j), largest);
  const L shift = L::splat(max_lane(largest));
  L sums = L::splat(0);
  for (std::int64_t j = 0; j < padded; j += kLanes) {
    const L weights = exp(L::load(group.scores + j) - shift);
    weights.store(group.scores + j);
    sums += weights;
  }
  return sum_lanes(sums);
}

template <typename L, bool kWhole>
AURORA_INLINE void sum_values(const Group group, float total, float* output) {
  for (std::int64_t d = 0; d < group.width; d += kLanes) {
    const std::int64_t count = group.width - d;
    const float* column = group.values + d;
    L sums[4] = {L::splat(0), L::splat(0), L::splat(0), L::splat(0)};
    std::int64_t j = 0;
    for (; j + 4 <= group.num_keys; j += 4) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        sums[i] += group.scores[j + i] * load_head<L, kWhole>(column + group.rows[j + i], count);
      }
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      if (j + i >= group.num_keys) continue;  // a loop of fixed length, so that the sums stay in registers
      sums[i] += group.scores[j + i] * load_head<L, kWhole>(column + group.rows[j + i], count);
    }
    store_lanes(output + d, ((sums[0] + sums[1]) + (sums[2] + sums[3])) / total, count);
  }
}

template <bool kWhole>
struct Attend {
  template <typename L>
  AURORA_INLINE static void run(const Group* group) {
    for (std::int64_t i = 0; i < group->num_queries; ++i) {
      score_keys<L, kWhole>(*group, group->query + i * group->width);
      const float total = exponentiate<L>(*group);
      sum_values<L, kWhole>(*group, total, group->output + i * group->width);
    }
  }
};

/// Where the keys of a sequence lie, from some position on. Tokens of one prompt follow each other, so each
/// finds the offsets of its predecessor and adds its own.
class RowOffsets {
 public:
  /// Offsets of positions [first, last] of `sequence`.
  const std::int64_t* find(const PagedAttentionArgs& args, std::int64_t sequence, std::int64_t first,
                           std::int64_t last) {
    if (sequence != sequence_ || first < first_) {
      offsets_.clear();
      sequence_ = sequence;
      first_ = first;
    }
    const std::int64_t block_size = args.key_cache.dim(1);
    const std::int64_t row_width = args.key_cache.dim(2) * args.key_cache.dim(3);
    const std::int64_t max_blocks = args.block_tables.dim(1);
    const std::int32_t* blocks = args.block_tables.i32() + sequence * max_blocks;
    check_index(last / block_size, max_blocks, sequence, "paged_attention: block of the last position");
    for (auto position = first_ + static_cast<std::int64_t>(offsets_.size()); position <= last; ++position) {
      const std::int64_t block = blocks[position / block_size];
      check_index(block, args.key_cache.dim(0), position / block_size, "paged_attention: block_tables");
      offsets_.push_back((block * block_size + position % block_size) * row_width);
    }
    return offsets_.data() + (first - first_);
  }

  void forget() { sequence_ = -1; }

 private:
  std::vector<std::int64_t> offsets_;
  std::int64_t sequence_ = -1;
  std::int64_t first_ = 0;
};

void run_token(const PagedAttentionArgs& args, std::int64_t token, RowOffsets& row_offsets,
               std::vector<float>& scores) {
  const std::int64_t sequence = args.sequence_index.i32()[token];
  const std::int64_t position = args.positions.i32()[token];
  check_index(sequence, args.block_tables.dim(0), token, "paged_attention: sequence_index");
  check(position >= 0, "paged_attention: a position is negative");
  const std::int64_t first = args.window > 0 ? std::max<std::int64_t>(0, position - args.window + 1) : 0;
  const std::int64_t num_keys = position - first + 1;
  const std::int64_t num_heads = args.query.dim(1);
  const std::int64_t num_kv_heads = args.key_cache.dim(2);
  const std::int64_t width = args.query.dim(2);
  const std::int64_t group_size = num_heads / num_kv_heads;
  const std::int64_t* rows = row_offsets.find(args, sequence, first, position);
  const auto num_scores = static_cast<std::size_t>(num_keys + kLanes);
  if (scores.size() < num_scores) scores.resize(num_scores * 2);
  for (std::int64_t head = 0; head < num_kv_heads; ++head) {
    const std::int64_t first_query = (token * num_heads + head * group_size) * width;
    const Group group{.query = args.query.f32() + first_query,
                      .keys = args.key_cache.f32() + head * width,
                      .values = args.value_cache.f32() + head * width,
                      .rows = rows,
                      .scores = scores.data(),
                      .output = args.output.f32() + first_query,
                      .num_queries = group_size,
                      .num_keys = num_keys,
                      .width = width,
                      .scale = args.scale};
    if (width % kLanes == 0) {
      run_for_active_isa<Attend<true>>(&group);
    } else {
      run_for_active_isa<Attend<false>>(&group);
    }
  }
}

}  // namespace

void CpuOps::paged_attention(Stream& stream, const PagedAttentionArgs& args) const {
  const std::int64_t num_tokens = args.query.dim(0);
  check_args(args);
  if (num_tokens == 0) return;
  cpu_stream(stream).submit([args, num_tokens] {
    thread_local RowOffsets row_offsets;
    thread_local std::vector<float> scores;
    row_offsets.forget();
    for (std::int64_t token = 0; token < num_tokens; ++token) run_token(args, token, row_offsets, scores);
  });
}

}  // namespace aurora::cpu
