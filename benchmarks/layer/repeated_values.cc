#include "benchmarks/layer/repeated_values.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/error.h"
#include "scheduler/random.h"

namespace aurora::bench {
namespace {

constexpr std::int64_t kPeriod = 1048573;  // the largest prime below 2^20

float* floats(const Buffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }

}  // namespace

RepeatedValues::RepeatedValues(Backend& backend, DType dtype, double deviation, std::int64_t longest_row,
                               std::uint64_t seed)
    : backend_(&backend),
      dtype_(dtype),
      exact_(backend.allocate(static_cast<std::size_t>(kPeriod + longest_row) * sizeof(float),
                              MemorySpace::kHost)),
      block_(backend.allocate(static_cast<std::size_t>(kPeriod) * dtype_bytes(dtype), MemorySpace::kHost)) {
  check(dtype == DType::kFloat32 || dtype == DType::kBFloat16, "random values are float32 or bfloat16");
  Random random(seed);
  const double largest = deviation * std::sqrt(3.0);
  float* exact = floats(exact_);
  for (std::int64_t i = 0; i < kPeriod; ++i) {
    exact[i] = static_cast<float>(largest * (2 * random.unit() - 1));
    if (dtype == DType::kFloat32) continue;
    const std::uint16_t bits = float_to_bfloat16(exact[i]);
    std::memcpy(block_.data() + i * static_cast<std::int64_t>(sizeof bits), &bits, sizeof bits);
    exact[i] = bfloat16_to_float(bits);
  }
  if (dtype == DType::kFloat32) std::memcpy(block_.data(), exact, block_.size_bytes());
  for (std::int64_t i = 0; i < longest_row; ++i) exact[kPeriod + i] = exact[i % kPeriod];
}

void RepeatedValues::fill(Stream& stream, const Tensor& array) const {
  check(array.dtype() == dtype_ || array.is_empty(), "an array is filled with values of its own type");
  const std::size_t size = array.size_bytes();
  for (std::size_t done = 0; done < size; done += block_.size_bytes()) {
    backend_->copy(stream, array.bytes() + done, block_.data(), std::min(block_.size_bytes(), size - done));
  }
}

const float* RepeatedValues::row(std::int64_t first) const { return floats(exact_) + first % kPeriod; }

}  // namespace aurora::bench
