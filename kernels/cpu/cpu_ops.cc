#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <array>
#include <string>

namespace aurora::cpu {

CpuStream& cpu_stream(Stream& stream) {
  auto* own = dynamic_cast<CpuStream*>(&stream);
  check(own != nullptr, "a stream of another backend was given to the CPU backend");
  return *own;
}

void check_shape(const Tensor& tensor, std::initializer_list<std::int64_t> shape, std::string_view name) {
  std::array<std::int64_t, Tensor::kMaxDims> expected;
  expected.fill(1);
  std::copy(shape.begin(), shape.end(), expected.begin());
  bool fits = true;
  for (int i = 0; i < Tensor::kMaxDims; ++i) fits &= tensor.dim(i) == expected[static_cast<std::size_t>(i)];
  if (fits) return;
  std::string text = std::string(name) + " is [";
  for (int i = 0; i < tensor.num_dims(); ++i) text += (i > 0 ? ", " : "") + std::to_string(tensor.dim(i));
  text += "], expected [";
  int index = 0;
  for (const std::int64_t extent : shape) text += (index++ > 0 ? ", " : "") + std::to_string(extent);
  check(false, text + "]");
}

void throw_index_out_of_range(std::int64_t value, std::int64_t limit, std::int64_t row,
                              std::string_view name) {
  throw Error(ErrorKind::kInternal, "internal error: " + std::string(name) + "[" + std::to_string(row) +
                                        "] is " + std::to_string(value) + ", must be in [0, " +
                                        std::to_string(limit) + ")");
}

}  // namespace aurora::cpu
