#include "kernels/cpu/cpu_ops.h"

namespace aurora::cpu {

CpuStream& cpu_stream(Stream& stream) {
  auto* own = dynamic_cast<CpuStream*>(&stream);
  check(own != nullptr, "a stream of another backend was given to the CPU backend");
  return *own;
}

void throw_index_out_of_range(std::int64_t value, std::int64_t limit, std::int64_t row,
                              std::string_view name) {
  throw Error(ErrorKind::kInternal, index_text(value, limit, row, name));
}

}  // namespace aurora::cpu
