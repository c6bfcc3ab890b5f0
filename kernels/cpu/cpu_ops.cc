#include "kernels/cpu/cpu_ops.h"

#include <string>

namespace aurora::cpu {

CpuStream& cpu_stream(Stream& stream) {
  auto* own = dynamic_cast<CpuStream*>(&stream);
  check(own != nullptr, "a stream of another backend was given to the CPU backend");
  return *own;
}

void check_shape(const Tensor& tensor, std::initializer_list<std::int64_t> shape, std::string_view name) {
  bool fits = tensor.num_dims() <= Tensor::kMaxDims;
  int index = 0;
  for (const std::int64_t extent : shape) fits = fits && tensor.dim(index++) == extent;
  while (index < Tensor::kMaxDims) fits = fits && tensor.dim(index++) == 1;
  if (fits) return;
  std::string text = std::string(name) + " is [";
  for (int i = 0; i < tensor.num_dims(); ++i) text += (i > 0 ? ", " : "") + std::to_string(tensor.dim(i));
  text += "], expected [";
  index = 0;
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
