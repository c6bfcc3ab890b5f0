#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/gather_rows.h"

namespace aurora::cpu {

void CpuOps::embed(Stream& stream, const EmbedArgs& args) const {
  const std::int64_t num_tokens = args.output.dim(0);
  check_args(args);
  if (num_tokens == 0) return;
  cpu_stream(stream).submit([args, num_tokens] {
    const std::int64_t width = args.output.dim(1);
    copy_rows({.input = args.table,
               .indices = args.token_ids.i32(),
               .num_rows = num_tokens,
               .width = width,
               .output_dtype = args.output.dtype(),
               .output = args.output.bytes(),
               .output_row_bytes = width * static_cast<std::int64_t>(dtype_bytes(args.output.dtype())),
               .name = "embed: token_ids"});
  });
}

}  // namespace aurora::cpu
