// Rows into and out of 8-bit floats with scales (kernels/float8.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/gather_rows.h"

namespace aurora::cpu {

/// As copy_rows, with output_dtype float8_e4m3; rows of the output are aligned to 4 bytes.
void quantize_rows(const RowCopy& args);

}  // namespace aurora::cpu
