#include <cstring>

#include "kernels/cpu/cpu_ops.h"

namespace aurora::cpu {

void CpuOps::append_kv(Stream& stream, const AppendKvArgs& args) const {
  const std::int64_t num_tokens = args.key.dim(0);
  const std::int64_t num_heads = args.key.dim(1);
  const std::int64_t width = args.key.dim(2);
  check_args(args);
  if (num_tokens == 0) return;
  const std::int64_t num_blocks = args.key_cache.dim(0);
  const std::int64_t block_size = args.key_cache.dim(1);
  cpu_stream(stream).submit([=] {
    const std::int32_t* slots = args.slots.i32();
    const std::int64_t row_width = num_heads * width;
    const std::size_t row_bytes = static_cast<std::size_t>(row_width) * sizeof(float);
    for (std::int64_t token = 0; token < num_tokens; ++token) {
      check_index(slots[token], num_blocks * block_size, token, "append_kv: slots");
      const std::int64_t to = slots[token] * row_width;
      std::memcpy(args.key_cache.f32() + to, args.key.f32() + token * row_width, row_bytes);
      std::memcpy(args.value_cache.f32() + to, args.value.f32() + token * row_width, row_bytes);
    }
  });
}

}  // namespace aurora::cpu
