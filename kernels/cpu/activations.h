// Elementwise arithmetic that more than one operation needs.
#pragma once

#include <cstdint>

namespace aurora::cpu {

/// output[i] = silu(gate[i]) * up[i]; output may be gate or up.
void silu_multiply(const float* gate, const float* up, float* output, std::int64_t count);

}  // namespace aurora::cpu
