#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/float8_rows.h"
#include "kernels/cpu/gather_rows.h"

namespace aurora::cpu {
namespace {

void pack_range(const PackRowsArgs& args, std::int64_t begin, std::int64_t end) {
  if (begin == end) return;
  std::byte* output = args.output + static_cast<std::size_t>(begin) * args.row_bytes;
  const RowCopy rows{.input = args.input,
                     .indices = args.indices.i32() + begin,
                     .num_rows = end - begin,
                     .width = args.input.dim(1),
                     .output_dtype = args.wire_dtype,
                     .output = output,
                     .output_row_bytes = static_cast<std::int64_t>(args.row_bytes),
                     .name = "pack_rows: indices"};
  args.wire_dtype == DType::kFloat8E4M3 ? quantize_rows(rows) : copy_rows(rows);
  if (!args.headers.has_data()) return;
  const std::size_t header_bytes = static_cast<std::size_t>(args.headers.dim(1)) * sizeof(std::int32_t);
  const std::byte* header = args.headers.bytes() + static_cast<std::size_t>(begin) * header_bytes;
  for (std::int64_t row = begin; row < end; ++row, output += args.row_bytes, header += header_bytes) {
    std::memcpy(output + args.header_offset, header, header_bytes);
  }
}

void run_pack_rows(const PackRowsArgs& args) {
  const std::int64_t max_rows = args.indices.dim(0);
  if (!args.row_offsets.has_data()) return pack_range(args, 0, max_rows);
  const std::int32_t* offsets = args.row_offsets.i32();
  const std::int32_t end = offsets[args.row_offsets.dim(0) - 1];
  check(end <= max_rows, "pack_rows: row_offsets point beyond the rows");
  pack_range(args, 0, offsets[args.left_out_rank]);
  pack_range(args, offsets[args.left_out_rank + 1], end);
}

}  // namespace

void CpuOps::pack_rows(Stream& stream, const PackRowsArgs& args) const {
  check_args(args);
  if (args.indices.is_empty()) return;
  cpu_stream(stream).submit([args] { run_pack_rows(args); });
}

}  // namespace aurora::cpu
