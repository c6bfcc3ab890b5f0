// The angles of rotary position embedding (Su et al., arXiv 2104.09864), as tables of their cosines and
// sines.
//
// Pair j of a head of width w turns by position * inverse_frequency[j], inverse_frequency[j] = theta^(-2j /
// w) before scaling. The scalings extend a model's context: linear divides all frequencies by `factor` (Chen
// et al., arXiv 2306.15595); llama3 divides the low ones and blends those between; yarn blends by the number
// of rotations within the original context and multiplies cosine and sine by an attention factor (Peng et
// al., arXiv 2309.00071).
//
// The arithmetic is that of Hugging Face transformers: inverse frequencies and angles in float32. A cosine of
// an exact angle would be another one: at position p the float32 angle is off by up to p * 2^-24 of its
// frequency, and models are trained with it.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/model/model_config.h"

namespace aurora {

struct RopeTable {
  std::int64_t num_positions = 0;
  std::int64_t half_width = 0;
  std::vector<float> cosine;  // [num_positions, half_width], the attention factor included
  std::vector<float> sine;    // [num_positions, half_width], the attention factor included
};

/// [head_width / 2]. Throws kInvalidArgument unless head_width is positive and even.
std::vector<float> rope_inverse_frequencies(const RopeConfig& rope, std::int64_t head_width);

/// What cosines and sines are multiplied with: 1 except for yarn, where it is `attention_factor`, else
/// follows from `factor` and, if both are given, the two magnitude scales.
double rope_attention_factor(const RopeConfig& rope);

/// The table of positions [0, num_positions). Throws kInvalidArgument for an odd head_width, or for more than
/// 2^24 positions (beyond, not every position is a float32).
RopeTable make_rope_table(const RopeConfig& rope, std::int64_t head_width, std::int64_t num_positions);

}  // namespace aurora
