// What the kernel tests share: random inputs, tensors over vectors, and error bounds.
//
// Bounds are those of Higham, "Accuracy and Stability of Numerical Algorithms": a sum of n float32 products
// in any order is off by at most gamma(n) times the sum of their magnitudes.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "tests/kernels/device.h"

namespace aurora::kernel_test {

inline constexpr double kUnitRoundoff = 0x1p-24;  // of float32

inline double gamma(std::int64_t num_operations) {
  const double nu = static_cast<double>(num_operations) * kUnitRoundoff;
  return nu / (1 - nu);
}

/// Numbers from a fixed seed, which is printed.
class Random {
 public:
  explicit Random(std::uint32_t seed) : generator_(seed) { std::cout << "seed " << seed << '\n'; }

  float normal() { return normal_(generator_); }
  std::int32_t below(std::int64_t limit) {
    return static_cast<std::int32_t>(std::uniform_int_distribution<std::int64_t>(0, limit - 1)(generator_));
  }
  std::vector<float> normals(std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal();
    return values;
  }
  std::vector<std::int32_t> indices(std::int64_t count, std::int64_t limit) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(count));
    for (std::int32_t& value : values) value = below(limit);
    return values;
  }
  std::mt19937& generator() { return generator_; }

 private:
  std::mt19937 generator_;
  std::normal_distribution<float> normal_;
};

inline Tensor view(std::vector<float>& values, std::initializer_list<std::int64_t> shape) {
  return {values.data(), DType::kFloat32, shape};
}
inline Tensor view(std::vector<std::int32_t>& values, std::initializer_list<std::int64_t> shape) {
  return {values.data(), DType::kInt32, shape};
}
inline Tensor view(std::vector<std::uint16_t>& values, std::initializer_list<std::int64_t> shape) {
  return {values.data(), DType::kBFloat16, shape};
}

inline std::vector<std::uint16_t> to_bfloat16(const std::vector<float>& values) {
  std::vector<std::uint16_t> narrow;
  for (const float value : values) narrow.push_back(float_to_bfloat16(value));
  return narrow;
}

inline std::vector<float> from_bfloat16(const std::vector<std::uint16_t>& values) {
  std::vector<float> wide;
  for (const std::uint16_t value : values) wide.push_back(bfloat16_to_float(value));
  return wide;
}

/// Expects that `body()` throws `kind` and that the text contains `part`.
template <typename Body>
void expect_error(ErrorKind kind, const std::string& part, const Body& body) {
  try {
    body();
    ADD_FAILURE() << "no error; expected one that says '" << part << "'";
  } catch (const Error& error) {
    EXPECT_EQ(error_kind_name(error.kind()), error_kind_name(kind)) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

}  // namespace aurora::kernel_test
