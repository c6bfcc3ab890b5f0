#include "scheduler/sample_bits.h"

#include <algorithm>

namespace aurora {
namespace {

constexpr std::size_t kWordBits = 64;

/// Number of set bits in plain arithmetic, which compilers turn into vector code on any processor; the
/// population count instruction is not in the x86-64 baseline.
inline std::uint64_t num_set_bits(std::uint64_t word) {
  word -= (word >> 1) & 0x5555555555555555u;
  word = (word & 0x3333333333333333u) + ((word >> 2) & 0x3333333333333333u);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  word += word >> 8;
  word += word >> 16;
  return (word + (word >> 32)) & 0x7f;
}

}  // namespace

SampleBits::SampleBits(const LayerDemand& demand, std::size_t max_words) {
  const SampledTokens& samples = demand.samples;
  if (samples.is_empty()) return;
  num_sources_ = static_cast<std::size_t>(demand.num_gpus);
  std::size_t longest = 0;
  for (std::size_t source = 0; source < num_sources_; ++source) {
    longest = std::max(longest, samples.first_of_source[source + 1] - samples.first_of_source[source]);
  }
  words_per_source_ =
      std::min(std::max<std::size_t>(1, max_words / num_sources_), (longest + kWordBits - 1) / kWordBits);
  bits_.assign(static_cast<std::size_t>(demand.num_experts) * num_words(), 0);
  pairs_.assign(static_cast<std::size_t>(demand.num_experts) * num_sources_, 0);
  const std::size_t capacity = words_per_source_ * kWordBits;
  for (std::size_t source = 0; source < num_sources_; ++source) {
    const std::size_t first = samples.first_of_source[source];
    const std::size_t num_tokens = samples.first_of_source[source + 1] - first;
    const std::size_t num_kept = std::min(num_tokens, capacity);
    for (std::size_t kept = 0; kept < num_kept; ++kept) {
      for (const std::int32_t expert : samples.experts_of(first + kept * num_tokens / num_kept)) {
        const auto row = static_cast<std::size_t>(expert);
        bits_[row * num_words() + source * words_per_source_ + kept / kWordBits] |= std::uint64_t{1}
                                                                                    << (kept % kWordBits);
        ++pairs_[row * num_sources_ + source];
      }
    }
  }
  reciprocals_.assign(capacity * static_cast<std::size_t>(samples.top_k) + 1, 0);
  for (std::size_t pairs = 1; pairs < reciprocals_.size(); ++pairs) {
    reciprocals_[pairs] = 1 / static_cast<double>(pairs);
  }
}

void SampleBits::count_union(std::span<const std::uint64_t> first, std::span<const std::uint64_t> second,
                             std::span<std::int32_t> count_of_source) const {
  const std::uint64_t* a = first.data();
  const std::uint64_t* b = second.data();
  for (std::size_t source = 0; source < num_sources_; ++source) {
    std::uint64_t count = 0;
    for (std::size_t word = 0; word < words_per_source_; ++word) count += num_set_bits(a[word] | b[word]);
    count_of_source[source] = static_cast<std::int32_t>(count);
    a += words_per_source_;
    b += words_per_source_;
  }
}

}  // namespace aurora
