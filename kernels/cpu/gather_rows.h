// Copies rows by index: what embed, gather_rows, pack_rows and expert_ffn have in common.
#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/tensor.h"

namespace aurora::cpu {

struct RowCopy {
  Tensor input;                           // [num_input_rows, at least width]
  const std::int32_t* indices = nullptr;  // [num_rows], each in [0, num_input_rows)
  std::int64_t num_rows = 0;
  std::int64_t width = 0;                // columns to copy
  DType output_dtype = DType::kFloat32;  // the input's, or the other of float32 and bfloat16
  std::byte* output = nullptr;           // [num_rows, output_row_bytes]
  std::int64_t output_row_bytes = 0;     // a multiple of the element size
  std::string_view name;                 // of the indices, for messages
};

void copy_rows(const RowCopy& args);

/// Throws kInternal naming the first index that is out of range.
void check_indices(const RowCopy& args);

}  // namespace aurora::cpu
