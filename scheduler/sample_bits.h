// Which sampled tokens use which expert, as bits: what a search needs to know how many rows cross the network
// when experts share a GPU.
//
// The tokens that have a row to a GPU are the union of those of its experts; the union is an OR and its size
// a population count, 64 tokens at a time. Of long samples an even part is kept, so that an evaluation costs
// the same on few GPUs as on many: a search sees statistics either way, and its result is judged by all
// samples.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/expert_load.h"

namespace aurora {

class SampleBits {
 public:
  /// Words of 64 tokens in a union: 4,096 tokens estimate the rows of a GPU within about a per cent, and an
  /// evaluation stays below a microsecond.
  static constexpr std::size_t kMaxWords = 64;

  SampleBits() = default;
  /// Keeps as many samples as fit `max_words`, and at least a word of each source.
  SampleBits(const LayerDemand& demand, std::size_t max_words);

  bool is_empty() const { return words_per_source_ == 0; }
  /// Words of a union: those of source 0, then of source 1 and so on.
  std::size_t num_words() const { return words_per_source_ * num_sources_; }
  std::span<const std::uint64_t> tokens_of(int expert) const {
    return {bits_.data() + static_cast<std::size_t>(expert) * num_words(), num_words()};
  }
  /// Kept samples of a source that use the expert; [source].
  std::span<const std::int32_t> pairs_of(int expert) const {
    return {pairs_.data() + static_cast<std::size_t>(expert) * num_sources_, num_sources_};
  }
  /// Size of the union of two sets by source.
  void count_union(std::span<const std::uint64_t> first, std::span<const std::uint64_t> second,
                   std::span<std::int32_t> count_of_source) const;
  /// 1 / pairs, for any sum of pairs of one source that distinct experts can have; [0] is 0.
  double reciprocal(std::int32_t pairs) const { return reciprocals_[static_cast<std::size_t>(pairs)]; }

 private:
  std::size_t num_sources_ = 0;
  std::size_t words_per_source_ = 0;
  std::vector<std::uint64_t> bits_;  // [expert][source][word]
  std::vector<std::int32_t> pairs_;  // [expert][source]
  std::vector<double> reciprocals_;
};

}  // namespace aurora
