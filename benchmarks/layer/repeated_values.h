// Random numbers for gigabytes of weights and activations: a block of some million values, repeated.
//
// Element i of an array is value i mod P of the block, with a prime P, so that the rows of a matrix differ.
// The host knows every element without holding the array. Values are uniform with mean 0, and exact in the
// array's type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace aurora::bench {

class RepeatedValues {
 public:
  /// `deviation`: the standard deviation. `longest_row`: the most elements that `row` may be read for.
  RepeatedValues(Backend& backend, DType dtype, double deviation, std::int64_t longest_row,
                 std::uint64_t seed);

  /// Writes elements 0, 1, ... to device memory. This object must outlive the work.
  void fill(Stream& stream, const Tensor& array) const;

  /// What elements first, first + 1, ... are, as far as `longest_row`.
  const float* row(std::int64_t first) const;

 private:
  Backend* backend_;
  DType dtype_;
  Buffer exact_;  // kHost: [period + longest row] float32, what the values are
  Buffer block_;  // kHost: [period] dtype, what is copied
};

}  // namespace aurora::bench
