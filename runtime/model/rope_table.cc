#include "runtime/model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "kernels/error.h"

namespace aurora {
namespace {

constexpr std::int64_t kMaxPositions = std::int64_t{1} << 24;

// A Python float that meets a float32 tensor becomes a float32 first; so do our doubles.
float to_float(double value) { return static_cast<float>(value); }

// theta^(2j / head_width), [head_width / 2].
std::vector<float> wavelengths_over_two_pi(const RopeConfig& rope, std::int64_t head_width) {
  std::vector<float> periods(static_cast<std::size_t>(head_width / 2));
  for (std::size_t j = 0; j < periods.size(); ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(head_width);
    periods[j] = std::pow(to_float(rope.theta), exponent);
  }
  return periods;
}

// Long wavelengths are divided by `factor`, short ones kept, those between blended by `smooth`.
float scale_llama3(const RopeConfig& rope, float inverse_frequency) {
  const float wavelength = to_float(2 * std::numbers::pi) / inverse_frequency;
  const float longest_kept = to_float(rope.original_max_positions / rope.high_freq_factor);
  const float shortest_divided = to_float(rope.original_max_positions / rope.low_freq_factor);
  if (wavelength < longest_kept) return inverse_frequency;
  const float factor = to_float(rope.factor);
  if (wavelength > shortest_divided) return inverse_frequency / factor;
  const float smooth = (to_float(rope.original_max_positions) / wavelength - to_float(rope.low_freq_factor)) /
                       to_float(rope.high_freq_factor - rope.low_freq_factor);
  return (1.0F - smooth) * inverse_frequency / factor + smooth * inverse_frequency;
}

// How much attention is sharpened for a context `factor` times as long (Peng et al., eq. 22), times `scale`.
double yarn_magnitude(double factor, double scale) {
  return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1;
}

// The (fractional) pair that turns `num_rotations` times within the original context.
double yarn_pair_of_rotations(const RopeConfig& rope, std::int64_t head_width, double num_rotations) {
  const double width = static_cast<double>(head_width);
  return width * std::log(rope.original_max_positions / (num_rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

// Pairs up to `low` keep their frequency, pairs from `high` on are interpolated, those between blended.
std::vector<float> scale_yarn(const RopeConfig& rope, std::int64_t head_width,
                              const std::vector<float>& periods) {
  double low = yarn_pair_of_rotations(rope, head_width, rope.beta_fast);
  double high = yarn_pair_of_rotations(rope, head_width, rope.beta_slow);
  if (rope.truncate_correction_range) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_width - 1));
  if (low == high) high += 0.001;  // as in transformers: no division by zero
  std::vector<float> frequencies(periods.size());
  for (std::size_t j = 0; j < periods.size(); ++j) {
    const float ramp = std::clamp((static_cast<float>(j) - to_float(low)) / to_float(high - low), 0.0F, 1.0F);
    const float kept = 1.0F - ramp;
    const float interpolated = 1.0F / (to_float(rope.factor) * periods[j]);
    frequencies[j] = interpolated * (1.0F - kept) + 1.0F / periods[j] * kept;
  }
  return frequencies;
}

}  // namespace

std::vector<float> rope_inverse_frequencies(const RopeConfig& rope, std::int64_t head_width) {
  if (head_width <= 0 || head_width % 2 != 0) {
    throw Error(ErrorKind::kInvalidArgument,
                "rotary embedding needs a positive, even head width, not " + std::to_string(head_width));
  }
  const std::vector<float> periods = wavelengths_over_two_pi(rope, head_width);
  if (rope.scaling == RopeScaling::kYarn) return scale_yarn(rope, head_width, periods);
  std::vector<float> frequencies(periods.size());
  for (std::size_t j = 0; j < periods.size(); ++j) {
    frequencies[j] = 1.0F / periods[j];
    if (rope.scaling == RopeScaling::kLinear) frequencies[j] /= to_float(rope.factor);
    if (rope.scaling == RopeScaling::kLlama3) frequencies[j] = scale_llama3(rope, frequencies[j]);
  }
  return frequencies;
}

double rope_attention_factor(const RopeConfig& rope) {
  if (rope.scaling != RopeScaling::kYarn) return 1;
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.magnitude_scale != 0 && rope.magnitude_scale_all != 0) {
    return yarn_magnitude(rope.factor, rope.magnitude_scale) /
           yarn_magnitude(rope.factor, rope.magnitude_scale_all);
  }
  return yarn_magnitude(rope.factor, 1);
}

RopeTable make_rope_table(const RopeConfig& rope, std::int64_t head_width, std::int64_t num_positions) {
  if (num_positions < 0 || num_positions > kMaxPositions) {
    throw Error(ErrorKind::kInvalidArgument, "a rope table of " + std::to_string(num_positions) +
                                                 " positions; the limit is " + std::to_string(kMaxPositions));
  }
  const std::vector<float> frequencies = rope_inverse_frequencies(rope, head_width);
  const float attention_factor = to_float(rope_attention_factor(rope));
  RopeTable table;
  table.num_positions = num_positions;
  table.half_width = static_cast<std::int64_t>(frequencies.size());
  table.cosine.reserve(static_cast<std::size_t>(num_positions) * frequencies.size());
  table.sine.reserve(static_cast<std::size_t>(num_positions) * frequencies.size());
  for (std::int64_t position = 0; position < num_positions; ++position) {
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      table.cosine.push_back(std::cos(angle) * attention_factor);
      table.sine.push_back(std::sin(angle) * attention_factor);
    }
  }
  return table;
}

}  // namespace aurora
